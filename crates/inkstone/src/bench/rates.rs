//! How fast this machine is right now: a few short measurements that turn multiply-adds into seconds.

use std::time::{Duration, Instant};

use inkstone_tensor::Products;

use super::{Bench, Case};
use crate::Result;

/// Multiply-adds a second, by what does them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of linear layers.
    pub linear: f64,
    /// Of attention.
    pub attention: f64,
    /// Of convolutions.
    pub conv: f64,
}

impl Rates {
    /// Measures each for a third of the budget. Sizes are those of a small picture on the full model.
    ///
    /// # Errors
    /// No memory.
    pub fn measure(bench: &Bench, budget: Duration) -> Result<Self> {
        let rate = |case: Case| -> Result<f64> {
            let mut prepared = bench.prepare(case)?;
            let begun = Instant::now();
            let mut best = f64::INFINITY;
            while best.is_infinite() || begun.elapsed() < budget / 3 {
                best = best.min((prepared.run)()?);
            }
            Ok(prepared.products.unwrap_or(0.0) / best)
        };
        Ok(Self {
            linear: rate(Case::Linear { rows: 512, n_in: 3072, n_out: 3072 })?,
            attention: rate(Case::Attention { tokens: 1024, n_heads: 8, head_dim: 128 })?,
            conv: rate(Case::Conv { side_px: 64, c_in: 192, c_out: 192 })?,
        })
    }

    /// Seconds that some work takes.
    #[must_use]
    pub fn seconds(&self, work: &Products) -> f64 {
        work.linear / self.linear + work.attention / self.attention + work.conv / self.conv
    }
}
