//! LoRAs and the layers that take them: each layer of a network asks by its name, and at the end nothing may be left.

use std::collections::BTreeSet;

use inkstone_tensor::{DType, Tensor, Weight, ops};

use super::layers::{Delta, Layer, Matrix, Product};
use super::{Applied, family, hadamard, keys};
use crate::error::LoraProblem;
use crate::weights::Loader;
use crate::{Error, Result};

/// What lies between the matrices of a LoKr may be so many times as wide as the weight. LyCORIS makes its first matrix the
/// smaller one, unless it is asked for `unbalanced_factorization`, and then it stays far below.
const MOST_WIDENED: usize = 4;

/// A path around a weight, `factor * kron(left, up down) x`: of a LoRA or LoHa `left` is 1, of a LoKr it mixes groups of inputs.
#[derive(Clone, Debug)]
pub struct SidePath {
    /// `left`, or two matrices whose product it is, the last one first: in the order in which inputs go through them. None of
    /// a LoRA.
    pub left: Vec<Tensor>,
    /// `[rank, n_in / groups of inputs]`; none where `up` is the whole matrix.
    pub down: Option<Weight>,
    /// `[n_out / groups, rank]`
    pub up: Weight,
    /// Scale times alpha over rank, or over its root.
    pub factor: f32,
}

impl SidePath {
    /// How often [`Self::up`] is used: groups of outputs.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.left.last().map_or(1, Tensor::rows)
    }

    /// Inputs of [`Self::down`], or of [`Self::up`] alone: columns of a group.
    #[must_use]
    pub fn width(&self) -> usize {
        self.down.as_ref().unwrap_or(&self.up).n_in()
    }

    /// The same path over other tensors of the same types and shapes.
    pub(in crate::weights) fn with_tensors(
        &self,
        change: &mut dyn FnMut(&Tensor) -> inkstone_tensor::Result<Tensor>,
    ) -> inkstone_tensor::Result<Self> {
        let left = self.left.iter().map(&mut *change).collect::<Result<_, _>>()?;
        let down = self.down.as_ref().map(|down| down.with_tensors(change)).transpose()?;
        Ok(Self { left, down, up: self.up.with_tensors(change)?, factor: self.factor })
    }

    fn of_product(Product { up, down }: &Product, factor: f32) -> Self {
        let (down, up) = (Some(Weight::Dense(down.clone())), Weight::Dense(up.clone()));
        Self { left: Vec::new(), down, up, factor }
    }

    fn of_kronecker(left: &Matrix, right: &Matrix, factor: f32) -> Self {
        let left = match left {
            Matrix::Whole(left) => vec![left.clone()],
            Matrix::Product(Product { up, down }) => vec![down.clone(), up.clone()],
        };
        match right {
            Matrix::Whole(right) => Self { left, down: None, up: Weight::Dense(right.clone()), factor },
            Matrix::Product(right) => Self { left, ..Self::of_product(right, factor) },
        }
    }
}

/// The most columns of what lies between the matrices of a LoKr.
fn widest(left: &Matrix, right: &Matrix) -> usize {
    let ([groups, _], [_, width]) = (left.size(), right.size());
    let mixed = groups.max(left.rank().unwrap_or(0)).saturating_mul(width);
    mixed.max(groups.saturating_mul(right.rank().unwrap_or(width)))
}

/// A LoRA while a network is loaded.
#[derive(Debug)]
pub(crate) struct Pending {
    applied: Applied,
    /// Layers that the network has.
    taken: BTreeSet<String>,
    problem: Option<LoraProblem>,
}

impl From<Applied> for Pending {
    fn from(applied: Applied) -> Self {
        Self { applied, taken: BTreeSet::new(), problem: None }
    }
}

impl Pending {
    /// What is added to the weight of the layer of this name, if there is something; its factor has the scale in it.
    pub(crate) fn layer(&mut self, name: &str, n_in: usize, n_out: usize) -> Option<Layer> {
        let flat = keys::flat(name);
        let layer = self.applied.lora.layers().by_name.get(&flat)?;
        self.taken.insert(flat);
        let (have, want) = (layer.size(), [n_out, n_in]);
        let columns = match &layer.delta {
            Delta::Kronecker(left, right) => widest(left, right),
            Delta::LowRank(_) | Delta::Hadamard(..) | Delta::Whole(_) => 0,
        };
        let problem = if have != want {
            LoraProblem::Misfit { layer: layer.name.clone(), have, want }
        } else if columns > MOST_WIDENED * n_in.max(n_out) {
            LoraProblem::Wide { layer: layer.name.clone(), columns, weight: want }
        } else {
            return Some(Layer { factor: self.applied.scale * layer.factor, ..layer.clone() });
        };
        self.problem.get_or_insert(problem);
        None
    }

