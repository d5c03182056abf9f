//! What was found of a layer, and what its parts are together: the one place that tells a kind of file from another.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Shape, Tensor};

use super::adapter::Adapter;
use super::keys::{Kind, Part};
use super::layers::{Delta, Layer, Matrix, Product, is_matrix};
use crate::error::LoraProblem;

/// The largest magnitude of alpha.
const MAX_ALPHA: u32 = 100_000;

/// The tensors of a layer, each with the type that it is stored in.
pub(super) struct Found {
    name: String,
    pub(super) parts: BTreeMap<Part, (Tensor, DType)>,
}

impl Found {
    /// Nothing yet of a layer of this name.
    pub(super) fn of(name: &str) -> Self {
        Self { name: name.to_owned(), parts: BTreeMap::new() }
    }

    /// The layer.
    pub(super) fn layer(mut self, adapter: &Adapter) -> Result<Layer, LoraProblem> {
        let matrices = || self.parts.iter().filter_map(|(part, (_, stored))| Some((part.kind()?, *stored)));
        let kind = matrices().map(|(kind, _)| kind).next().unwrap_or(Kind::LowRank);
        if matrices().any(|(other, _)| other != kind) {
            return Err(LoraProblem::Twice { layer: self.name });
        }
        let stored = matrices().map(|(_, stored)| stored).next().unwrap_or(DType::F32);
        let delta = match kind {
            Kind::LowRank => self.low_rank()?,
            Kind::Kronecker => self.kronecker()?,
            Kind::Hadamard => self.hadamard()?,
            Kind::Whole => self.difference()?,
        };
        let noted = self.alpha()?;
        let mut layer = Layer { name: self.name, delta, stored, alpha: None, factor: 1.0 };
        match kind {
            Kind::Kronecker | Kind::Whole => layer.count_any(noted, adapter)?,
            Kind::LowRank | Kind::Hadamard => layer.count(noted, adapter)?,
        }
        Ok(layer)
    }

    fn take(&mut self, part: Part, name: &'static str) -> Result<Tensor, LoraProblem> {
        let missing = || LoraProblem::Half { layer: self.name.clone(), missing: name };
        self.parts.remove(&part).map(|(tensor, _)| tensor).ok_or_else(missing)
    }

    /// A matrix in two parts.
    fn product(&mut self, up: Part, down: Part) -> Result<Product, LoraProblem> {
        Ok(Product { up: self.take(up, up.name())?, down: self.take(down, down.name())? })
    }

    fn low_rank(&mut self) -> Result<Delta, LoraProblem> {
        let down = self.take(Part::Down, "down (A)")?;
        let product = Product { up: self.take(Part::Up, "up (B)")?, down };
        if product.is_sound() {
            return Ok(Delta::LowRank(product));
        }
        let [down, up] = [&product.down, &product.up].map(|tensor| tensor.shape().to_string());
        Err(LoraProblem::Shapes { layer: self.name.clone(), down, up })
    }

    /// Both matrices of a LoKr, whole or in two parts.
    fn kronecker(&mut self) -> Result<Delta, LoraProblem> {
        let left = self.matrix("lokr_w1", [Part::Left, Part::LeftA, Part::LeftB])?;
        let right = self.matrix("lokr_w2", [Part::Right, Part::RightA, Part::RightB])?;
        Ok(Delta::Kronecker(left, right))
    }

    /// A matrix that is stored whole or as a product.
    fn matrix(&mut self, name: &'static str, [whole, a, b]: [Part; 3]) -> Result<Matrix, LoraProblem> {
        let in_parts = self.parts.contains_key(&a) || self.parts.contains_key(&b);
        let matrix = match (self.parts.remove(&whole), in_parts) {
            (Some(_), true) => return Err(LoraProblem::Twice { layer: self.name.clone() }),
            (Some((stored, _)), false) => Matrix::Whole(stored),
            (None, true) => Matrix::Product(self.product(a, b)?),
            (None, false) => return Err(LoraProblem::Half { layer: self.name.clone(), missing: name }),
        };
        if matrix.is_sound() {
            return Ok(matrix);
        }
        Err(LoraProblem::Kronecker { layer: self.name.clone(), matrix: name, have: matrix.shapes() })
    }

