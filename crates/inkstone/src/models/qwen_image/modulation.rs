//! What the timesteps do to every block: shift, scale and gate vectors, computed for all steps before the first.
//!
//! A third of the model's parameters only map the timestep, which is the same for every token, prompt and picture.
//! So they are read once a picture and not once a step, and their memory is given back at once.

use std::sync::Arc;

use inkstone_tensor::Tensor;
use inkstone_tensor::ops::{self, Activation, RowTable, Run};

use super::Transformer;
use super::conditioning::{Conditioning, range};
use crate::Result;
use crate::nn::modulate::{Modulation, columns};
use crate::progress::Context;

/// Modulations of all steps. Made by [`Transformer::modulations`].
#[derive(Clone, Debug)]
pub struct ModulationTable {
    /// For each block, of the picture and the text stream, f32 `[entries, 6 * dim]`.
    blocks: Vec<(Tensor, Tensor)>,
    /// f32 `[entries, 2 * dim]`: scale, then shift; the other way round than in the blocks.
    norm_out: Tensor,
    /// Entries for steps; where references are modulated as at timestep 0, one more entry follows.
    steps: usize,
    references_at_zero: bool,
    dim: usize,
}

/// Which entry of the table the rows of each stream use in a step.
#[derive(Clone, Debug)]
pub(super) struct StepRuns {
    /// Picture tokens in the blocks.
    img: Arc<[Run]>,
    /// Text tokens.
    txt: Arc<[Run]>,
    /// Picture tokens behind the blocks, where references follow the real timestep too.
    out: Arc<[Run]>,
}

/// The modulation of one block in one step: of attention, then of the feed-forward network.
#[derive(Clone, Debug)]
pub(super) struct BlockModulation {
    pub(super) img: [Modulation; 2],
    pub(super) txt: [Modulation; 2],
}

impl ModulationTable {
    pub(super) fn compute(model: &Transformer, timesteps: &[f32], ctx: &Context<'_>) -> Result<Self> {
        let references_at_zero = model.config.zero_cond_t;
        let mut all = timesteps.to_vec();
        all.extend(references_at_zero.then_some(0.0));
        let temb = model.time_embed.forward(&all)?;
        ctx.tap(format_args!("temb"), &temb);
        let vector = ops::activate(&temb, Activation::Silu, model.activations)?;
        let mut blocks = Vec::with_capacity(model.blocks.len());
        for block in &model.blocks {
            ctx.check_cancelled()?;
            blocks.push((block.img_mod.forward_f32(&vector)?, block.txt_mod.forward_f32(&vector)?));
            block.modulation_pages.release(); // nothing else reads them
        }
        Ok(Self {
            blocks,
            norm_out: model.norm_out.forward_f32(&vector)?,
            steps: timesteps.len(),
            references_at_zero,
            dim: model.config.heads.width(),
        })
    }

    /// Number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn runs(&self, step: usize, cond: &Conditioning) -> Result<StepRuns> {
        if step >= self.steps {
            return Err(range("steps of the modulation table", self.steps, step).into());
        }
        let all = |rows: usize| -> Arc<[Run]> { Arc::new([Run { rows, entry: step }]) };
        let target = Run { rows: cond.target_tokens, entry: step };
        let references = Run { rows: cond.reference_tokens, entry: self.steps };
        let out = all(cond.batch() * cond.tokens());
        let img = if self.references_at_zero {
            std::iter::repeat_n([target, references], cond.batch()).flatten().collect()
        } else {
            out.clone()
        };
        Ok(StepRuns { img, txt: all(cond.txt.rows()), out })
    }

    pub(super) fn block(&self, index: usize, runs: &StepRuns) -> Result<BlockModulation> {
        let (img, txt) = &self.blocks[index];
        let pair = |table: &Tensor, runs: &Arc<[Run]>| -> Result<[Modulation; 2]> {
            Ok([Modulation::of(table, 0, self.dim, runs)?, Modulation::of(table, 1, self.dim, runs)?])
        };
        Ok(BlockModulation { img: pair(img, &runs.img)?, txt: pair(txt, &runs.txt)? })
    }

    /// Scale and shift of the last norm.
    pub(super) fn norm_out(&self, runs: &StepRuns) -> Result<(RowTable, RowTable)> {
        let part = |k: usize| columns(&self.norm_out, k, self.dim, &runs.out);
        Ok((part(0)?, part(1)?))
    }
}
