//! LoRAs and the layers that take them: each layer of a network asks by its name, and at the end nothing may be left.

use std::collections::BTreeSet;

use inkstone_tensor::Weight;

use super::{Applied, family, keys};
use crate::error::LoraProblem;
use crate::weights::Loader;
use crate::{Error, Result};

/// A low-rank path around a weight: `factor * (x down^T) up^T`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[rank, n_in]`
    pub down: Weight,
    /// `[n_out, rank]`
    pub up: Weight,
    /// Scale times alpha over rank, or over its root.
    pub factor: f32,
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
    pub(crate) fn layer(&mut self, name: &str, n_in: usize, n_out: usize) -> Option<LowRank> {
        let flat = keys::flat(name);
        let factors = self.applied.lora.layers.get(&flat)?;
        self.taken.insert(flat);
        if (factors.down.cols(), factors.up.rows()) != (n_in, n_out) {
            self.problem.get_or_insert(LoraProblem::Misfit {
                layer: factors.layer.clone(),
                have: [factors.up.rows(), factors.down.cols()],
                want: [n_out, n_in],
            });
            return None;
        }
        let factor = self.applied.scale * factors.factor();
        Some(LowRank {
            down: Weight::Dense(factors.down.clone()),
            up: Weight::Dense(factors.up.clone()),
            factor,
        })
    }

    /// Whether every layer of the file was taken.
    pub(crate) fn finish(self) -> Result<()> {
        let lora = &self.applied.lora;
        let refuse = |problem| Err(Error::Lora { path: lora.path.clone(), problem: Box::new(problem) });
        let rest = lora.layers.iter().filter(|(flat, _)| !self.taken.contains(*flat));
        let rest: Vec<String> = rest.map(|(_, factors)| factors.layer.clone()).collect();
        let family = family::of(lora.layers.values().map(|factors| factors.layer.as_str()));
        match self.problem {
            _ if self.taken.is_empty() => {
                refuse(LoraProblem::OtherModel { layers: lora.layers.len(), family })
            }
            // Of a larger model of the same kind layers are left over too.
            Some(problem) => refuse(problem),
            None if !rest.is_empty() => refuse(LoraProblem::left_over(rest, lora.layers.len(), family)),
            None => Ok(()),
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

    /// The low-rank paths around a weight, in the order of the LoRAs.
    pub fn low_rank(&mut self, name: &str, n_in: usize, n_out: usize) -> Vec<LowRank> {
        let paths = self.loras.iter_mut().filter_map(|lora| lora.layer(name, n_in, n_out));
        let paths: Vec<LowRank> = paths.collect();
        paths.into_iter().map(|path| self.counted_path(path)).collect()
    }
}
