//! Rounds of a case, each beside the processor's own rate, and what they come to.

use std::fmt;
use std::time::Instant;

use inkstone_tensor::{DType, Device, cpu};
use serde::{Deserialize, Serialize};

use super::Case;
use crate::Result;

/// Loops of a register-only measurement: about 20 ms.
pub(super) const PEAK_LOOPS: u32 = 8_000_000;
/// A round counts if the processor ran at this share of its best rate at least.
const QUIET: f64 = 0.9;

/// Which time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Clock {
    /// That on the wall, for a machine with nothing else to do.
    #[default]
    #[serde(rename = "wall")]
    Wall,
    /// That of the processor, summed over threads: with one thread it hardly depends on what else runs.
    #[serde(rename = "cpu")]
    Processor,
}

impl Clock {
    /// Seconds that some work takes.
    pub(super) fn time<T>(self, work: impl FnOnce() -> T) -> (T, f64) {
        let (begun, wall) = (cpu::process_seconds(), Instant::now());
        let result = work();
        let wall_s = wall.elapsed().as_secs_f64();
        let processor_s = begun.and_then(|begun| Some(cpu::process_seconds()? - begun));
        (result, if self == Self::Processor { processor_s.unwrap_or(wall_s) } else { wall_s })
    }
}

/// Operations a second on registers alone, in G/s.
pub(super) fn peak_gflops(device: &Device, operands: DType, clock: Clock) -> Option<f64> {
    let (products, seconds) = clock.time(|| device.multiply_registers(operands, PEAK_LOOPS));
    Some(2e-9 * products? / seconds)
}

/// A case that is ready to run.
pub struct Prepared {
    pub(super) case: Case,
    pub(super) device: Device,
    /// What its type is called.
    pub(super) dtype: String,
    pub(super) operands: DType,
    pub(super) clock: Clock,
    pub(super) products: Option<f64>,
    /// Runs it; returns its seconds.
    pub(super) run: Box<dyn FnMut() -> Result<f64>>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared({})", self.case)
    }
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// What it took.
    pub seconds: f64,
    /// What the processor did on registers alone right before and after (the mean), with operands of the case's type, in
    /// G/s; `None` where its table multiplies them in no way of its own.
    #[serde(default)]
    pub peak_gflops: Option<f64>,
    /// The same, of f32 operands where there is no peak: tells how busy the machine was. `None` where neither is.
    #[serde(default)]
    pub pace_gflops: Option<f64>,
}

/// All rounds of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The case's name.
    pub case: String,
    /// Type of the operands.
    pub dtype: String,
    /// Instruction set and threads.
    pub device: String,
    /// Which time counted; on the wall, where a file does not say.
    #[serde(default)]
    pub clock: Clock,
    /// Median of the quiet rounds.
    pub seconds: f64,
    /// Fastest quiet round.
    pub seconds_min: f64,
    /// Slowest quiet round.
    pub seconds_max: f64,
    /// Rounds in which the machine was busy with something else: they are not counted.
    pub busy_rounds: usize,
    /// Operations a second (two each multiply-add) at the median, in G/s.
    pub gflops: Option<f64>,
    /// Median share of the register-only rate, for operands of this type; `None` where there is none.
    pub peak_percent: Option<f64>,
    /// All rounds in order.
    pub rounds: Vec<Round>,
}

impl Prepared {
    /// Runs once.
    ///
    /// # Errors
    /// What the case's own code gives: no memory.
    pub fn round(&mut self) -> Result<Round> {
        let has_peak = self.device.multiply_registers(self.operands, 0).is_some();
        let operands = if has_peak { self.operands } else { DType::F32 };
        let pace = || peak_gflops(&self.device, operands, self.clock);
        let before = pace();
        let seconds = (self.run)()?;
        let pace_gflops = before.zip(pace()).map(|(before, after)| f64::midpoint(before, after));
        Ok(Round { seconds, peak_gflops: pace_gflops.filter(|_| has_peak), pace_gflops })
    }

    /// Runs so many times.
    ///
    /// # Errors
    /// As [`Prepared::round`].
    pub fn measure(&mut self, rounds: usize) -> Result<Measurement> {
        let rounds: Vec<Round> = (0..rounds.max(1)).map(|_| self.round()).collect::<Result<_>>()?;
        Ok(self.summary(rounds))
    }

    pub(super) fn summary(&self, rounds: Vec<Round>) -> Measurement {
        let best = rounds.iter().filter_map(|round| round.pace_gflops).fold(0.0, f64::max);
        let is_quiet = |round: &Round| round.pace_gflops.is_none_or(|pace| pace >= QUIET * best);
        let quiet: Vec<Round> = rounds.iter().copied().filter(is_quiet).collect();
        let seconds = sorted(quiet.iter().map(|round| round.seconds));
        let rate = |round: &Round| self.products.map(|n| 2e-9 * n / round.seconds);
        let share = |round: &Round| Some(100.0 * rate(round)? / round.peak_gflops?);
        let shares = sorted(quiet.iter().filter_map(share));
        let median_s = median(&seconds).unwrap_or(f64::NAN);
        Measurement {
            case: self.case.to_string(),
            dtype: self.dtype.clone(),
            device: self.device.name(),
            clock: self.clock,
            seconds: median_s,
            seconds_min: seconds.first().copied().unwrap_or(f64::NAN),
            seconds_max: seconds.last().copied().unwrap_or(f64::NAN),
            busy_rounds: rounds.len() - quiet.len(),
            gflops: self.products.map(|n| 2e-9 * n / median_s),
            peak_percent: median(&shares),
            rounds,
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], upper) } else { upper })
}
