//! The Qwen-Image VAE (`AutoencoderKLQwenImage`): pictures to latents and back.
//!
//! The network is made for video, but a single picture only ever meets the last temporal slice of its kernels and
//! none of its temporal resampling, so it is run as a 2-D network, which is exact and a third of the work.

mod blocks;
mod config;
mod decoder;
mod encoder;

use inkstone_tensor::{DType, Device, Pages, Shape, Tensor, ops};

use crate::Result;
use crate::nn::strips::Strips;
use crate::progress::Context;
use crate::weights::Loader;

pub use config::Config;

use decoder::Decoder;
use encoder::Encoder;

/// Encoder and decoder.
#[derive(Clone, Debug)]
pub struct Vae {
    encoder: Encoder,
    decoder: Decoder,
    /// Of the decoder.
    pages: Pages,
    config: Config,
    activations: DType,
    device: Device,
}

/// What the encoder says about a picture: a normal distribution for each latent value.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// Most likely latents, raw, f32 `[n, h / 8, w / 8, z_dim]`.
    pub mean: Tensor,
    /// Logarithm of the variance, the same shape. The reference limits it to -30..20 where it draws samples.
    pub logvar: Tensor,
}

impl Vae {
    /// Takes the network's tensors.
    ///
    /// # Errors
    /// No memory. Missing and misshapen tensors are reported by the loader's end.
    pub fn load(config: &Config, loader: &mut Loader) -> Result<Self> {
        let encoder = Encoder::load(config, loader);
        loader.pages(); // of the encoder
        Ok(Self {
            encoder,
            decoder: Decoder::load(config, loader),
            pages: loader.pages(),
            config: config.clone(),
            activations: loader.activations(),
            device: loader.device().clone(),
        })
    }

    /// The pages of what turns latents into a picture.
    pub(crate) fn decoder_pages(&self) -> &Pages {
        &self.pages
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device that holds the weights.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Latents to pictures. Values lie around -1..1 and may leave it; the reference cuts them off there.
    ///
    /// # Shapes
    /// `latents [n, h, w, z_dim]` raw (see [`Config::denormalize`]), result f32 `[n, 8 h, 8 w, channels]`. `strips`
    /// are of lines of latents.
    ///
    /// # Memory
    /// Strips change no byte of the result, and the lower they are the less is held.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory, an interruption.
    pub fn decode(&self, latents: &Tensor, strips: Strips, ctx: &Context<'_>) -> Result<Tensor> {
        self.decoder.forward(&ops::convert(latents, self.activations)?, strips, ctx)
    }

    /// Pictures to latents.
    ///
    /// # Shapes
    /// `pictures [n, h, w, channels]` in -1..1. `strips` are of lines of latents.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory, an interruption.
    pub fn encode(&self, pictures: &Tensor, strips: Strips, ctx: &Context<'_>) -> Result<Posterior> {
        let strips = strips.times(self.config.scale_factor());
        let moments = self.encoder.forward(ops::convert(pictures, self.activations)?, strips, ctx)?;
        let z = self.config.z_dim;
        let half = |first: usize| -> Result<Tensor> {
            let mut dims = [1; 4];
            dims.copy_from_slice(moments.shape().dims());
            let shape = Shape::nhwc(dims[0], dims[1], dims[2], z);
            Ok(moments.cols_range(first..first + z)?.reshape(shape)?)
        };
        Ok(Posterior { mean: half(0)?, logvar: half(z)? })
    }
}
