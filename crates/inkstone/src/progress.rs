//! What a caller sees of a run while it goes on, and how the caller stops it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inkstone_tensor::Tensor;

use crate::{Error, Picture, Request, Result};

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Opening and checking the weights.
    Load,
    /// Tokens to text embedding.
    Text,
    /// Picture to latents (image to image).
    Encode,
    /// Noise to latents, step by step.
    Denoise,
    /// Latents to pixels.
    Decode,
    /// Weights to a smaller format, to be saved.
    Convert,
}

impl Stage {
    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Text => "text",
            Self::Encode => "encode",
            Self::Denoise => "denoise",
            Self::Decode => "decode",
            Self::Convert => "convert",
        }
    }
}

/// Looks on while a picture is drawn. Every method has an empty default.
pub trait Observer {
    /// A batch begins: these pictures are drawn together.
    fn batch(&mut self, _requests: &[Request]) {}
    /// A stage begins; it has `total` parts (steps, blocks, tiles).
    fn begin(&mut self, _stage: Stage, _total: usize) {}
    /// Part `done` of the stage is finished, counted from 1.
    fn advance(&mut self, _stage: Stage, _done: usize) {}
    /// The stage is finished.
    fn end(&mut self, _stage: Stage) {}
    /// A picture is finished: with several it comes before the others are. An interruption keeps those that were shown.
    fn picture(&mut self, _picture: &Picture) {}
    /// Something the user should know, such as a truncated prompt.
    fn warn(&mut self, _warning: &str) {}
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Stops a run: looked at in every block of every step. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the run to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`Error::Interrupted`] once the run was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Receives named intermediate tensors of a model's forward, to compare them with a reference.
pub trait Tap {
    /// A tensor under the name that the golden fixtures use.
    fn see(&self, name: fmt::Arguments<'_>, tensor: &Tensor);
}

/// What every forward carries: the switch that stops it and, in tests, a tap.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// Stops the run.
    pub cancel: Option<&'a CancelToken>,
    /// Sees intermediate tensors.
    pub tap: Option<&'a dyn Tap>,
}

impl Context<'_> {
    /// Shows a tensor to the tap, if there is one.
    pub fn tap(&self, name: fmt::Arguments<'_>, tensor: &Tensor) {
        if let Some(tap) = self.tap {
            tap.see(name, tensor);
        }
    }

    /// # Errors
    /// [`Error::Interrupted`] once the run was asked to stop.
    pub fn check_cancelled(&self) -> Result<()> {
        self.cancel.map_or(Ok(()), CancelToken::check)
    }
}
