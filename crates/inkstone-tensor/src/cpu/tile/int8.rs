//! Register tiles for products of bytes.
//!
//! As the other tiles, but a word is four bytes: of A whole numbers from -127 to 127, of B such numbers with 128 added,
//! since that is what processors multiply. Sums of a call are whole and exact, so that all instruction sets have the same
//! ones; they leave the tile as f32, times a factor for the row and one for the column. The products of A with the 128
//! are the same for all columns: they are taken off at the start.

use super::ahead::Ahead;
use super::{Operand, Panel, Sums};
use crate::Int8Weight;

#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod avx512;
pub(in crate::cpu) mod scalar;

/// Bytes of k in a block of a linear layer at most. A sum of 1024 products of numbers up to 127 and 128 is below 2^24: it is whole as an
/// f32 too, and its parts are far from the end of an i32.
pub(in crate::cpu) const BLOCK_BYTES: usize = 1024;

/// A register tile of one instruction set.
pub(in crate::cpu) struct Int8Tile {
    /// Columns of a panel.
    pub(in crate::cpu) cols: usize,
    /// The kernel for 1, 2, ... rows.
    kernels: &'static [Kernel],
}

type Kernel = unsafe fn(&Args<'_>);

/// What belongs to a row of A.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::cpu) struct RowScale {
    /// The factor from whole numbers back to values.
    pub(in crate::cpu) scale: f32,
    /// What sums start with: -128 times the sum of the row's numbers.
    pub(in crate::cpu) start: i32,
}

/// Where a kernel reads and writes; see [`super::Args`].
struct Args<'a> {
    a: *const u8,
    a_stride_bytes: usize,
    taps: &'a [usize],
    words: usize,
    b: *const u8,
    /// One a row.
    rows: *const RowScale,
    /// A factor for each column.
    factors: *const f32,
    c: *mut f32,
    c_stride: usize,
    go_on: bool,
    /// What to ask for meanwhile.
    ahead: Ahead,
}

/// The factors of a product.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Factors<'a> {
    /// One a row of A.
    pub(in crate::cpu) rows: &'a [RowScale],
    /// One a column of the panel.
    pub(in crate::cpu) cols: &'a [f32],
}

/// What a tile writes to.
pub(in crate::cpu) struct Target<'a> {
    pub(in crate::cpu) sums: &'a mut [f32],
    pub(in crate::cpu) stride: usize,
    pub(in crate::cpu) mode: Sums,
}

impl Int8Tile {
    /// Rows of the largest kernel.
    pub(in crate::cpu) fn rows(&self) -> usize {
        self.kernels.len()
    }

    /// Bytes of a panel over `words` words of k.
    pub(in crate::cpu) fn panel_bytes(&self, words: usize) -> usize {
        words * self.cols * 4
    }

    /// `C = A B` or `C += A B`, for as many rows of A as there are factors, and one panel B.
    pub(in crate::cpu) fn run(&self, a: Operand<'_>, b: Panel<'_>, factors: Factors<'_>, to: Target<'_>) {
        let rows = factors.rows.len();
        let reach = a.taps.iter().max().map_or(0, |tap| tap + a.words * 4);
        let words = a.taps.len() * a.words;
        assert!(words * 4 <= Int8Weight::MAX_PRODUCTS && b.bytes.len() >= self.panel_bytes(words));
        assert!(factors.cols.len() >= self.cols);
        assert!(rows == 0 || a.bytes.len() >= (rows - 1) * a.stride_bytes + reach);
        assert!(rows == 0 || to.sums.len() >= (rows - 1) * to.stride + self.cols);
        let mut first = 0;
        // Kernels of about the same height: one of a few rows waits for its sums.
        let turns = rows.div_ceil(self.rows());
        for left in (1..=turns).rev() {
            let n = (rows - first).div_ceil(left);
            let args = Args {
                a: a.bytes.as_ptr().wrapping_add(first * a.stride_bytes),
                a_stride_bytes: a.stride_bytes,
                taps: a.taps,
                words: a.words,
                b: b.bytes.as_ptr(),
                rows: factors.rows[first..].as_ptr(),
                factors: factors.cols.as_ptr(),
                c: to.sums.as_mut_ptr().wrapping_add(first * to.stride),
                c_stride: to.stride,
                go_on: to.mode == Sums::GoOn,
                ahead: b.next.part(turns - left, turns).over(words),
            };
            // SAFETY: the slices reach as far as `n` rows need, as checked above; tiles are only in the tables of
            // instruction sets that the processor has.
            unsafe { self.kernels[n - 1](&args) };
            first += n;
        }
    }
}
