//! What other programs call a component's tensors, in the names that diffusers and transformers give them.
//!
//! # Source
//! - ComfyUI: `model.diffusion_model.` before the transformer's names in whole checkpoints; the VAE under the names of
//!   Wan's own code (`convert_wan_vae_to_diffusers`, diffusers single_file_utils.py).
//! - llama.cpp: `blk.N.attn_q` and so on for the text encoder (`MODEL_ARCH.QWEN2VL`, gguf-py tensor_mapping.py). Queries
//!   and keys of this architecture are stored as they are, in no other order.
//! - mflux: its own names for some layers, and MLX's order of dimensions in the VAE (qwen_weight_mapping.py).
//! - mlx-vlm: the language model under `language_model.model.`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Component, Order, SafeTensors};

#[cfg(test)]
mod tests;

/// A way of naming: how it is told, and what a name becomes.
struct Dialect {
    /// The start of a name that only this dialect has.
    mark: &'static str,
    rename: fn(&str) -> Cow<'_, str>,
    order: Order,
}

impl Dialect {
    const fn new(mark: &'static str, rename: fn(&str) -> Cow<'_, str>) -> Self {
        Self { mark, rename, order: Order::ChannelsFirst }
    }
}

/// What stands before all names of a component in files that hold several, the longest first. The others' tensors are
/// left out.
pub(super) fn prefixes(component: Component) -> &'static [&'static str] {
    match component {
        Component::Transformer => &["model.diffusion_model.", "diffusion_model."],
        Component::TextEncoder => &["text_encoders.qwen25_7b.transformer.", "language_model."],
        Component::Vae => &["first_stage_model.", "vae."],
    }
}

fn dialects(component: Component) -> &'static [Dialect] {
    match component {
        Component::Transformer => {
            const { &[Dialect::new("transformer_blocks.0.attn.attn_to_out.", mflux_transformer)] }
        }
        Component::TextEncoder => {
            const {
                &[
                    Dialect::new("token_embd.", llama_cpp),
                    Dialect::new("encoder.embed_tokens.", mflux_text_encoder),
                ]
            }
        }
        Component::Vae => {
            const {
                &[
                    Dialect::new("decoder.middle.", wan_vae),
                    Dialect {
                        mark: "decoder.conv_in.conv3d.",
                        rename: mflux_vae,
                        order: Order::ChannelsLast,
                    },
                ]
            }
        }
    }
}

/// How a component's files name its tensors.
pub(super) struct Naming {
    prefix: &'static str,
    dialect: Option<&'static Dialect>,
}

impl Naming {
    /// Told by the names.
    pub(super) fn of<'a>(component: Component, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let starts = |start: &str| names.clone().any(|name| name.starts_with(start));
        let prefix = prefixes(component).iter().find(|prefix| starts(prefix)).copied().unwrap_or_default();
        let marked = |dialect: &&Dialect| starts(&format!("{prefix}{}", dialect.mark));
        Self { prefix, dialect: dialects(component).iter().find(marked) }
    }

    /// The name that the component's model asks for; `None` for a tensor of another component.
    pub(super) fn canonical<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        let name = name.strip_prefix(self.prefix)?;
        Some(self.dialect.map_or(Cow::Borrowed(name), |dialect| (dialect.rename)(name)))
    }
}

/// Gives a component's tensors the names that its model asks for.
pub(super) fn make_canonical(component: Component, tensors: &mut SafeTensors) {
    let names = tensors.tensors.keys().chain(tensors.quantized.keys()).map(String::as_str);
    let naming = Naming::of(component, names);
    tensors.order = naming.dialect.map_or_else(Order::default, |dialect| dialect.order);
    rename_all(tensors, |name| naming.canonical(name));
}

fn rename_all(tensors: &mut SafeTensors, rename: impl Fn(&str) -> Option<Cow<'_, str>>) {
    fn all<T>(map: &mut BTreeMap<String, T>, rename: impl Fn(&str) -> Option<Cow<'_, str>>) {
        *map = std::mem::take(map)
            .into_iter()
            .filter_map(|(name, value)| Some((rename(&name)?.into_owned(), value)))
            .collect();
    }
    all(&mut tensors.tensors, &rename);
    all(&mut tensors.quantized, &rename);
    all(&mut tensors.shapes, &rename);
    all(&mut tensors.foreign, &rename);
}

/// The name with the first part that is in the table replaced.
fn replaced<'a>(name: &'a str, table: &[(&str, &str)]) -> Cow<'a, str> {
    match table.iter().find(|(from, _)| name.contains(from)) {
        Some((from, to)) => Cow::Owned(name.replacen(from, to, 1)),
        None => Cow::Borrowed(name),
    }
}

fn mflux_transformer(name: &str) -> Cow<'_, str> {
    let table = [
        (".attn.attn_to_out.0.", ".attn.to_out.0."),
        (".img_mod_linear.", ".img_mod.1."),
        (".txt_mod_linear.", ".txt_mod.1."),
        (".img_ff.mlp_in.", ".img_mlp.net.0.proj."),
        (".img_ff.mlp_out.", ".img_mlp.net.2."),
        (".txt_ff.mlp_in.", ".txt_mlp.net.0.proj."),
        (".txt_ff.mlp_out.", ".txt_mlp.net.2."),
    ];
    replaced(name, &table)
}

