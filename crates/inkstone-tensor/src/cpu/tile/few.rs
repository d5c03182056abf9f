//! Tiles of products of few rows: 16 decoded rows of a weight times up to 8 rows of activations.
//!
//! Words are exchanged with rows in registers: a register then holds one word of all 16 rows, as a panel would, and is
//! multiplied by that word of each row of activations. Where bf16 is widened to f32, a square goes through the L1 cache
//! instead, on every instruction set the same way. Sums run over k as in [`super::Tile`]: they are the same bits.

#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) mod avx512;

use super::turned::{StoredRows, WeightRows};
use super::{Operand, Sums};
use crate::DType;
#[cfg(target_arch = "x86_64")]
use crate::cpu::lanes::Lanes;

/// Rows of the weight, and words of k in a square.
pub(in crate::cpu) const WEIGHTS: usize = 16;
/// Bytes of a square's row.
const SQUARE_BYTES: usize = WEIGHTS * 4;

/// A register tile for few rows.
pub(in crate::cpu) struct FewTile {
    /// The type in which it wants the activations: words of the weight are two bf16 in any case.
    pub(in crate::cpu) work: DType,
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
        assert!(x.bytes.len() >= (rows - 1) * x.stride_bytes + weight.words * 2 * self.work.size_bytes());
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

/// Activations of f32, as many as the weight's words have bf16.
///
/// # Safety
/// The processor has what `L` needs, and [`FewTile::run`] checked the lengths.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn widened<L: Lanes, const ROWS: usize>(args: &Args) {
    #[repr(align(64))]
    struct Square([f32; 2 * WEIGHTS * WEIGHTS]);
    let mut square = Square([0.0; 2 * WEIGHTS * WEIGHTS]);
    let pitch = L::N * 4;
    // SAFETY: C, the activations and the weight, whole squares of it, reach as far as these loops go, by the contract; a square
    // of the lanes' size fits `square`. Any address may be asked for.
    unsafe {
        for first in (0..WEIGHTS).step_by(L::N) {
            let c = |r: usize| args.c.add(r * args.c_stride + first);
            let mut sums = [L::splat(0.0); ROWS];
            if args.go_on {
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = L::load(c(r), L::N);
                }
            }
            let weights = args.w.add(first * args.w_stride_bytes);
            let wanted = args.ahead.start.wrapping_add(first * args.ahead.stride_bytes);
            for word in (0..args.words).step_by(L::N) {
                if word % WEIGHTS == 0 {
                    let wanted = wanted.wrapping_add(word / WEIGHTS * args.ahead.step_bytes);
                    for row in 0..L::N {
                        L::fetch(wanted.wrapping_add(row * args.ahead.stride_bytes));
                    }
                }
                let from = weights.add(word * 4);
                let to = square.0.as_mut_ptr();
                L::transpose_widened(from, args.w_stride_bytes, to.cast(), pitch, from);
                let x = args.x.add(2 * word * 4);
                for k in 0..2 * L::N.min(args.words - word) {
                    let column = L::load(to.add(k * L::N), L::N);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = x.add(r * args.x_stride_bytes + k * 4).cast::<f32>();
                        *sums = L::splat(x.read_unaligned()).mul_add(column, *sums);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                sums.store(c(r), L::N);
            }
        }
    }
}

/// [`widened`] for 1 to 8 rows, for one kind of lanes.
#[cfg(target_arch = "x86_64")]
macro_rules! widened_tile {
    ($lanes:ty, $features:literal) => {{
        #[target_feature(enable = $features)]
        unsafe fn run<const ROWS: usize>(args: &super::Args) {
            // SAFETY: the caller's promise.
            unsafe { super::widened::<$lanes, ROWS>(args) }
        }
        super::FewTile {
            work: crate::DType::F32,
            kernels: &[run::<1>, run::<2>, run::<3>, run::<4>, run::<5>, run::<6>, run::<7>, run::<8>],
        }
    }};
}
#[cfg(target_arch = "x86_64")]
use widened_tile;

const _: () = assert!(SQUARE_BYTES == 64, "a line of a row of a square");
