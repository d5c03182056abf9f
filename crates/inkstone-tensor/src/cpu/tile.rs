//! The register tile: the one inner loop of matrix products, attention and convolution.
//!
//! A tile multiplies a few rows of A, read where they lie, with a panel of B, and keeps the sums in registers. B's
//! panel holds, for each 32-bit word of k (one f32 or two bf16), that word of `cols` columns side by side. Sums run
//! over k in order, one product (or pair) after the other, whatever the number of rows: so a row's result does not
//! depend on the rows around it, on blocking or on threads.

mod ahead;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod few;
pub(super) mod int8;
pub(super) mod scalar;
pub(super) mod turned;

use ahead::Ahead;
pub(super) use ahead::Lines;

/// A register tile of one instruction set and element type.
pub(super) struct Tile {
    /// Columns of a panel.
    pub(super) cols: usize,
    /// The kernel for 1, 2, ... rows.
    pub(super) kernels: &'static [Kernel],
}

pub(super) type Kernel = unsafe fn(&Args<'_>);

/// Where a kernel reads and writes.
pub(super) struct Args<'a> {
    /// Start of A's first row.
    a: *const u8,
    a_stride_bytes: usize,
    /// Offsets in bytes from a row's start: one run of `words` each.
    taps: &'a [usize],
    /// 32-bit words of k for each tap.
    words: usize,
    /// The panel.
    b: *const u8,
    c: *mut f32,
    c_stride: usize,
    /// Whether the sums go on from what C holds.
    go_on: bool,
    /// What to ask for meanwhile.
    ahead: Ahead,
}

/// Rows of A: the bytes from the first one's start, and the distance between them.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) stride_bytes: usize,
    pub(super) taps: &'a [usize],
    /// 32-bit words of k for each tap.
    pub(super) words: usize,
}

/// A panel, and memory that is wanted after it.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) next: Lines,
}

impl<'a> Panel<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, next: Lines::NONE }
    }
}

/// Whether a tile's sums replace what C holds or go on from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    Start,
    GoOn,
}

impl Tile {
    /// Rows of the largest kernel.
    pub(super) fn rows(&self) -> usize {
        self.kernels.len()
    }

    /// Bytes of a panel over `words` words of k.
    pub(super) fn panel_bytes(&self, words: usize) -> usize {
        words * self.cols * 4
    }

    /// `C = A B` or `C += A B` for `rows` rows of A and one panel B; C has rows of `c_stride`.
    pub(super) fn run(
        &self,
        rows: usize,
        a: Operand<'_>,
        b: Panel<'_>,
        c: &mut [f32],
        c_stride: usize,
        sums: Sums,
    ) {
        let reach = a.taps.iter().max().map_or(0, |tap| tap + a.words * 4);
        assert!(b.bytes.len() >= self.panel_bytes(a.taps.len() * a.words));
        assert!(rows == 0 || a.bytes.len() >= (rows - 1) * a.stride_bytes + reach);
        assert!(rows == 0 || c.len() >= (rows - 1) * c_stride + self.cols);
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
                c: c.as_mut_ptr().wrapping_add(first * c_stride),
                c_stride,
                go_on: sums == Sums::GoOn,
                ahead: b.next.part(turns - left, turns).over(a.words * a.taps.len()),
            };
            // SAFETY: the slices reach as far as `n` rows need, as checked above; tiles are only in the tables of
            // instruction sets that the processor has.
            unsafe { self.kernels[n - 1](&args) };
            first += n;
        }
    }
}
