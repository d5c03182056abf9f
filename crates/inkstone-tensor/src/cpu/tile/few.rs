//! Tiles of products of few rows: 16 decoded rows of a weight times up to 8 rows of activations.
//!
//! Words are exchanged with rows in registers: a register then holds one word of all 16 rows, as a panel would, and is
//! multiplied by that word of each row of activations. Sums run over k as in [`super::Tile`]: they are the same bits.

#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod avx512;

use super::turned::{StoredRows, WeightRows};
use super::{Operand, Sums};

/// Rows of the weight, and words of k in a square.
pub(in crate::cpu) const WEIGHTS: usize = 16;
/// Bytes of a square's row.
const SQUARE_BYTES: usize = WEIGHTS * 4;

/// A register tile for few rows.
pub(in crate::cpu) struct FewTile {
    /// For 1, 2, .. rows.
    kernels: &'static [unsafe fn(&Args)],
}

/// Where a kernel reads and writes.
struct Args {
    w: *const u8,
    w_stride_bytes: usize,
    words: usize,
    x: *const u8,
    x_stride_bytes: usize,
    c: *mut f32,
    c_stride: usize,
    go_on: bool,
    ahead: StoredRows,
}

impl FewTile {
    /// Rows of activations at most.
    pub(in crate::cpu) fn most_rows(&self) -> usize {
        self.kernels.len()
    }

    /// Multiplies [`WEIGHTS`] rows of a weight with `rows` rows of activations, and asks for what is wanted next. Behind the
    /// weight's rows there is room for a square.
    pub(in crate::cpu) fn run(
        &self,
        rows: usize,
        x: Operand<'_>,
        weight: WeightRows<'_>,
        ahead: StoredRows,
        (sums, stride, mode): (&mut [f32], usize, Sums),
    ) {
        let reach = weight.words.next_multiple_of(WEIGHTS) * 4;
        assert!(weight.bytes.len() >= (WEIGHTS - 1) * weight.stride_bytes + reach);
        assert!(x.bytes.len() >= (rows - 1) * x.stride_bytes + weight.words * 4);
        assert!(sums.len() >= (rows - 1) * stride + WEIGHTS);
        let args = Args {
            w: weight.bytes.as_ptr(),
            w_stride_bytes: weight.stride_bytes,
            words: weight.words,
            x: x.bytes.as_ptr(),
            x_stride_bytes: x.stride_bytes,
            c: sums.as_mut_ptr(),
            c_stride: stride,
            go_on: mode == Sums::GoOn,
            ahead,
        };
        // SAFETY: the slices reach as far as the kernel goes, as just checked; tiles are only in the tables of
        // instruction sets that the processor has.
        unsafe { (self.kernels[rows - 1])(&args) }
    }
}

const _: () = assert!(SQUARE_BYTES == 64, "a line of a row of a square");
