//! What the transformer predicts for a batch: the prompts' direction, guided away from the negative prompts'.

use inkstone_tensor::{Tensor, ops};

use super::Plan;
use crate::Result;
use crate::models::qwen_image::{Conditioning, Inputs, ModulationTable, Prompts, Transformer};
use crate::nn::rope::Grid;
use crate::progress::Context;
use crate::sample::guidance::Guidance;

/// What the reference divides timesteps by (`timestep / 1000`, pipeline_qwenimage.py).
const TIMESTEP_SCALE: f32 = 1000.0;

/// Prompt embeddings of a batch: f32 `[n_tokens, d]` each.
pub(super) struct Texts {
    pub(super) prompts: Vec<Tensor>,
    /// As many as prompts where there is guidance, else none.
    pub(super) negatives: Vec<Tensor>,
}

/// How prompts and negative prompts pass the transformer. The bytes are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    /// In one batch: weights are read once.
    One,
    /// One after the other: half the activations.
    Two,
}

/// The transformer with everything that does not change between steps.
pub(super) struct Prediction<'a> {
    transformer: &'a Transformer,
    modulations: ModulationTable,
    /// Prompts and negative prompts in one batch, or each in its own.
    batches: Vec<Conditioning>,
    guidance: Option<Guidance>,
}

impl<'a> Prediction<'a> {
    pub(super) fn new(
        transformer: &'a Transformer,
        texts: &Texts,
        plan: &Plan,
        passes: Passes,
        ctx: &Context<'_>,
    ) -> Result<Self> {
        let all: Vec<&Tensor> = texts.prompts.iter().chain(&texts.negatives).collect();
        let count = if passes == Passes::Two { texts.prompts.len() } else { all.len() };
        let batches = all.chunks(count).map(|texts| condition(transformer, texts, plan.grid, ctx));
        // As the reference hands them over: `timestep / 1000`, whatever the scheduler made of a level.
        let timesteps: Vec<f32> = plan.schedule.timesteps.iter().map(|t| t / TIMESTEP_SCALE).collect();
        Ok(Self {
            transformer,
            batches: batches.collect::<Result<_>>()?,
            modulations: transformer.modulations(&timesteps, ctx)?,
            guidance: plan.guidance,
        })
    }

    /// The direction in which the latents should move.
    ///
    /// # Shapes
    /// `latents [batch * n_img, channels]`, result the same.
    pub(super) fn velocity(&self, latents: &Tensor, step: usize, ctx: &Context<'_>) -> Result<Tensor> {
        let forward = |latents: &Tensor, conditioning: &Conditioning| {
            let inputs = Inputs { latents, conditioning, modulations: &self.modulations, step };
            self.transformer.forward(&inputs, ctx)
        };
        let Some(guidance) = &self.guidance else {
            let velocity = forward(latents, &self.batches[0])?;
            ctx.tap(format_args!("model_call.{step}"), &velocity);
            return Ok(velocity);
        };
        let (cond, uncond) = match &self.batches[..] {
            [prompts, negatives] => (forward(latents, prompts)?, forward(latents, negatives)?),
            together => {
                let rows = latents.rows();
                let both = forward(&ops::concat_rows(&[latents, latents])?, &together[0])?;
                (both.rows_range(0..rows)?, both.rows_range(rows..2 * rows)?)
            }
        };
        ctx.tap(format_args!("model_call.{}", 2 * step), &cond);
        ctx.tap(format_args!("model_call.{}", 2 * step + 1), &uncond);
        guidance.combine(&cond, &uncond)
    }
}

fn condition(
    transformer: &Transformer,
    texts: &[&Tensor],
    grid: Grid,
    ctx: &Context<'_>,
) -> Result<Conditioning> {
    let embeddings = ops::concat_rows(texts)?;
    let lengths: Vec<usize> = texts.iter().map(|text| text.rows()).collect();
    transformer.condition(&Prompts { embeddings: &embeddings, lengths: &lengths }, &[grid], ctx)
}
