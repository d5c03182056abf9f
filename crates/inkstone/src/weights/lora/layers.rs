//! The tensors of a file by the layers that they belong to, and what may be wrong with them.

use std::collections::BTreeMap;

use inkstone_tensor::Tensor;

use super::adapter::Adapter;
use super::keys::{self, Dialect, Part};
use crate::error::LoraProblem;

/// The highest rank. Beyond it a LoRA is no shorter than the weight.
const MAX_RANK: usize = 3072;
/// The largest magnitude of alpha.
const MAX_ALPHA: u32 = 100_000;

/// A matrix as it is stored.
#[derive(Clone, Debug)]
pub(super) enum Matrix {
    /// Itself.
    Whole(Tensor),
    /// Two whose product it is: `[n_out, rank]` and `[rank, n_in]`.
    Product(Tensor, Tensor),
}

impl Matrix {
    pub(super) fn n_out(&self) -> usize {
        match self {
            Self::Whole(matrix) | Self::Product(matrix, _) => matrix.rows(),
        }
    }

    pub(super) fn n_in(&self) -> usize {
        match self {
            Self::Whole(matrix) | Self::Product(_, matrix) => matrix.cols(),
        }
    }

    /// What its two parts have in common.
    pub(super) fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Product(a, _) => Some(a.cols()),
        }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Whole(matrix) => vec![matrix],
            Self::Product(a, b) => vec![a, b],
        }
    }

    fn is_sound(&self) -> bool {
        let tensors = self.tensors();
        let are_matrices = tensors.iter().all(|t| t.shape().dims().len() == 2 && t.shape().count() > 0);
        let (rank, other) = (tensors[0].cols(), tensors[tensors.len() - 1].rows());
        are_matrices && (tensors.len() == 1 || rank == other && rank <= MAX_RANK)
    }

    fn shapes(&self) -> String {
        let shapes: Vec<String> = self.tensors().iter().map(|tensor| tensor.shape().to_string()).collect();
        shapes.join(" and ")
    }
}

/// What a file adds to a layer: a factor times a matrix, or the Kronecker product of two.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// As the file names it, without prefix.
    pub(super) name: String,
    /// The first matrix of a Kronecker product: a LoKr's.
    pub(super) left: Option<Matrix>,
    /// Always a product where there is no other matrix.
    pub(super) right: Matrix,
    /// Where it counts.
    pub(super) alpha: Option<f32>,
    /// Alpha over the rank or its root; 1 where alpha does not count.
    pub(super) factor: f32,
}

impl Layer {
    /// Outputs and inputs of the weight that it is for.
    pub(super) fn size(&self) -> [usize; 2] {
        let [outs, ins] = self.left.as_ref().map_or([1, 1], |left| [left.n_out(), left.n_in()]);
        [outs.saturating_mul(self.right.n_out()), ins.saturating_mul(self.right.n_in())]
    }

    /// The rank that alpha is divided by, if a matrix has one.
    pub(super) fn rank(&self) -> Option<usize> {
        self.right.rank().or_else(|| self.left.as_ref().and_then(Matrix::rank))
    }

    /// A tensor of it.
    pub(super) fn tensor(&self) -> &Tensor {
        match &self.right {
            Matrix::Whole(matrix) | Matrix::Product(_, matrix) => matrix,
        }
    }
}

/// What was found of a layer.
#[derive(Default)]
struct Found {
    name: String,
    parts: BTreeMap<Part, Tensor>,
}

/// The layers of a file, by [`keys::flat`] name.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) by_name: BTreeMap<String, Layer>,
    pub(super) dialect: Dialect,
    pub(super) has_alphas: bool,
}

impl Layers {
    /// Sorts and checks the tensors of a file.
    pub(super) fn of(tensors: BTreeMap<String, Tensor>, adapter: &Adapter) -> Result<Self, LoraProblem> {
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let mut dialect = Dialect::Plain;
        for (name, tensor) in tensors {
            let Some(key) = keys::parse(&name) else { continue };
            if !tensor.dtype().is_float() {
                return Err(LoraProblem::Type { have: tensor.dtype().to_string(), tensor: name });
            }
            if key.part != Part::Alpha && !tensor.is_finite() {
                return Err(LoraProblem::NotFinite { tensor: name });
            }
            dialect = key.dialect;
            let layer = found.entry(keys::flat(key.layer)).or_default();
            key.layer.clone_into(&mut layer.name);
            if layer.parts.insert(key.part, tensor).is_some() {
                return Err(LoraProblem::Twice { layer: key.layer.to_owned() });
            }
        }
        let has_alphas =
            adapter.has_alphas() || found.values().any(|layer| layer.parts.contains_key(&Part::Alpha));
        let layer = |(flat, found): (String, Found)| Ok((flat, found.layer(adapter)?));
        let by_name = found.into_iter().map(layer).collect::<Result<_, _>>()?;
        Ok(Self { by_name, dialect, has_alphas })
    }
}

