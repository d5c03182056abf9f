//! What all steps of a run share: the prompts' first layer, rotation tables, and who attends to whom.

use std::ops::Range;

use inkstone_tensor::ops::Rope;
use inkstone_tensor::{Error, Tensor};

use crate::Result;
use crate::nn::rope::Grid;

/// Prompt embeddings of a batch, one after another and without padding.
#[derive(Clone, Copy, Debug)]
pub struct Prompts<'a> {
    /// `[sum of lengths, joint_attention_dim]`
    pub embeddings: &'a Tensor,
    /// Tokens of each prompt.
    pub lengths: &'a [usize],
}

/// Prompts and picture sizes of a batch, as every step needs them. Made by
/// [`Transformer::condition`](super::Transformer::condition).
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// The text stream before the first block, f32 `[n_txt, dim]`.
    pub(super) txt: Tensor,
    /// Rotation of one item's picture tokens; items share it.
    pub(super) img_rope: Rope,
    /// Rotation of all text tokens.
    pub(super) txt_rope: Rope,
    /// For each item its rows in the text stream and in the picture stream.
    pub(super) sequences: Vec<Vec<Range<usize>>>,
    /// Tokens of an item's target.
    pub(super) target_tokens: usize,
    /// Tokens of an item's references.
    pub(super) reference_tokens: usize,
}

impl Conditioning {
    pub(super) fn new(
        txt: Tensor,
        img_rope: Rope,
        txt_rope: Rope,
        lengths: &[usize],
        grids: &[Grid],
    ) -> Result<Self> {
        let rows: usize = lengths.iter().sum();
        if rows != txt.rows() {
            return Err(range("sum of prompt lengths", txt.rows(), rows).into());
        }
        let tokens: usize = grids.iter().map(|g| g.tokens()).sum();
        let target_tokens = grids.first().map_or(0, |g| g.tokens());
        let mut first = 0;
        let sequence = |(i, &length): (usize, &usize)| {
            let text = first..first + length;
            first = text.end;
            vec![text, i * tokens..(i + 1) * tokens]
        };
        let sequences = lengths.iter().enumerate().map(sequence).collect();
        let reference_tokens = tokens - target_tokens;
        Ok(Self { txt, img_rope, txt_rope, sequences, target_tokens, reference_tokens })
    }

    /// Items of the batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.sequences.len()
    }

    /// Picture tokens of one item, references included.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.target_tokens + self.reference_tokens
    }

    /// That there is one row of latents for each picture token.
    pub(super) fn check(&self, latents: &Tensor) -> Result<()> {
        let rows = self.batch() * self.tokens();
        if latents.rows() == rows {
            Ok(())
        } else {
            Err(range("rows of latents", rows, latents.rows()).into())
        }
    }
}

pub(super) fn range(what: &'static str, allowed: usize, got: usize) -> Error {
    Error::Range { op: "transformer", what, allowed: allowed.to_string(), got: got.to_string() }
}
