//! The language model of Qwen2.5-VL as a text encoder: token ids to the hidden state after the final norm.
//!
//! Its vision tower and its output layer are not used.

mod config;

use std::ops::Range;

use inkstone_tensor::ops::{self, Mask, Rope};
use inkstone_tensor::{DType, Device, Tensor, Weight};

use crate::Result;
use crate::memory::Walk;
use crate::nn::attention::{Heads, Projections, joint};
use crate::nn::linear::Linear;
use crate::nn::mlp::SwigluMlp;
use crate::nn::norm::RmsNorm;
use crate::nn::rope;
use crate::progress::Context;
use crate::weights::Loader;

pub use config::Config;

/// Where the language model's tensors lie, in the order in which the layouts appeared: as Qwen-Image repositories store
/// them, and as newer versions of transformers do.
const PREFIXES: [&str; 2] = ["model", "model.language_model"];
/// Tensors that are not needed: the vision tower in both layouts, and the output layer.
const UNUSED: [&str; 3] = ["visual.", "model.visual.", "lm_head."];

/// The network.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    /// `[vocab_size, dim]` as stored.
    embed_tokens: Weight,
    layers: Vec<Layer>,
    walk: Walk,
    norm: RmsNorm,
    config: Config,
    device: Device,
}

#[derive(Clone, Debug)]
struct Layer {
    input_norm: RmsNorm,
    qkv: Projections,
    out: Linear,
    post_attention_norm: RmsNorm,
    mlp: SwigluMlp,
    heads: Heads,
    activations: DType,
}

impl TextEncoder {
    /// Takes the network's tensors.
    ///
    /// # Errors
    /// No memory. Missing and misshapen tensors are reported by the loader's end.
    pub fn load(config: &Config, loader: &mut Loader) -> Result<Self> {
        for unused in UNUSED {
            loader.ignore(unused);
        }
        let table = |prefix: &str| format!("{prefix}.embed_tokens.weight");
        let prefix = PREFIXES.into_iter().find(|p| loader.has(&table(p))).unwrap_or(PREFIXES[0]);
        let embed_tokens = loader.weight(&table(prefix), config.vocab_size, config.hidden_size);
        loader.pages(); // of what came before the layers
        let layer = |i| {
            let layer = Layer::load(loader, &format!("{prefix}.layers.{i}"), config);
            (layer, loader.end_layer())
        };
        let (layers, pages) = (0..config.num_layers).map(layer).unzip();
        Ok(Self {
            embed_tokens,
            layers,
            walk: Walk::new(pages),
            norm: RmsNorm::load(loader, &format!("{prefix}.norm"), config.hidden_size, config.rms_norm_eps),
            config: config.clone(),
            device: loader.device().clone(),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which layers stay in memory.
    #[must_use]
    pub fn walk(&self) -> &Walk {
        &self.walk
    }

    /// Hidden states of all prompts one after another, without padding.
    ///
    /// # Shapes
    /// Result f32 `[sum of lengths, hidden_size]`.
    ///
    /// # Errors
    /// An id beyond the vocabulary, no memory, an interruption.
    pub fn forward(&self, prompts: &[Vec<u32>], ctx: &Context<'_>) -> Result<Tensor> {
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let sequences = sequences(&lengths);
        let rope = rope::text(&lengths, self.config.heads.head_dim, self.config.rope_theta, &self.device)?;

        let mut hidden = ops::embedding(&self.embed_tokens, &prompts.concat(), DType::F32)?;
        for (i, layer) in self.layers.iter().enumerate() {
            ctx.check_cancelled()?;
            self.walk.enter(i);
            ctx.tap(format_args!("hidden.{i}"), &hidden);
            hidden = layer.forward(hidden, &rope, &sequences)?;
        }
        let hidden = self.norm.forward_f32(&hidden)?;
        ctx.tap(format_args!("hidden.{}", self.layers.len()), &hidden);
        Ok(hidden)
    }
}

impl Layer {
    fn load(loader: &mut Loader, name: &str, config: &Config) -> Self {
        let (dim, heads) = (config.hidden_size, config.heads);
        let part = |part: &str| format!("{name}.{part}");
        let mut norm = |p: &str| RmsNorm::load(loader, &part(p), dim, config.rms_norm_eps);
        let (input_norm, post_attention_norm) = (norm("input_layernorm"), norm("post_attention_layernorm"));
        let mut linear = |p: &str, n_out: usize| Linear::load(loader, &part(p), dim, n_out);
        Self {
            input_norm,
            qkv: Projections {
                q: linear("self_attn.q_proj", heads.width()),
                k: linear("self_attn.k_proj", heads.kv_width()),
                v: linear("self_attn.v_proj", heads.kv_width()),
                norms: None,
            },
            out: Linear::load_without_bias(loader, &part("self_attn.o_proj"), heads.width(), dim),
            post_attention_norm,
            mlp: SwigluMlp::load(loader, &part("mlp"), dim, config.intermediate_size),
            heads,
            activations: loader.activations(),
        }
    }

    fn forward(
        &self,
        hidden: Tensor, // f32 [n_tokens, dim]
        rope: &Rope,
        sequences: &[Vec<Range<usize>>],
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.input_norm.forward(&hidden)?, rope)?;
        let seen = joint(&[&qkv], sequences, self.heads, Mask::Causal, self.activations)?;
        let hidden = self.out.forward_add(hidden, None, &seen[0])?;
        drop((qkv, seen)); // their memory serves the feed-forward network
        let normed = self.post_attention_norm.forward(&hidden)?;
        self.mlp.forward_add(hidden, &normed)
    }
}

/// The rows of each prompt.
fn sequences(lengths: &[usize]) -> Vec<Vec<Range<usize>>> {
    let mut first = 0;
    let sequence = |&length: &usize| {
        let rows = first..first + length;
        first = rows.end;
        std::iter::once(rows).collect()
    };
    lengths.iter().map(sequence).collect()
}
