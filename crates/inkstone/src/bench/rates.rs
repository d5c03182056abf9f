//! How fast this machine is right now: a few short measurements that turn work into seconds.

use std::time::{Duration, Instant};

use inkstone_tensor::{DType, Products, cpu};

use super::{Bench, Case, Clock, Options, kernels, measure};
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

    /// Measures all kinds in turns on the first one's device, for as long as the budget and one turn at least. What differs between kinds is compared in
    /// the processor's time, however much of it other programs took meanwhile; on the wall's clock the part that was ours
    /// is the same for all of them.
    ///
    /// # Errors
    /// No memory; threads that cannot start.
    pub fn measure(kinds: &[Options], sizes: Sizes, budget: Duration) -> Result<Vec<Self>> {
        let Some(first) = kinds.first() else { return Ok(Vec::new()) };
        let first = Bench::new(Options { clock: Clock::Processor, ..first.clone() })?;
        let benches: Vec<Bench> = kinds.iter().map(|kind| first.beside(kind)).collect();
        let mut cases = Vec::new();
        let mut places: Vec<Places> = Vec::new();
        for (i, bench) in benches.iter().enumerate() {
            // Attention and norms are the same whatever the weights are in.
            let alike = kinds[..i].iter().position(|kind| kind.precision == kinds[i].precision);
            let before = alike.map(|alike| (places[alike].attention, places[alike].elements));
            places.push(Self::prepare(bench, sizes, before, &mut cases)?);
        }
        let mut tally = Tally::default();
        let mut shares = Vec::new();
        let mut share = || shares.extend(processor_share(&first));
        share();
        let mut runs: Vec<&mut Run> = cases.iter_mut().map(|(_, run)| run).collect();
        let seconds = in_turns(&mut runs, budget, &mut tally, &mut share)?;
        let processor_share = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
        let works: Vec<f64> = cases.iter().map(|(work, _)| *work).collect();
        let rates = |(places, kind): (&Places, &Options)| {
            let scale = if kind.clock == Clock::Wall { tally.wall_for_processor() } else { 1.0 };
            let rate = |i: usize| works[i] / (scale * seconds[i]);
            let Places { linear, attention, conv, elements } = *places;
            let [linear, attention, conv, elements] = [linear, attention, conv, elements].map(rate);
            Self { linear, attention, conv, elements, processor_share }
        };
        Ok(places.iter().zip(kinds).map(rates).collect())
    }

    /// Adds what a kind needs to the cases; `alike` are attention and norm where they are among them.
    fn prepare(
        bench: &Bench,
        sizes: Sizes,
        alike: Option<(usize, usize)>,
        cases: &mut Vec<(f64, Run)>,
    ) -> Result<Places> {
        let Sizes { width, head_dim, channels } = sizes;
        let mut add = |work: f64, run: Run| {
            cases.push((work, run));
            cases.len() - 1
        };
        let mut case = |case: Case| -> Result<usize> {
            let prepared = bench.prepare(case)?;
            Ok(add(prepared.products.unwrap_or(0.0), prepared.run))
        };
        let linear = case(Case::Linear { rows: Self::ROWS, n_in: width, n_out: width })?;
        let conv = case(Case::Conv { side_px: 64, c_in: channels, c_out: channels })?;
        let (attention, elements) = match alike {
            Some(alike) => alike,
            None => {
                let n_heads = (width.min(Self::MOST_COLUMNS) / head_dim).max(1);
                let attention = case(Case::Attention { tokens: Self::TOKENS, n_heads, head_dim })?;
                (attention, add((Self::ROWS * width) as f64, kernels::norm(bench, Self::ROWS, width)?))
            }
        };
        Ok(Places { linear, attention, conv, elements })
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

/// Runs something; returns its seconds.
type Run = Box<dyn FnMut() -> Result<f64>>;

/// Where a kind's cases are among all.
#[derive(Clone, Copy)]
struct Places {
    linear: usize,
    attention: usize,
    conv: usize,
    elements: usize,
}

/// What all runs together took.
#[derive(Default)]
struct Tally {
    processor_s: f64,
    wall_s: f64,
}

impl Tally {
    /// Time on the wall for time of the processor, summed over threads; 1 where the system does not tell the latter.
    fn wall_for_processor(&self) -> f64 {
        if self.processor_s > 0.0 { self.wall_s / self.processor_s } else { 1.0 }
    }

    fn run(&mut self, run: &mut Run) -> Result<f64> {
        let (begun, wall) = (cpu::process_seconds(), Instant::now());
        let seconds = run()?;
        if let Some((begun, end)) = begun.zip(cpu::process_seconds()) {
            self.processor_s += end - begun;
            self.wall_s += wall.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }
}

/// The least that each took, one after the other until the time is over, and once at least.
fn in_turns(
    runs: &mut [&mut Run],
    budget: Duration,
    tally: &mut Tally,
    behind: &mut dyn FnMut(),
) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let mut least = vec![f64::INFINITY; runs.len()];
    while least.contains(&f64::INFINITY) || begun.elapsed() < budget {
        for (least, run) in least.iter_mut().zip(&mut *runs) {
            *least = least.min(tally.run(run)?);
        }
        behind();
    }
    Ok(least)
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
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Another program has the processor while the first is measured for the first time, and the second for the second: the least
    /// of each counts.
    #[test]
    fn kinds_are_measured_in_turns() {
        let budget = Duration::from_millis(400);
        let order = Rc::new(RefCell::new(Vec::new()));
        let run = |name: char, times: [f64; 2]| -> Run {
            let (order, mut times) = (Rc::clone(&order), times.into_iter());
            Box::new(move || {
                let seconds = times.next().unwrap();
                order.borrow_mut().push(name);
                if times.len() == 0 {
                    std::thread::sleep(budget); // the second turn is the last one
                }
                Ok(seconds)
            })
        };
        let (mut a, mut b) = (run('a', [9.0, 2.0]), run('b', [3.0, 8.0]));
        let (mut turns, mut tally) = (0, Tally::default());
        let least = in_turns(&mut [&mut a, &mut b], budget, &mut tally, &mut || turns += 1).unwrap();
        assert_eq!((turns, order.borrow().as_slice()), (2, ['a', 'b', 'a', 'b'].as_slice()));
        assert_eq!(least, [2.0, 3.0]);
    }

    /// Half of two processors: 3 s of their time take 3 s on the wall, whichever kind ran then; all of them, 1.5 s.
    #[test]
    fn one_share_turns_processor_time_into_time_on_the_wall() {
        assert_eq!(Tally { processor_s: 3.0, wall_s: 3.0 }.wall_for_processor(), 1.0);
        assert_eq!(Tally { processor_s: 3.0, wall_s: 1.5 }.wall_for_processor(), 0.5);
        assert_eq!(Tally::default().wall_for_processor(), 1.0);
    }

    #[test]
    fn seconds_are_those_of_each_kind_of_work_together() {
        let rates = Rates { linear: 2.0, attention: 4.0, conv: 8.0, elements: 16.0, processor_share: None };
        let work = Products { linear: 2.0, attention: 8.0, conv: 24.0, elements: 64.0 };
        assert_eq!(rates.seconds(&work), 1.0 + 2.0 + 3.0 + 4.0);
    }
}