impl Found {
    fn layer(self, adapter: &Adapter) -> Result<Layer, LoraProblem> {
        let is_kronecker = self.parts.keys().any(|part| part.is_kronecker());
        if is_kronecker && [Part::Down, Part::Up].iter().any(|part| self.parts.contains_key(part)) {
            return Err(LoraProblem::Twice { layer: self.name });
        }
        if is_kronecker { self.kronecker(adapter) } else { self.low_rank(adapter) }
    }

    fn take(&mut self, part: Part, name: &'static str) -> Result<Tensor, LoraProblem> {
        let missing = || LoraProblem::Half { layer: self.name.clone(), missing: name };
        self.parts.remove(&part).ok_or_else(missing)
    }

    fn low_rank(mut self, adapter: &Adapter) -> Result<Layer, LoraProblem> {
        let down = self.take(Part::Down, "down (A)")?;
        let up = self.take(Part::Up, "up (B)")?;
        let stored = self.alpha()?;
        let (rank, shapes) = (down.rows(), [down.shape().to_string(), up.shape().to_string()]);
        let right = Matrix::Product(up, down);
        if !right.is_sound() {
            let [down, up] = shapes;
            return Err(LoraProblem::Shapes { layer: self.name, down, up });
        }
        let alpha = stored.map_or_else(|| adapter.alpha(&self.name), |alpha| Ok(Some(alpha)))?;
        let alpha = counting(&self.name, alpha.unwrap_or(rank as f32))?;
        let divisor = if adapter.by_root { (rank as f32).sqrt() } else { rank as f32 };
        Ok(Layer { name: self.name, left: None, right, alpha: Some(alpha), factor: alpha / divisor })
    }

    /// Both matrices of a LoKr, whole or in two parts.
    ///
    /// # Source
    /// LyCORIS 3.2, `LokrModule`; PEFT 0.19, `LoKrLayer`. LyCORIS divides alpha by the rank where a matrix has one, and counts
    /// none otherwise; PEFT's settings count always, and are in no tensor.
    fn kronecker(mut self, adapter: &Adapter) -> Result<Layer, LoraProblem> {
        let left = self.matrix("lokr_w1", [Part::Left, Part::LeftA, Part::LeftB])?;
        let right = self.matrix("lokr_w2", [Part::Right, Part::RightA, Part::RightB])?;
        let stored = self.alpha()?;
        let mut layer = Layer { name: self.name, left: Some(left), right, alpha: None, factor: 1.0 };
        let rank = layer.rank().map(|rank| rank as f32);
        let (alpha, rank) = match stored {
            Some(alpha) => (Some(alpha), rank),
            None => (adapter.alpha(&layer.name)?, rank.or(adapter.rank(&layer.name)?)),
        };
        match (alpha, rank) {
            (Some(alpha), Some(rank)) => {
                layer.alpha = Some(counting(&layer.name, alpha)?);
                layer.factor = alpha / rank;
            }
            // Whole matrices have one that may be anything, but a damaged file is told of.
            (Some(alpha), None) if alpha.is_nan() => return Err(wrong_alpha(&layer.name, alpha.to_string())),
            _ => {}
        }
        Ok(layer)
    }

    /// A matrix that is stored whole or as a product.
    fn matrix(&mut self, name: &'static str, [whole, a, b]: [Part; 3]) -> Result<Matrix, LoraProblem> {
        let in_parts = self.parts.contains_key(&a) || self.parts.contains_key(&b);
        let matrix = match (self.parts.remove(&whole), in_parts) {
            (Some(_), true) => return Err(LoraProblem::Twice { layer: self.name.clone() }),
            (Some(stored), false) => Matrix::Whole(stored),
            (None, true) => Matrix::Product(self.take(a, a.name())?, self.take(b, b.name())?),
            (None, false) => return Err(LoraProblem::Half { layer: self.name.clone(), missing: name }),
        };
        if matrix.is_sound() {
            return Ok(matrix);
        }
        Err(LoraProblem::Kronecker { layer: self.name.clone(), matrix: name, have: matrix.shapes() })
    }

    fn alpha(&mut self) -> Result<Option<f32>, LoraProblem> {
        let Some(stored) = self.parts.remove(&Part::Alpha) else { return Ok(None) };
        match stored.to_f32().ok().as_deref() {
            Some([alpha]) => Ok(Some(*alpha)),
            _ => Err(wrong_alpha(&self.name, format!("{} numbers", stored.shape().count()))),
        }
    }
}

/// An alpha that counts.
fn counting(layer: &str, alpha: f32) -> Result<f32, LoraProblem> {
    if alpha == 0.0 || !(0.0..=MAX_ALPHA as f32).contains(&alpha.abs()) {
        return Err(wrong_alpha(layer, alpha.to_string()));
    }
    Ok(alpha)
}

fn wrong_alpha(layer: &str, got: String) -> LoraProblem {
    LoraProblem::Alpha { layer: layer.to_owned(), got, limit: MAX_ALPHA }
}
