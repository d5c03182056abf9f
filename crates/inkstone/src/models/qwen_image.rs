//! The Qwen-Image transformer (`QwenImageTransformer2DModel`): noisy latents and a prompt to a direction.
//!
//! Two streams of tokens, text and picture, pass 60 blocks; in each they attend to each other and are modulated by
//! the timestep. One forward serves text to image, editing (reference pictures follow the target's tokens), guidance
//! and batches. What does not change between steps lies in [`Conditioning`] and [`ModulationTable`].
//!
//! Residual streams are f32 in every precision: they reach 5e7 in the 60-block model.

mod block;
mod conditioning;
mod config;
mod modulation;

use inkstone_tensor::{DType, Device, Pages, Tensor, ops};

use crate::Result;
use crate::memory::Walk;
use crate::nn::linear::Linear;
use crate::nn::modulate::LAYER_NORM_EPS;
use crate::nn::norm::RmsNorm;
use crate::nn::rope::{AxialRope, Grid};
use crate::nn::timestep::TimestepEmbedding;
use crate::progress::Context;
use crate::weights::Loader;

pub use conditioning::{Conditioning, Prompts};
pub use config::Config;
pub use modulation::ModulationTable;

use block::Block;

/// Added to the mean square in the norm of prompt embeddings (`txt_norm`, transformer_qwenimage.py).
const TXT_NORM_EPS: f32 = 1e-6;
/// Base of the rotation frequencies (`theta=10000`, transformer_qwenimage.py).
const ROPE_THETA: f32 = 10_000.0;

/// The network.
#[derive(Clone, Debug)]
pub struct Transformer {
    img_in: Linear,
    txt_norm: RmsNorm,
    txt_in: Linear,
    time_embed: TimestepEmbedding,
    blocks: Vec<Block>,
    walk: Walk,
    norm_out: Linear,
    proj_out: Linear,
    rope: AxialRope,
    config: Config,
    activations: DType,
    device: Device,
}

/// What one step takes.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// f32 `[batch * n_img, in_channels]`: for each item its target's tokens, then those of its references.
    pub latents: &'a Tensor,
    /// Prompts and picture sizes.
    pub conditioning: &'a Conditioning,
    /// The timesteps' effect on every block.
    pub modulations: &'a ModulationTable,
    /// Which timestep of the table, from 0.
    pub step: usize,
}

impl Transformer {
    /// Takes the network's tensors.
    ///
    /// # Errors
    /// No memory. Missing and misshapen tensors are reported by the loader's end.
    pub fn load(config: &Config, loader: &mut Loader) -> Result<Self> {
        let dim = config.heads.width();
        let blocks: Vec<Block> =
            (0..config.num_layers).map(|i| Block::load(loader, i, config.heads)).collect();
        Ok(Self {
            walk: Walk::new(blocks.iter().map(|block| block.pages.clone()).collect()),
            img_in: Linear::load(loader, "img_in", config.in_channels, dim),
            txt_norm: RmsNorm::load(loader, "txt_norm", config.joint_attention_dim, TXT_NORM_EPS),
            txt_in: Linear::load(loader, "txt_in", config.joint_attention_dim, dim),
            time_embed: TimestepEmbedding::load(loader, "time_text_embed.timestep_embedder", dim),
            blocks,
            norm_out: Linear::load(loader, "norm_out.linear", dim, 2 * dim),
            proj_out: Linear::load(loader, "proj_out", dim, config.token_channels_out()),
            rope: AxialRope::new(config.axes_dims_rope, ROPE_THETA),
            config: config.clone(),
            activations: loader.activations(),
            device: loader.device().clone(),
        })
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

    /// Which blocks stay in memory.
    #[must_use]
    pub fn walk(&self) -> &Walk {
        &self.walk
    }

    /// The pages of what the modulations of each block are computed from: before the first step, and once.
    pub(crate) fn modulation_pages(&self) -> impl Iterator<Item = &Pages> {
        self.blocks.iter().map(|block| &block.modulation_pages)
    }

    /// What is the same in all steps for these prompts and pictures; `grids[0]` is the target, the others are
    /// references. Every prompt is an item of the batch, and all items have pictures of the same sizes.
    ///
    /// # Errors
    /// [`inkstone_tensor::Error::Range`] if lengths and rows of the prompts differ; no memory.
    pub fn condition(
        &self,
        prompts: &Prompts<'_>,
        grids: &[Grid],
        ctx: &Context<'_>,
    ) -> Result<Conditioning> {
        let txt = self.txt_in.forward_f32(&self.txt_norm.forward(prompts.embeddings)?)?;
        ctx.tap(format_args!("txt_in"), &txt);
        let img_rope = self.rope.pictures(grids, &self.device)?;
        let txt_rope = self.rope.prompts(prompts.lengths, grids, &self.device)?;
        for (name, table) in [("img", &img_rope), ("txt", &txt_rope)] {
            ctx.tap(format_args!("rope.{name}_re"), &table.cos);
            ctx.tap(format_args!("rope.{name}_im"), &table.sin);
        }
        Conditioning::new(txt, img_rope, txt_rope, prompts.lengths, grids)
    }

    /// The modulations of all steps at once, one matrix product a layer. The same bytes as step by step.
    ///
    /// # Units
    /// `timesteps` are sigmas in 0..1.
    ///
    /// # Memory
    /// 48 bytes a channel, block and step: 9 MB a step for the 60-block model.
    ///
    /// # Errors
    /// No memory.
    pub fn modulations(&self, timesteps: &[f32], ctx: &Context<'_>) -> Result<ModulationTable> {
        ModulationTable::compute(self, timesteps, ctx)
    }

    /// One step: the direction in which the latents should move.
    ///
    /// # Shapes
    /// Result f32 `[batch * n_img, out_channels * 4]`, references included.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory, an interruption.
    pub fn forward(&self, inputs: &Inputs<'_>, ctx: &Context<'_>) -> Result<Tensor> {
        let &Inputs { latents, conditioning: cond, modulations, step } = inputs;
        cond.check(latents)?;
        let runs = modulations.runs(step, cond)?;

        let mut img = self.img_in.forward_f32(&ops::convert(latents, self.activations)?)?;
        ctx.tap(format_args!("img_in"), &img);
        let mut txt = cond.txt.clone();
        for (i, block) in self.blocks.iter().enumerate() {
            ctx.check_cancelled()?;
            self.walk.enter(i);
            let modulation = modulations.block(i, &runs)?;
            (img, txt) = block.forward(img, txt, &modulation, cond, ctx)?;
            ctx.tap(format_args!("block.{i}.img"), &img);
            ctx.tap(format_args!("block.{i}.txt"), &txt);
        }

        let (scale, shift) = modulations.norm_out(&runs)?;
        let normed = ops::layer_norm(&img, LAYER_NORM_EPS, &scale, &shift, self.activations)?;
        ctx.tap(format_args!("norm_out"), &normed);
        let output = self.proj_out.forward_f32(&normed)?;
        ctx.tap(format_args!("output"), &output);
        Ok(output)
    }
}
