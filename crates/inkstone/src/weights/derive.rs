//! Configs that nobody wrote down: what the shapes of a part's tensors say about its sizes. The rest is Qwen-Image's.

use std::collections::BTreeMap;

use inkstone_tensor::Shape;
use serde_json::json;

use super::gguf::Header;
use super::names::Naming;
use super::{Component, MODEL_INDEX, SCHEDULER};
use crate::error::TensorReport;
use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// Size of a head, in Qwen-Image's transformer and in every Qwen2.5-VL (`head_dim`, their configs).
const HEAD_DIM: usize = 128;
/// Elements of a head that are rotated by picture, row and column (`axes_dims_rope`, transformer/config.json).
const AXES: [usize; 3] = [16, 56, 56];
/// Side of the square of latent pixels that makes a token (`patch_size`, transformer/config.json).
const PATCH: usize = 2;
/// Latent channels for which mean and deviation are known: those of Qwen-Image, which has Wan 2.1's latents.
const LATENTS: usize = 16;
/// `latents_mean` of vae/config.json (diffusers, autoencoder_kl_qwenimage.py).
const LATENTS_MEAN: [f32; LATENTS] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632,
    -0.1922, -0.9497, 0.2503, -0.2921,
];
/// `latents_std` of vae/config.json (diffusers, autoencoder_kl_qwenimage.py).
const LATENTS_STD: [f32; LATENTS] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382,
    1.1253, 2.8251, 1.9160,
];
/// What llama.cpp calls the text encoder's architecture.
const ARCHITECTURE: &str = "qwen2vl";

/// The texts that do not depend on the weights: which pipeline, and its schedule (scheduler/scheduler_config.json of
/// Qwen-Image).
pub(super) fn frame() -> [(&'static str, String); 2] {
    let index = json!({
        "_class_name": "QwenImagePipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
    });
    let scheduler = json!({
        "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0,
        "use_dynamic_shifting": true, "time_shift_type": "exponential", "shift_terminal": 0.02,
        "base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192,
    });
    [(MODEL_INDEX, index.to_string()), (SCHEDULER, scheduler.to_string())]
}

/// What a GGUF file notes of a text encoder beside its tensors.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    architecture: Option<String>,
    heads: Option<u64>,
    kv_heads: Option<u64>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
}

impl Noted {
    pub(super) fn of(header: &Header<'_>) -> Self {
        let Some(architecture) = header.values.get("general.architecture").and_then(|value| value.text())
        else {
            return Self::default();
        };
        let value = |key: &str| header.values.get(&format!("{architecture}.{key}"));
        Self {
            architecture: Some(architecture.to_owned()),
            heads: value("attention.head_count").and_then(|value| value.count()),
            kv_heads: value("attention.head_count_kv").and_then(|value| value.count()),
            rms_norm_eps: value("attention.layer_norm_rms_epsilon").and_then(|value| value.number()),
            rope_theta: value("rope.freq_base").and_then(|value| value.number()),
        }
    }
}

/// The config of a part whose files hold these tensors.
///
/// # Errors
/// [`Error::Tensors`] names what is missing; [`Error::ModelConfig`] for sizes that only a config could explain.
pub(super) fn config(component: Component, tensors: &[(String, Shape)], noted: &Noted) -> Result<String> {
    let mut shapes = Shapes::new(component, tensors);
    let config = match component {
        Component::Transformer => transformer(&mut shapes)?,
        Component::TextEncoder => text_encoder(&mut shapes, noted),
        Component::Vae => vae(&mut shapes)?,
    };
    if shapes.missing.is_empty() {
        return Ok(config.to_string());
    }
    let report = Box::new(TensorReport { missing: shapes.missing, ..TensorReport::default() });
    Err(Error::Tensors { component: component.name().into(), report })
}

/// A part's shapes by the names that its model asks for.
struct Shapes {
    shapes: BTreeMap<String, Shape>,
    missing: Vec<String>,
}

impl Shapes {
    fn new(component: Component, tensors: &[(String, Shape)]) -> Self {
        let naming = Naming::of(component, tensors.iter().map(|(name, _)| name.as_str()));
        let canonical =
            |(name, shape): &(String, Shape)| Some((naming.canonical(name)?.into_owned(), *shape));
        Self { shapes: tensors.iter().filter_map(canonical).collect(), missing: Vec::new() }
    }

    fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// The outermost dimension, which no format packs; 1 of a tensor that is not there, which is noted.
    fn rows(&mut self, name: &str) -> usize {
        match self.shapes.get(name).and_then(|shape| shape.dims().first()) {
            Some(rows) => *rows,
            None => {
                self.missing.push(name.to_owned());
                1
            }
        }
    }

    /// How many of these names there are, counted from 0 on.
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|i| self.has(&name(*i))).count()
    }
}

fn transformer(shapes: &mut Shapes) -> Result<serde_json::Value> {
    let head_dim = shapes.rows("transformer_blocks.0.attn.norm_q.weight");
    if shapes.missing.is_empty() && head_dim != HEAD_DIM {
        return Err(unexplained(Component::Transformer, "attention_head_dim", head_dim, HEAD_DIM));
    }
    let token = shapes.rows("proj_out.weight");
    Ok(json!({
        "_class_name": "QwenImageTransformer2DModel",
        "num_layers": shapes.count(|i| format!("transformer_blocks.{i}.attn.norm_q.weight")),
        "attention_head_dim": HEAD_DIM,
        "num_attention_heads": shapes.rows("img_in.weight") / HEAD_DIM,
        "axes_dims_rope": AXES,
        "joint_attention_dim": shapes.rows("txt_norm.weight"),
        "patch_size": PATCH,
        "in_channels": token,
        "out_channels": token / (PATCH * PATCH),
        // Qwen-Image-Layered has it.
        "use_additional_t_cond": shapes.has("time_text_embed.addition_t_embedding.weight"),
    }))
}

fn text_encoder(shapes: &mut Shapes, noted: &Noted) -> serde_json::Value {
    let new = shapes.has("model.language_model.norm.weight");
    let prefix = if new { "model.language_model" } else { "model" };
    let first = |name: &str| format!("{prefix}.layers.0.{name}.weight");
    let (queries, keys) = (shapes.rows(&first("self_attn.q_proj")), shapes.rows(&first("self_attn.k_proj")));
    let of = |noted: Option<u64>, rows: usize| noted.unwrap_or((rows / HEAD_DIM) as u64);
    let model_type = match noted.architecture.as_deref() {
        None | Some(ARCHITECTURE) => "qwen2_5_vl",
        Some(other) => other,
    };
    json!({
        "model_type": model_type,
        "vocab_size": shapes.rows(&format!("{prefix}.embed_tokens.weight")),
        "hidden_size": shapes.rows(&format!("{prefix}.norm.weight")),
        "intermediate_size": shapes.rows(&first("mlp.gate_proj")),
        "num_hidden_layers": shapes.count(|i| format!("{prefix}.layers.{i}.input_layernorm.weight")),
        "num_attention_heads": of(noted.heads, queries),
        "num_key_value_heads": of(noted.kv_heads, keys),
        "rms_norm_eps": noted.rms_norm_eps,
        "rope_theta": noted.rope_theta,
    })
}

fn vae(shapes: &mut Shapes) -> Result<serde_json::Value> {
    let base = shapes.rows("encoder.conv_in.weight");
    let latents = shapes.rows("post_quant_conv.weight");
    if shapes.missing.is_empty() && latents != LATENTS {
        return Err(unexplained(Component::Vae, "z_dim", latents, LATENTS));
    }
    let block =
        |level: usize, block: usize| format!("decoder.up_blocks.{level}.resnets.{block}.conv1.weight");
    let levels = shapes.count(|level| block(level, 0));
    let blocks = shapes.count(|i| block(0, i));
    let mut multiples: Vec<usize> =
        (0..levels.max(1)).map(|i| shapes.rows(&block(i, 0)) / base.max(1)).collect();
    multiples.reverse();
    Ok(json!({
        "base_dim": base,
        "z_dim": latents,
        "dim_mult": multiples,
        "num_res_blocks": blocks.saturating_sub(1),
        "temperal_downsample": vec![false; levels.saturating_sub(1)],
        "input_channels": shapes.rows("decoder.conv_out.weight"),
        "latents_mean": LATENTS_MEAN,
        "latents_std": LATENTS_STD,
    }))
}

fn unexplained(component: Component, field: &str, got: usize, known: usize) -> Error {
    Error::ModelConfig {
        component: component.folder(),
        field: field.into(),
        got: got.to_string(),
        allowed: format!("{known} where there is no config.json"),
    }
}
