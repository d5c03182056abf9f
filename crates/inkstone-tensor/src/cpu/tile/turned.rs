//! Tiles of turned products: rows of a weight, read where they lie, times a panel of activations.
//!
//! The panel holds, for each word of k, that word of up to 64 rows of activations side by side. A rest of 8 rows takes a
//! register too: it stands there twice, and each half is multiplied with another weight. So nothing of the weight is
//! copied or transposed, and its rows pass by once, in the order in which they lie in memory. Sums run over k as in
//! [`super::Tile`], word after word from the same start: they are the same bits.

#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod avx512;

use super::Sums;
use super::ahead::WORDS_BETWEEN;

/// Elements of bf16 that are multiplied between two times that lines are asked for.
pub(in crate::cpu) const ELEMENTS_BETWEEN: usize = 2 * WORDS_BETWEEN;
const LANES: usize = 16;
/// Rows of activations in half a register: panels hold a multiple of them.
const HALF: usize = LANES / 2;
/// Half registers of a panel at least.
const LEAST: usize = 2;

/// A register tile for turned products.
pub(in crate::cpu) struct TurnedTile {
    /// For panels of 16, 24, 32, .. rows.
    kernels: &'static [Kernel],
}

struct Kernel {
    /// Rows of the weight.
    weights: usize,
    run: unsafe fn(&Args),
}

/// Where a kernel reads and writes.
struct Args {
    w: *const u8,
    w_stride_bytes: usize,
    words: usize,
    /// The panel.
    x: *const u8,
    c: *mut f32,
    c_stride: usize,
    go_on: bool,
    wanted: Wanted,
}

/// Rows of a weight.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct WeightRows<'a> {
    pub(in crate::cpu) bytes: &'a [u8],
    pub(in crate::cpu) stride_bytes: usize,
    /// 32-bit words of k.
    pub(in crate::cpu) words: usize,
}

/// What is wanted after some rows of a weight: as many rows of memory, as they are stored. They are asked for by `calls` calls in
/// turns, of which this is number `call`.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Wanted {
    pub(in crate::cpu) rows: StoredRows,
    pub(in crate::cpu) call: usize,
    pub(in crate::cpu) calls: usize,
}

/// Rows in memory to be asked for, wherever they are.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct StoredRows {
    pub(in crate::cpu) start: *const u8,
    pub(in crate::cpu) stride_bytes: usize,
    /// Bytes of the elements that are multiplied between two times that lines are asked for.
    pub(in crate::cpu) step_bytes: usize,
}

/// What a turned tile writes to: a row of sums for each of the weight, one sum for each row of activations.
pub(in crate::cpu) struct TurnedSums<'a> {
    pub(in crate::cpu) sums: &'a mut [f32],
    pub(in crate::cpu) stride: usize,
    pub(in crate::cpu) mode: Sums,
}

/// Panels of about equal height for some rows of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu) struct Panels {
    pub(in crate::cpu) count: usize,
    /// Rows of each, the last one's perhaps beyond the end.
    pub(in crate::cpu) rows: usize,
}

impl Panels {
    /// 32-bit words of a panel for each word of k: the last half register is there twice.
    pub(in crate::cpu) fn width(&self) -> usize {
        self.rows.next_multiple_of(LANES)
    }

    /// The row that stands at place `i` of a panel's width, counted from the panel's first.
    pub(in crate::cpu) fn row_at(&self, i: usize) -> usize {
        if i < self.rows { i } else { i - HALF }
    }
}

impl TurnedTile {
    /// Panels for so many rows, at least one.
    pub(in crate::cpu) fn panels(&self, rows: usize) -> Panels {
        let halves = rows.div_ceil(HALF).max(LEAST);
        let each = halves.div_ceil(halves.div_ceil(self.kernels.len() + LEAST - 1));
        Panels { count: halves.div_ceil(each), rows: each * HALF }
    }

    fn kernel(&self, panels: Panels) -> &Kernel {
        &self.kernels[panels.rows / HALF - LEAST]
    }

    /// Rows of the weight that a call for such a panel takes.
    pub(in crate::cpu) fn weights(&self, panels: Panels) -> usize {
        self.kernel(panels).weights
    }

    /// Multiplies [`Self::weights`] rows of a weight with a panel of activations.
    pub(in crate::cpu) fn run(
        &self,
        panels: Panels,
        weight: WeightRows<'_>,
        panel: &[u8],
        wanted: Wanted,
        to: TurnedSums<'_>,
    ) {
        let kernel = self.kernel(panels);
        let last = kernel.weights - 1;
        assert!(weight.bytes.len() >= last * weight.stride_bytes + weight.words * 4);
        assert!(panel.len() >= weight.words * panels.width() * 4);
        assert!(to.sums.len() >= last * to.stride + panels.rows);
        let args = Args {
            w: weight.bytes.as_ptr(),
            w_stride_bytes: weight.stride_bytes,
            words: weight.words,
            x: panel.as_ptr(),
            c: to.sums.as_mut_ptr(),
            c_stride: to.stride,
            go_on: to.mode == Sums::GoOn,
            wanted,
        };
        // SAFETY: the slices reach as far as the kernel goes, as just checked; tiles are only in the tables of
        // instruction sets that the processor has.
        unsafe { (kernel.run)(&args) }
    }
}