    /// Both matrices of a LoHa, in two parts each.
    fn hadamard(&mut self) -> Result<Delta, LoraProblem> {
        let first = self.product(Part::FirstA, Part::FirstB)?;
        let second = self.product(Part::SecondA, Part::SecondB)?;
        if first.is_sound() && second.is_sound() && first.size() == second.size() {
            return Ok(Delta::Hadamard(first, second));
        }
        let have = format!("{}, {}", first.shapes(), second.shapes());
        Err(LoraProblem::Hadamard { layer: self.name.clone(), have })
    }

    /// The difference of a weight, or of a vector.
    fn difference(&mut self) -> Result<Delta, LoraProblem> {
        let bias = self.parts.remove(&Part::BiasDifference).map(|(tensor, _)| tensor);
        let (may_be_matrix, stored) = match bias {
            Some(bias) => (false, bias),
            None => (true, self.take(Part::Difference, "diff")?),
        };
        let column = Shape::matrix(stored.shape().count(), 1);
        match stored.shape().dims().len() {
            1 if column.count() > 0 => stored.clone().reshape(column).ok(),
            _ => Some(stored.clone()).filter(|stored| may_be_matrix && is_matrix(stored)),
        }
        .map(Delta::Whole)
        .ok_or_else(|| LoraProblem::Difference { layer: self.name.clone(), have: stored.shape().to_string() })
    }

    /// The number in the file.
    fn alpha(&mut self) -> Result<Option<f32>, LoraProblem> {
        let Some((stored, _)) = self.parts.remove(&Part::Alpha) else { return Ok(None) };
        match stored.to_f32().ok().as_deref() {
            Some([alpha]) => Ok(Some(*alpha)),
            _ => Err(wrong_alpha(&self.name, format!("{} numbers", stored.shape().count()))),
        }
    }
}

impl Layer {
    /// Takes alpha from the file, or else from its settings; else it is the rank.
    ///
    /// # Source
    /// PEFT 0.19, `LoraLayer` and `LoHaLayer`; LyCORIS 4.1, `LohaModule`.
    fn count(&mut self, noted: Option<f32>, adapter: &Adapter) -> Result<(), LoraProblem> {
        let rank = self.rank().unwrap_or(1) as f32;
        let alpha = noted.map_or_else(|| adapter.alpha(&self.name), |alpha| Ok(Some(alpha)))?;
        let alpha = counting(&self.name, alpha.unwrap_or(rank))?;
        self.alpha = Some(alpha);
        self.factor = alpha / if adapter.by_root { rank.sqrt() } else { rank };
        Ok(())
    }

    /// The same for a LoKr, which may have neither, and for a whole difference, which has no rank.
    ///
    /// # Source
    /// LyCORIS 3.2, `LokrModule`; PEFT 0.19, `LoKrLayer`. LyCORIS divides alpha by the rank where a matrix has one, and counts
    /// none otherwise; PEFT's settings count always, and are in no tensor.
    fn count_any(&mut self, noted: Option<f32>, adapter: &Adapter) -> Result<(), LoraProblem> {
        let rank = self.rank().map(|rank| rank as f32);
        let (alpha, rank) = match noted {
            Some(alpha) => (Some(alpha), rank),
            None => (adapter.alpha(&self.name)?, rank.or(adapter.rank(&self.name)?)),
        };
        match (alpha, rank) {
            (Some(alpha), Some(rank)) => {
                self.alpha = Some(counting(&self.name, alpha)?);
                self.factor = alpha / rank;
            }
            // Whole matrices have one that may be anything, but a damaged file is told of.
            (Some(alpha), None) if alpha.is_nan() => return Err(wrong_alpha(&self.name, alpha.to_string())),
            _ => {}
        }
        Ok(())
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