fn mflux_text_encoder(name: &str) -> Cow<'_, str> {
    match name.strip_prefix("encoder.") {
        Some(visual) if visual.starts_with("visual.") => Cow::Borrowed(visual),
        Some(rest) => Cow::Owned(format!("model.{rest}")),
        None => Cow::Borrowed(name),
    }
}

/// mflux's autoencoder has the encoder's layers stage by stage, two residual blocks and what halves the picture each, and
/// stores convolutions as MLX wants them.
fn mflux_vae(name: &str) -> Cow<'_, str> {
    const LAYERS_A_STAGE: usize = 3;
    let mut out = name.replacen(".conv3d.", ".", 1);
    let parts = [
        ("decoder.up_block", "decoder.up_blocks."),
        (".skip_conv.", ".conv_shortcut."),
        (".resample_conv.", ".resample.1."),
        (".norm.weight", ".norm.gamma"),
        (".norm1.weight", ".norm1.gamma"),
        (".norm2.weight", ".norm2.gamma"),
        (".norm_out.weight", ".norm_out.gamma"),
    ];
    for (from, to) in parts {
        out = out.replacen(from, to, 1);
    }
    let Some(rest) = out.strip_prefix("encoder.down_blocks.") else { return out.into() };
    let placed = rest.split_once('.').and_then(|(stage, rest)| {
        let stage: usize = stage.parse().ok()?;
        let (place, rest) = match rest.strip_prefix("resnets.") {
            Some(rest) => rest.split_once('.').and_then(|(block, rest)| Some((block.parse().ok()?, rest)))?,
            None => (LAYERS_A_STAGE - 1, rest.strip_prefix("downsamplers.0.")?),
        };
        let number = stage.checked_mul(LAYERS_A_STAGE)?.checked_add(place)?;
        Some(format!("encoder.down_blocks.{number}.{rest}"))
    });
    placed.unwrap_or(out).into()
}

fn llama_cpp(name: &str) -> Cow<'_, str> {
    let top =
        [("token_embd.", "model.embed_tokens."), ("output_norm.", "model.norm."), ("output.", "lm_head.")];
    if let Some((from, to)) = top.iter().find(|(from, _)| name.starts_with(from)) {
        return Cow::Owned(name.replacen(from, to, 1));
    }
    let Some(layer) = name.strip_prefix("blk.") else { return Cow::Borrowed(name) };
    let table = [
        (".attn_norm.", ".input_layernorm."),
        (".attn_q.", ".self_attn.q_proj."),
        (".attn_k.", ".self_attn.k_proj."),
        (".attn_v.", ".self_attn.v_proj."),
        (".attn_output.", ".self_attn.o_proj."),
        (".ffn_norm.", ".post_attention_layernorm."),
        (".ffn_gate.", ".mlp.gate_proj."),
        (".ffn_up.", ".mlp.up_proj."),
        (".ffn_down.", ".mlp.down_proj."),
    ];
    Cow::Owned(format!("model.layers.{}", replaced(layer, &table)))
}

/// Wan's autoencoder: its up-sampling blocks are one list in which every fourth one enlarges.
fn wan_vae(name: &str) -> Cow<'_, str> {
    const BLOCKS_A_STAGE: usize = 4;
    let parts = [
        (".residual.0.", ".norm1."),
        (".residual.2.", ".conv1."),
        (".residual.3.", ".norm2."),
        (".residual.6.", ".conv2."),
        (".shortcut.", ".conv_shortcut."),
    ];
    let whole = [("conv1.", "quant_conv."), ("conv2.", "post_quant_conv.")];
    if let Some((from, to)) = whole.iter().find(|(from, _)| name.starts_with(from)) {
        return Cow::Owned(name.replacen(from, to, 1));
    }
    let renamed = replaced(name, &parts);
    if let Some(rest) = renamed.strip_prefix("decoder.upsamples.") {
        let Some((number, rest)) = rest.split_once('.') else { return renamed };
        let Ok(number) = number.parse::<usize>() else { return renamed };
        let (stage, place) = (number / BLOCKS_A_STAGE, number % BLOCKS_A_STAGE);
        let block =
            if place + 1 == BLOCKS_A_STAGE { "upsamplers.0".into() } else { format!("resnets.{place}") };
        return Cow::Owned(format!("decoder.up_blocks.{stage}.{block}.{rest}"));
    }
    let places = [
        ("coder.downsamples.", "coder.down_blocks."),
        ("coder.middle.0.", "coder.mid_block.resnets.0."),
        ("coder.middle.1.", "coder.mid_block.attentions.0."),
        ("coder.middle.2.", "coder.mid_block.resnets.1."),
        ("coder.head.0.", "coder.norm_out."),
        ("coder.head.2.", "coder.conv_out."),
    ];
    // A layer of a block may be called conv1 too.
    if let Some(rest) = renamed.strip_prefix("encoder.conv1.") {
        return Cow::Owned(format!("encoder.conv_in.{rest}"));
    }
    if let Some(rest) = renamed.strip_prefix("decoder.conv1.") {
        return Cow::Owned(format!("decoder.conv_in.{rest}"));
    }
    Cow::Owned(replaced(&renamed, &places).into_owned())
}
