//! Softmax attention over one or two streams whose tokens see each other.

use std::ops::Range;

use inkstone_tensor::ops::{self, Attention, Mask, Qkv, Rope};
use inkstone_tensor::{DType, Tensor};

use super::linear::Linear;
use super::norm::RmsNorm;
use crate::Result;

/// Number and size of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl Heads {
    /// Columns of the queries.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Columns of the keys, and of the values.
    #[must_use]
    pub const fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// The layers that make queries, keys and values of one stream.
#[derive(Clone, Debug)]
pub struct Projections {
    /// Queries.
    pub q: Linear,
    /// Keys.
    pub k: Linear,
    /// Values.
    pub v: Linear,
    /// Norm of each query head and each key head, in models that have one.
    pub norms: Option<(RmsNorm, RmsNorm)>,
}

/// Queries and keys in position, and values, of one stream.
#[derive(Clone, Debug)]
pub struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Projections {
    /// Queries and keys (normalised and rotated) and values.
    ///
    /// # Shapes
    /// `x [rows, dim]`.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward(&self, x: &Tensor, rope: &Rope) -> Result<Projected> {
        let norms = self.norms.as_ref().map(|(q, k)| (q.parts(), k.parts()));
        let place = |x: Tensor, norm| ops::rope_norm(&x, norm, rope, x.dtype());
        Ok(Projected {
            q: place(self.q.forward(x)?, norms.map(|n| n.0))?,
            k: place(self.k.forward(x)?, norms.map(|n| n.1))?,
            v: self.v.forward(x)?,
        })
    }
}

/// Attention over the streams joined in order; one result a stream.
///
/// `sequences[i]` has the rows of sequence `i` in each stream.
///
/// # Errors
/// Shapes that do not fit, no memory.
pub fn joint(
    streams: &[&Projected],
    sequences: &[Vec<Range<usize>>],
    heads: Heads,
    mask: Mask,
    out: DType,
) -> Result<Vec<Tensor>> {
    let streams: Vec<Qkv<'_>> = streams.iter().map(|s| Qkv { q: &s.q, k: &s.k, v: &s.v }).collect();
    let args = Attention {
        streams: &streams,
        sequences,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        scale: score_scale(heads.head_dim),
        mask,
    };
    Ok(ops::attention(&args, out)?)
}

/// `1 / sqrt(head_dim)`, the factor on scores of every model here.
#[must_use]
pub fn score_scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}
