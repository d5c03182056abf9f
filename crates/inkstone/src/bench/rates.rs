//! How fast this machine is right now: a few short measurements that turn work into seconds.

use std::time::{Duration, Instant};

use inkstone_tensor::{DType, Products, cpu};

use super::{Bench, Case, kernels, measure};
use crate::Result;

/// Sizes of a model's operations. Narrow layers, small heads and few channels are slower than large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Columns of the transformer's streams.
    pub width: usize,
    /// Elements of a head of its attention.
    pub head_dim: usize,
    /// Channels of the VAE, where most of its work is.
    pub channels: usize,
}

/// What is done in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Multiply-adds of linear layers.
    pub linear: f64,
    /// Those of attention.
    pub attention: f64,
    /// Those of convolutions.
    pub conv: f64,
    /// Elements of operations that multiply no matrices.
    pub elements: f64,
    /// The part of its threads' time that the processor gave to this process while it measured: below 1, other programs ran.
    /// `None` if the system does not tell.
    pub processor_share: Option<f64>,
}

impl Rates {
    /// Rows that are measured with: those of a small picture.
    const ROWS: usize = 512;
    /// Tokens of the attention, and the most columns of all its heads.
    const TOKENS: usize = 1024;
    const MOST_COLUMNS: usize = 1024;

    /// Measures each for a quarter of the budget.
    ///
    /// # Errors
    /// No memory.
    pub fn measure(bench: &Bench, sizes: Sizes, budget: Duration) -> Result<Self> {
        let Sizes { width, head_dim, channels } = sizes;
        let best = |run: &mut dyn FnMut() -> Result<f64>| -> Result<f64> {
            let begun = Instant::now();
            let mut best = f64::INFINITY;
            while best.is_infinite() || begun.elapsed() < budget / 4 {
                best = best.min(run()?);
            }
            Ok(best)
        };
        let rate = |case: Case| -> Result<f64> {
            let mut prepared = bench.prepare(case)?;
            Ok(prepared.products.unwrap_or(0.0) / best(&mut prepared.run)?)
        };
        let before = processor_share(bench);
        let rates = Self {
            linear: rate(Case::Linear { rows: Self::ROWS, n_in: width, n_out: width })?,
            attention: rate(Case::Attention {
                tokens: Self::TOKENS,
                n_heads: (width.min(Self::MOST_COLUMNS) / head_dim).max(1),
                head_dim,
            })?,
            conv: rate(Case::Conv { side_px: 64, c_in: channels, c_out: channels })?,
            elements: (Self::ROWS * width) as f64 / best(&mut kernels::norm(bench, Self::ROWS, width)?)?,
            processor_share: None,
        };
        let processor_share = before.zip(processor_share(bench)).map(|(a, b)| f64::midpoint(a, b));
        Ok(Self { processor_share, ..rates })
    }

    /// Seconds that some work takes.
    #[must_use]
    pub fn seconds(&self, work: &Products) -> f64 {
        work.linear / self.linear
            + work.attention / self.attention
            + work.conv / self.conv
            + work.elements / self.elements
    }
}

/// The part of its threads' time that a loop on registers, which waits for nothing, runs on a processor.
fn processor_share(bench: &Bench) -> Option<f64> {
    let (begun, wall) = (cpu::process_seconds()?, Instant::now());
    bench.device.multiply_registers(DType::F32, measure::PEAK_LOOPS)?;
    let (wall_s, ran_s) = (wall.elapsed().as_secs_f64(), cpu::process_seconds()? - begun);
    Some((ran_s / (wall_s * bench.threads() as f64)).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_those_of_each_kind_of_work_together() {
        let rates = Rates { linear: 2.0, attention: 4.0, conv: 8.0, elements: 16.0, processor_share: None };
        let work = Products { linear: 2.0, attention: 8.0, conv: 24.0, elements: 64.0 };
        assert_eq!(rates.seconds(&work), 1.0 + 2.0 + 3.0 + 4.0);
    }
}