    /// The same for a vector of this name. What else a file has for it is left over.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Option<Layer> {
        let layer = self.applied.lora.layers().by_name.get(&keys::flat(name))?;
        let Delta::Whole(_) = layer.delta else { return None };
        self.layer(name, 1, len)
    }

    /// Whether every layer of the file was taken.
    pub(crate) fn finish(self) -> Result<()> {
        let lora = &self.applied.lora;
        let refuse = |problem| Err(Error::Lora { path: lora.path.clone(), problem: Box::new(problem) });
        let layers = &lora.layers().by_name;
        let rest = layers.iter().filter(|(flat, _)| !self.taken.contains(*flat));
        let rest: Vec<String> = rest.map(|(_, layer)| layer.name.clone()).collect();
        let family = family::of(layers.values().map(|layer| layer.name.as_str()));
        let is_of_another = family.is_some_and(|family| family != family::QWEN_IMAGE);
        match self.problem {
            _ if self.taken.is_empty() => {
                // Names alone may be like Qwen-Image's; the layers are not.
                let family = family.filter(|_| is_of_another);
                refuse(LoraProblem::OtherModel { layers: layers.len(), family })
            }
            // Of a larger model of the same kind layers are left over too; another kind may have layers of our names.
            Some(problem) if rest.is_empty() || !is_of_another => refuse(problem),
            _ if !rest.is_empty() => refuse(LoraProblem::left_over(rest, layers.len(), family)),
            _ => Ok(()),
        }
    }
}

impl Loader<'_> {
    /// Adds LoRAs, whose layers are handed out with the weights of theirs.
    #[must_use]
    pub fn with_loras(mut self, loras: &[Applied]) -> Self {
        self.loras = loras.iter().cloned().map(Pending::from).collect();
        self
    }

    /// Adds LoRAs that will be put into the weights: whether they fit is found, and none is handed out.
    #[must_use]
    pub(crate) fn with_loras_to_merge(mut self, loras: &[Applied]) -> Self {
        self.merges_loras = true;
        self.with_loras(loras)
    }

    /// The paths around a weight, in the order of the LoRAs.
    pub fn side_paths(&mut self, name: &str, n_in: usize, n_out: usize) -> Vec<SidePath> {
        let layers = self.loras.iter_mut().filter_map(|lora| lora.layer(name, n_in, n_out));
        let mut layers: Vec<Layer> = layers.collect();
        if self.merges_loras {
            layers.clear();
        }
        layers.into_iter().filter_map(|layer| self.side_path(&layer)).collect()
    }

    fn side_path(&mut self, Layer { delta, factor, .. }: &Layer) -> Option<SidePath> {
        let path = match delta {
            Delta::LowRank(product) => SidePath::of_product(product, *factor),
            Delta::Kronecker(left, right) => SidePath::of_kronecker(left, right, *factor),
            Delta::Whole(difference) => {
                let up = Weight::Dense(difference.clone());
                SidePath { left: Vec::new(), down: None, up, factor: *factor }
            }
            // Its matrices are made now, where they are only counted too.
            Delta::Hadamard(first, second) => {
                let (device, dtype) = (self.device().clone(), self.activations());
                let made = hadamard::path([first, second], *factor, &device, dtype);
                return made.map_err(|error| self.fail(error.into())).ok();
            }
        };
        Some(self.counted_path(path))
    }

    /// A vector of so many numbers in f32, with the differences that the LoRAs have for it; none if it is not there.
    pub(in crate::weights) fn with_differences(
        &mut self,
        name: &str,
        len: usize,
        mut vector: Tensor,
    ) -> inkstone_tensor::Result<Tensor> {
        let layers: Vec<Layer> = self.loras.iter_mut().filter_map(|lora| lora.vector(name, len)).collect();
        if self.merges_loras || vector.shape().count() != len {
            return Ok(vector);
        }
        for Layer { delta, factor, .. } in layers {
            let Delta::Whole(difference) = delta else { continue };
            let difference = self.held(&difference)?.reshape(*vector.shape())?;
            vector = ops::scaled_add(vector, &ops::convert(&difference, DType::F32)?, factor)?;
        }
        Ok(vector)
    }
}
