//! LoRAs and the layers that take them: each layer of a network asks by its name, and at the end nothing may be left.

use std::collections::BTreeSet;

use inkstone_tensor::{Tensor, Weight};

use super::layers::{Layer, Matrix};
use super::{Applied, family, keys};
use crate::error::LoraProblem;
use crate::weights::Loader;
use crate::{Error, Result};

/// What lies between the matrices of a LoKr may be so many times as wide as the weight. LyCORIS makes its first matrix the
/// smaller one, unless it is asked for `unbalanced_factorization`, and then it stays far below.
const MOST_WIDENED: usize = 4;

/// A path around a weight, `factor * kron(left, up down) x`: of a LoRA `left` is 1, of a LoKr it mixes groups of inputs.
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

    /// The most columns of what lies between its matrices.
    fn widest(&self) -> usize {
        let mixed = self.left.iter().map(|left| left.rows().saturating_mul(self.width())).max();
        mixed.unwrap_or(0).max(self.groups().saturating_mul(self.up.n_in()))
    }
}

impl From<&Layer> for SidePath {
    fn from(layer: &Layer) -> Self {
        let left = match &layer.left {
            None => Vec::new(),
            Some(Matrix::Whole(left)) => vec![left.clone()],
            Some(Matrix::Product(a, b)) => vec![b.clone(), a.clone()],
        };
        let (down, up) = match &layer.right {
            Matrix::Whole(right) => (None, right),
            Matrix::Product(up, down) => (Some(Weight::Dense(down.clone())), up),
        };
        Self { left, down, up: Weight::Dense(up.clone()), factor: layer.factor }
    }
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
    /// The path around the layer of this name, if there is one.
    pub(crate) fn layer(&mut self, name: &str, n_in: usize, n_out: usize) -> Option<SidePath> {
        let flat = keys::flat(name);
        let layer = self.applied.lora.layers.by_name.get(&flat)?;
        self.taken.insert(flat);
        let path = SidePath::from(layer);
        let (have, want) = (layer.size(), [n_out, n_in]);
        let problem = if have != want {
            LoraProblem::Misfit { layer: layer.name.clone(), have, want }
        } else if layer.left.is_some() && path.widest() > MOST_WIDENED * n_in.max(n_out) {
            LoraProblem::Wide { layer: layer.name.clone(), columns: path.widest(), weight: want }
        } else {
            return Some(SidePath { factor: self.applied.scale * layer.factor, ..path });
        };
        self.problem.get_or_insert(problem);
        None
    }

    /// Whether every layer of the file was taken.
    pub(crate) fn finish(self) -> Result<()> {
        let lora = &self.applied.lora;
        let refuse = |problem| Err(Error::Lora { path: lora.path.clone(), problem: Box::new(problem) });
        let layers = &lora.layers.by_name;
        let rest = layers.iter().filter(|(flat, _)| !self.taken.contains(*flat));
        let rest: Vec<String> = rest.map(|(_, layer)| layer.name.clone()).collect();
        let family = family::of(layers.values().map(|layer| layer.name.as_str()));
        let is_of_another = family.is_some_and(|family| family != family::QWEN_IMAGE);
        match self.problem {
            _ if self.taken.is_empty() => refuse(LoraProblem::OtherModel { layers: layers.len(), family }),
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

    /// The paths around a weight, in the order of the LoRAs.
    pub fn side_paths(&mut self, name: &str, n_in: usize, n_out: usize) -> Vec<SidePath> {
        let paths = self.loras.iter_mut().filter_map(|lora| lora.layer(name, n_in, n_out));
        let paths: Vec<SidePath> = paths.collect();
        paths.into_iter().map(|path| self.counted_path(path)).collect()
    }
}
