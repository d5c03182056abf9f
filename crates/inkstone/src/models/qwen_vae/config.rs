//! Sizes of the VAE, and the scale of its latents.

use serde_json::json;

use crate::Result;
use crate::models::fields::{self, Fields};

/// What `vae/config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Channels of the widest picture layer.
    pub base_dim: usize,
    /// Channels of the latents.
    pub z_dim: usize,
    /// Channels of each level, as multiples of `base_dim`. Each level but the last halves the picture.
    pub dim_mult: Vec<usize>,
    /// Residual blocks of an encoder level; the decoder's have one more.
    pub num_res_blocks: usize,
    /// Channels of a picture: 3, or 4 with transparency.
    pub input_channels: usize,
    /// Mean of each latent channel.
    pub latents_mean: Vec<f32>,
    /// Standard deviation of each latent channel.
    pub latents_std: Vec<f32>,
}

impl Config {
    /// Reads `vae/config.json`. Fields that are absent take diffusers' defaults.
    ///
    /// # Errors
    /// [`crate::Error::ModelConfig`].
    pub fn from_json(json: &str) -> Result<Self> {
        const COMPONENT: &str = "vae";
        let value = fields::parse(COMPONENT, json)?;
        let f = Fields::of(COMPONENT, &value)?;
        let z_dim = f.integer("z_dim", Some(16), 1..=256)?;
        let dim_mult = f.integers("dim_mult", &[1, 2, 4, 4], 2..=6, 1..=16)?;
        f.only("attn_scales", &json!([]))?;
        let temporal = f.switches("temperal_downsample", &[false, true, true])?;
        if temporal.len() + 1 != dim_mult.len() {
            let allowed = format!("one switch for each of the {} halvings", dim_mult.len() - 1);
            return Err(f.refuse("temperal_downsample", temporal.len(), &allowed));
        }
        Ok(Self {
            base_dim: f.integer("base_dim", Some(96), 2..=1024)?,
            z_dim,
            dim_mult,
            num_res_blocks: f.integer("num_res_blocks", Some(2), 1..=8)?,
            input_channels: f.integer("input_channels", Some(3), 3..=4)?,
            latents_mean: f.numbers("latents_mean", z_dim, -1e3..=1e3)?,
            latents_std: f.numbers("latents_std", z_dim, 1e-6..=1e3)?,
        })
    }

    /// Pixels along one side of a latent: 8 for Qwen-Image.
    #[must_use]
    pub fn scale_factor(&self) -> usize {
        1 << (self.dim_mult.len() - 1)
    }

    /// From raw latents of one picture to what the transformer sees: `(z - mean) / std`.
    ///
    /// # Shapes
    /// `pixels [h, w, z_dim]` as the encoder gives them, result planes `[z_dim, h, w]` as latents are packed from.
    #[must_use]
    pub fn normalize(&self, pixels: &[f32]) -> Vec<f32> {
        let z = self.z_dim;
        let channel = |c: usize| {
            let (mean, factor) = (self.latents_mean[c], 1.0 / self.latents_std[c]);
            pixels.iter().skip(c).step_by(z).map(move |value| (value - mean) * factor)
        };
        (0..z).flat_map(channel).collect()
    }

    /// From what the transformer sees of one picture to raw latents: `z * std + mean`.
    ///
    /// # Shapes
    /// `planes [z_dim, h, w]` as unpacked, result `[h, w, z_dim]` as the decoder takes them.
    #[must_use]
    pub fn denormalize(&self, planes: &[f32]) -> Vec<f32> {
        let pixels = planes.len() / self.z_dim;
        let value = |p: usize, c: usize| planes[c * pixels + p] * self.latents_std[c] + self.latents_mean[c];
        (0..pixels).flat_map(|p| (0..self.z_dim).map(move |c| value(p, c))).collect()
    }
}

#[cfg(test)]
mod tests;
