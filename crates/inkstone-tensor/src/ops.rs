//! The list of operations. Each function checks its arguments, allocates the result and hands the work to the
//! device; the struct of the same name is what the device receives.
//!
//! Matrices are `[rows, cols]`; a row is a token or a pixel. Pictures are `[n, h, w, c]`, channels innermost.
//! Vectors (bias, norm weights, rotation tables) are f32; activations are f32 or bf16, chosen by the caller through
//! the `out` argument; sums are always kept in f32.

mod affine;
mod check;
mod elementwise;
mod image;
mod matrix;
mod quantize;
mod row;

pub use affine::{AffineParts, FittedMatrix, QuantizeAffine, quantize_affine};
pub use elementwise::{Elementwise, Rescale, activate, add, convert, guidance, scale, scaled_add};
pub use image::{
    ChannelNorm, Conv2d, ConvWeight, Into, Padding, PixelNorm, Window, channel_norm, conv2d, conv2d_add,
    conv2d_add_of, conv2d_of,
};
pub use matrix::{
    Attention, Epilogue, Linear, Mask, Qkv, Term, attention, linear, linear_add, linear_add_with,
    linear_mul_with, linear_with,
};
pub use quantize::{Int8Rows, QuantizeInt8, RoundedWeight, quantize_int8};
pub use row::{
    LayerNorm, Mix, RmsNorm, Rope, RopeLayout, RopeNorm, concat_rows, embedding, layer_norm, mix, rms_norm,
    rope_norm,
};

use std::sync::Arc;

use crate::Tensor;

/// A function applied to every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The value itself.
    None,
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh form: `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
}

/// One vector for each row of a matrix, given as a small table and runs of rows that share an entry.
///
/// A modulation is such a table: all tokens of a stream use entry 0, or target tokens entry 0 and reference
/// tokens entry 1.
#[derive(Clone, Debug)]
pub struct RowTable {
    /// The vectors, f32 `[entries, cols]`.
    pub table: Tensor,
    /// Which entry consecutive rows use; together the runs cover all rows of the matrix.
    pub runs: Arc<[Run]>,
}

/// Some consecutive rows that share an entry of a [`RowTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of rows.
    pub rows: usize,
    /// Row of the table.
    pub entry: usize,
}

impl RowTable {
    /// The entry that a row of the matrix uses; the last run's if the row is beyond all of them.
    #[must_use]
    pub fn entry_of(&self, row: usize) -> usize {
        let mut first = 0;
        for run in self.runs.iter() {
            first += run.rows;
            if row < first {
                return run.entry;
            }
        }
        self.runs.last().map_or(0, |run| run.entry)
    }
}
