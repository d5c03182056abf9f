//! Measures kernels, stages and whole pictures against what the processor could do at that moment.
//!
//! Weights are random and full-sized, so that no model is needed. Every round of a measurement is accompanied by loops
//! that multiply registers alone: their rate says how fast anything could have been just then, and whether the machine
//! was busy with something else.

mod case;
mod kernels;
mod measure;
mod rates;
mod stages;
#[cfg(test)]
mod tests;

use inkstone_tensor::{DType, Device, cpu};

use crate::pipeline::Precision;
use crate::weights::{Loader, Quantization, RandomModel};
use crate::{Result, memory};

pub use case::{Case, Group, ParseCaseError};
pub use measure::{Clock, Measurement, Prepared, Round};
pub use rates::{Rates, Sizes};

/// What to measure with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of threads; `None` for one a core.
    pub threads: Option<usize>,
    /// Instruction set, one of [`tables`]; `None` for the best one.
    pub isa: Option<String>,
    /// The type of activations.
    pub precision: Precision,
    /// The format that linear layers are brought into.
    pub quantization: Option<Quantization>,
    /// Which time counts.
    pub clock: Clock,
    /// How much of the model stages and pictures have.
    pub model: RandomModel,
}

/// The instruction sets that this processor has kernels for, the best one last.
#[must_use]
pub fn tables() -> Vec<&'static str> {
    cpu::Cpu::available()
}

/// A device to measure on.
#[derive(Debug)]
pub struct Bench {
    device: Device,
    options: Options,
    activations: DType,
}

impl Bench {
    /// Starts the threads.
    ///
    /// # Errors
    /// An instruction set that is unknown or missing; threads that cannot start.
    pub fn new(options: Options) -> Result<Self> {
        let device = Device::cpu(&cpu::Options { threads: options.threads, isa: options.isa.clone() })?;
        let activations = options.precision.activations(&device);
        Ok(Self { device, options, activations })
    }

    /// The same device and clock with the arithmetic of other options.
    fn beside(&self, kind: &Options) -> Self {
        let (device, clock) = (self.device.clone(), self.options.clock);
        let activations = kind.precision.activations(&device);
        Self { device, options: Options { clock, ..kind.clone() }, activations }
    }

    /// The device, such as `cpu (avx512, 2 threads)`.
    #[must_use]
    pub fn device(&self) -> String {
        self.device.name()
    }

    /// The type of operands: `bf16`, `f32` or `int8`.
    #[must_use]
    pub fn dtype(&self) -> String {
        match self.options.quantization {
            Some(quantization) => quantization.name().to_owned(),
            None => self.activations.to_string(),
        }
    }

    /// Its threads: one a core where the options name no number, as the device does.
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.options.threads.unwrap_or_else(cores)
    }

    /// The type of operands for which the device's own rate is measured.
    fn operands(&self) -> DType {
        match self.options.quantization {
            Some(Quantization::Int8) => DType::I8,
            _ => self.activations,
        }
    }

    /// A loader of random weights, in the format that is measured.
    fn loader(&self, component: &str) -> Loader<'static> {
        let loader = Loader::random(component, &self.device, self.activations);
        match self.options.quantization {
            Some(quantization) => loader.with_rule(quantization),
            None => loader,
        }
    }

    /// What the processor multiplies and adds on registers alone right now, on all threads, in G/s (two operations
    /// each): of f32, bf16 and int8; `None` where the table has no loop that multiplies so.
    #[must_use]
    pub fn peaks(&self) -> [Option<f64>; 3] {
        [DType::F32, DType::Bf16, DType::I8]
            .map(|operands| measure::peak_gflops(&self.device, operands, self.options.clock))
    }

    /// Makes what a case needs and runs it once, so that the next run is like all others.
    ///
    /// # Errors
    /// No memory for what it takes; found beforehand where the system tells what is free.
    pub fn prepare(&self, case: Case) -> Result<Prepared> {
        let wanted_bytes = stages::needed_bytes(case, &self.options.model);
        if memory::available_bytes().is_some_and(|free| free < wanted_bytes) {
            let wanted_bytes = usize::try_from(wanted_bytes).unwrap_or(usize::MAX);
            return Err(inkstone_tensor::Error::OutOfMemory { device: self.device(), wanted_bytes }.into());
        }
        let run = match case {
            Case::Linear { .. } | Case::Attention { .. } | Case::Conv { .. } => kernels::prepare(case, self)?,
            _ => stages::prepare(case, self)?,
        };
        let products = case.products();
        let (device, clock) = (self.device.clone(), self.options.clock);
        Ok(Prepared { case, device, dtype: self.dtype(), operands: self.operands(), clock, products, run })
    }
}
