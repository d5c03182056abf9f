//! The whole way from a request to a picture, on one screen: text, noise, steps, pixels.

use inkstone_tensor::Device;

use crate::progress::{CancelToken, Observer, Stage};
use crate::weights::ModelSource;
use crate::{Pixels, Request, Result};

/// How to run a model.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Number of threads; `None` for one a core.
    pub threads: Option<usize>,
    /// The arithmetic.
    pub precision: Precision,
    /// How many bytes the run may take; `None` for what the machine has free.
    pub max_memory_bytes: Option<u64>,
}

/// The type in which activations are multiplied. Sums are kept in f32 in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where the processor multiplies it, else f32.
    #[default]
    Auto,
    /// f32: the reference's results to 60 dB and more.
    F32,
    /// bf16: half the memory traffic and, on processors that have it, twice the speed or more.
    Bf16,
}

/// What is known of a model without touching its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// A short name: the folder's, or `inkstone-tiny`.
    pub name: String,
    /// What a request takes where it says nothing.
    pub defaults: Defaults,
}

/// A model's own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Native width.
    pub width_px: usize,
    /// Native height.
    pub height_px: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale.
    pub true_cfg_scale: f32,
    /// Without a negative prompt there is no guidance; the models are made for `" "`.
    pub negative_prompt: String,
}

/// A drawn picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The pixels.
    pub pixels: Pixels,
    /// What was asked for.
    pub request: Request,
    /// Seconds of each stage, in order. Pictures of one batch share them.
    pub stages: Vec<(Stage, f64)>,
}

/// A model that is ready to draw.
#[derive(Debug)]
pub struct Pipeline {
    device: Device,
    info: ModelInfo,
}

impl Pipeline {
    /// Reads a model's configuration and tokenizer. Weights are opened by the first drawing.
    ///
    /// # Errors
    /// A model that is not there, not whole or not supported; a device that cannot be used.
    pub fn open(_source: &ModelSource, _options: &OpenOptions) -> Result<Self> {
        todo!()
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ModelInfo {
        &self.info
    }

    /// The device, in words.
    #[must_use]
    pub fn device_name(&self) -> String {
        self.device.name()
    }

    /// Draws pictures. Requests that differ in prompt and seed only are drawn together when memory allows; each
    /// picture's bytes are those of its solo run.
    ///
    /// # Errors
    /// A request out of range, weights that do not load, no memory, numbers that are not finite, an interruption.
    pub fn draw(
        &mut self,
        _requests: &[Request],
        _cancel: &CancelToken,
        _observer: &mut dyn Observer,
    ) -> Result<Vec<Picture>> {
        todo!()
    }
}
