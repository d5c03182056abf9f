//! Norms with learned weights. The modulated layer norm is in [`crate::nn::modulate`].

use inkstone_tensor::ops::{self, Activation, PixelNorm};
use inkstone_tensor::{DType, Tensor};

use crate::Result;
use crate::weights::Loader;

/// Root-mean-square norm of a row.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
    activations: DType,
}

impl RmsNorm {
    /// `NAME.weight [len]`.
    pub fn load(loader: &mut Loader, name: &str, len: usize, eps: f32) -> Self {
        let weight = loader.vector(&format!("{name}.weight"), len);
        Self { weight, eps, activations: loader.activations() }
    }

    /// The norm, in the activations' type.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::rms_norm(x, &self.weight, self.eps, self.activations)?)
    }

    /// The norm in f32: a model's result.
    ///
    /// # Errors
    /// As [`RmsNorm::forward`].
    pub fn forward_f32(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::rms_norm(x, &self.weight, self.eps, DType::F32)?)
    }

    /// Weight and epsilon, for operations that apply the norm to each head.
    #[must_use]
    pub fn parts(&self) -> (&Tensor, f32) {
        (&self.weight, self.eps)
    }
}

/// The VAE's norm over the channels of a pixel.
#[derive(Clone, Debug)]
pub struct ChannelNorm {
    gamma: Tensor,
    activations: DType,
}

impl ChannelNorm {
    /// `NAME.gamma [channels, 1, ..]` with `ones` trailing ones.
    pub fn load(loader: &mut Loader, name: &str, channels: usize, ones: usize) -> Self {
        let vector = loader.pixel_norm(name, channels, ones);
        // A tensor that was misshapen stays as it is; the loader reports it when all are taken.
        let gamma = ops::convert(&vector, DType::F32).unwrap_or(vector);
        Self { gamma, activations: loader.activations() }
    }

    /// The norm, then a function.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        Ok(ops::channel_norm(x, &self.gamma, activation, self.activations)?)
    }

    /// The same in front of a convolution.
    #[must_use]
    pub fn then(&self, activation: Activation) -> PixelNorm<'_> {
        PixelNorm { gamma: &self.gamma, activation }
    }
}
