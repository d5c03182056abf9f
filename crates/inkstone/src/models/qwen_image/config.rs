//! Sizes of the transformer.

use serde_json::json;

use crate::Result;
use crate::models::fields::{self, Fields};
use crate::nn::attention::Heads;

/// What `transformer/config.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Side of the square of latent pixels that makes a token.
    pub patch_size: usize,
    /// Values of a token.
    pub in_channels: usize,
    /// Latent channels of the result.
    pub out_channels: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Attention heads; their width is the model's.
    pub heads: Heads,
    /// Width of a prompt embedding.
    pub joint_attention_dim: usize,
    /// Elements of a head that are rotated by picture, row and column.
    pub axes_dims_rope: [usize; 3],
    /// Whether tokens of reference pictures are modulated as at timestep 0 (Edit-2511).
    pub zero_cond_t: bool,
}

impl Config {
    /// Reads `transformer/config.json`. Fields that are absent take diffusers' defaults.
    ///
    /// # Errors
    /// [`crate::Error::ModelConfig`].
    pub fn from_json(json: &str) -> Result<Self> {
        const COMPONENT: &str = "transformer";
        let value = fields::parse(COMPONENT, json)?;
        let f = Fields::of(COMPONENT, &value)?;
        f.only("_class_name", &json!("QwenImageTransformer2DModel"))?;
        for variant in ["guidance_embeds", "use_additional_t_cond", "use_layer3d_rope"] {
            f.only(variant, &json!(false))?;
        }
        let in_channels = f.integer("in_channels", Some(64), 1..=4096)?;
        let out_channels = if f.is_null("out_channels") { in_channels } else { 16 };
        let head_dim = f.integer("attention_head_dim", Some(128), 2..=512)?;
        let n_heads = f.integer("num_attention_heads", Some(24), 1..=256)?;
        let axes = f.integers("axes_dims_rope", &[16, 56, 56], 3..=3, 2..=512)?;
        if axes.iter().sum::<usize>() != head_dim || axes.iter().any(|a| a % 2 == 1) {
            let allowed = format!("even numbers with the sum {head_dim}, the size of a head");
            return Err(f.refuse("axes_dims_rope", format!("{axes:?}"), &allowed));
        }
        Ok(Self {
            patch_size: f.integer("patch_size", Some(2), 1..=8)?,
            in_channels,
            out_channels: f.integer("out_channels", Some(out_channels), 1..=4096)?,
            num_layers: f.integer("num_layers", Some(60), 1..=200)?,
            heads: Heads { n_heads, n_kv_heads: n_heads, head_dim },
            joint_attention_dim: f.integer("joint_attention_dim", Some(3584), 1..=32_768)?,
            axes_dims_rope: [axes[0], axes[1], axes[2]],
            zero_cond_t: f.switch("zero_cond_t", false)?,
        })
    }

    /// Values of a token of the result.
    #[must_use]
    pub const fn token_channels_out(&self) -> usize {
        self.patch_size * self.patch_size * self.out_channels
    }
}

#[cfg(test)]
mod tests;
