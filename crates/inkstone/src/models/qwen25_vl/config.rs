//! Sizes of the language model.

use serde_json::json;

use crate::Result;
use crate::models::fields::{self, Fields};
use crate::nn::attention::Heads;

/// What `text_encoder/config.json` says of the language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Width of the model.
    pub hidden_size: usize,
    /// Width of the middle of a feed-forward network.
    pub intermediate_size: usize,
    /// Layers.
    pub num_layers: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f32,
    /// Base of the rotation frequencies.
    pub rope_theta: f32,
}

impl Config {
    /// Reads `text_encoder/config.json` in either dialect: the language model's fields at the top (transformers 4) or
    /// in `text_config`, with the rotation's in `rope_parameters` (transformers 5).
    ///
    /// # Errors
    /// [`crate::Error::ModelConfig`].
    pub fn from_json(json: &str) -> Result<Self> {
        const COMPONENT: &str = "text_encoder";
        let value = fields::parse(COMPONENT, json)?;
        let top = Fields::of(COMPONENT, &value)?;
        top.only("model_type", &json!("qwen2_5_vl"))?;
        let f = top.inner("text_config")?.unwrap_or(top);
        f.only("hidden_act", &json!("silu"))?;
        f.only("use_sliding_window", &json!(false))?;

        let hidden_size = f.integer("hidden_size", None, 1..=32_768)?;
        let n_heads = f.integer("num_attention_heads", None, 1..=256)?;
        let head_dim = f.integer("head_dim", Some(hidden_size / n_heads), 2..=1024)?;
        if head_dim % 2 == 1 || head_dim * n_heads != hidden_size {
            let allowed = format!("an even divisor of hidden_size, {hidden_size}");
            return Err(f.refuse("num_attention_heads", n_heads, &allowed));
        }
        let n_kv_heads = f.integer("num_key_value_heads", Some(n_heads), 1..=256)?;
        if n_heads % n_kv_heads != 0 {
            let allowed = format!("a divisor of num_attention_heads, {n_heads}");
            return Err(f.refuse("num_key_value_heads", n_kv_heads, &allowed));
        }
        Ok(Self {
            vocab_size: f.integer("vocab_size", None, 1..=1_000_000)?,
            hidden_size,
            intermediate_size: f.integer("intermediate_size", None, 1..=262_144)?,
            num_layers: f.integer("num_hidden_layers", None, 1..=200)?,
            heads: Heads { n_heads, n_kv_heads, head_dim },
            rms_norm_eps: to_f32(f.number("rms_norm_eps", 1e-6, 0.0..=1e-2)?),
            rope_theta: to_f32(rope_theta(&f)?),
        })
    }
}

/// The rotation's base, from wherever the dialect keeps it. Scaled rotations are refused.
fn rope_theta(f: &Fields<'_>) -> Result<f64> {
    /// Base of Qwen2.5-VL's rotation (transformers, modeling_qwen2_5_vl.py).
    const DEFAULT: f64 = 1e6;
    let range = || 1.0..=1e9;
    let mut theta = f.number("rope_theta", DEFAULT, range())?;
    for place in ["rope_scaling", "rope_parameters"] {
        let Some(inner) = f.inner(place)? else { continue };
        for name in ["rope_type", "type"] {
            inner.one_of(name, &["default", "mrope"])?;
        }
        theta = inner.number("rope_theta", theta, range())?;
    }
    Ok(theta)
}

#[allow(clippy::cast_possible_truncation)] // the reference computes both in f32
fn to_f32(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests;
