//! GroupRotation and rounding of rows to 8 bits, for activations and weights alike.
//!
//! A group of channels is multiplied by a Hadamard matrix: sums and differences of pairs, log2(group) times over. So a
//! channel far larger than the others, which would take all of a row's 255 levels for itself, is spread over its group.
//! The products of two rows that were both rotated are those of the rows themselves.

use super::elementwise::for_lanes;
use super::lanes::{Lanes, Scalar};
use super::rows::Row;
use crate::weight::GroupRotation;
use crate::{DType, Int8Weight};

/// What rounding a row gave.
#[derive(Clone, Copy)]
pub(super) struct Rounded {
    /// The factor from whole numbers back to values; not finite where one of the values is not.
    pub(super) scale: f32,
    /// The sum of the whole numbers.
    pub(super) sum: f32,
}

/// Rows whose largest value is below this are taken as zeros: its inverse has to be finite.
const SMALLEST: f32 = 1e-30;

/// Rotates a row, rounds it to whole numbers from -127 to 127, and stores them as bytes with `zero` added. `rotated` is
/// left with the rotated values, times the root of the rotation's group.
///
/// # Safety
/// The processor has what `L` needs; `rotated` and `to` have the row's length, a multiple of the rotation's group, which is a
/// power of two up to [`Int8Weight::MAX_GROUP`], of fours a power of four up to 256.
#[inline(always)]
pub(super) unsafe fn quantize_row<L: Lanes>(
    x: Row<'_>,
    rotation: GroupRotation,
    rotated: &mut [f32],
    zero: f32,
    to: &mut [u8],
) -> Rounded {
    // SAFETY: the caller's promise.
    unsafe {
        let group = rotation.group();
        let peak = match (rotation, x.dtype()) {
            (GroupRotation::Fours(_), _) => by_fours::<L>(x, group, rotated),
            (_, DType::F32) => rotate::<L>(x.known_as(DType::F32), group, rotated),
            (_, DType::Bf16) => rotate::<L>(x.known_as(DType::Bf16), group, rotated),
            _ => rotate::<L>(x, group, rotated),
        };
        let inverse = L::splat(inverse_step(peak));
        let (zero, rotated, to) = (L::splat(zero), rotated.as_ptr(), (to.as_mut_ptr(), to.len()));
        let mut sum = L::splat(0.0);
        for_lanes!(L, to.1, |i, n| {
            let whole = L::load(rotated.add(i), n).mul(inverse).round();
            sum = sum.add(whole);
            whole.add(zero).store_low_bytes(to.0.add(i), n);
        });
        Rounded { scale: step(peak) * unit(group), sum: sum.sum() }
    }
}

/// From values up to `peak` to whole numbers.
#[inline(always)]
pub(super) fn inverse_step(peak: f32) -> f32 {
    if peak > SMALLEST { f32::from(Int8Weight::LARGEST) / peak } else { 0.0 }
}

/// The way back.
#[inline(always)]
pub(super) fn step(peak: f32) -> f32 {
    peak / f32::from(Int8Weight::LARGEST)
}

/// Sums of squares of a rotated row: of what rounding by `scale` changed, and of the values.
///
/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
pub(super) unsafe fn rounding_squares<L: Lanes>(rotated: &[f32], group: usize, scale: f32) -> [f32; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let unit = L::splat(unit(group));
        let (step, inverse) = (L::splat(scale), L::splat(if scale > 0.0 { 1.0 / scale } else { 0.0 }));
        let (mut changed, mut all) = (L::splat(0.0), L::splat(0.0));
        for_lanes!(L, rotated.len(), |i, n| {
            let v = L::load(rotated.as_ptr().add(i), n).mul(unit);
            let error = v.sub(v.mul(inverse).round().mul(step));
            changed = error.mul_add(error, changed);
            all = v.mul_add(v, all);
        });
        [changed.sum(), all.sum()]
    }
}

/// The factor that makes a Hadamard matrix of ones orthogonal.
#[inline(always)]
pub(super) fn unit(group: usize) -> f32 {
    // Exact: a group is a small power of two.
    1.0 / (super::norm::count(group)).sqrt()
}

/// Writes the rotated row, times the root of `group`; returns its largest magnitude, which is NaN if a value is not
/// finite.
///
/// # Safety
/// As [`quantize_row`].
#[inline(always)]
pub(super) unsafe fn rotate<L: Lanes>(x: Row<'_>, group: usize, to: &mut [f32]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        match group / L::N {
            2 => groups::<L, 2>(x, to),
            4 => groups::<L, 4>(x, to),
            8 => groups::<L, 8>(x, to),
            16 if L::N * 16 <= Int8Weight::MAX_GROUP => groups::<L, 16>(x, to),
            32 if L::N * 32 <= Int8Weight::MAX_GROUP => groups::<L, 32>(x, to),
            64 if L::N * 64 <= Int8Weight::MAX_GROUP => groups::<L, 64>(x, to),
            128 if L::N * 128 <= Int8Weight::MAX_GROUP => groups::<L, 128>(x, to),
            _ if group > 1 && L::N > 1 => rotate::<Scalar>(x, group, to),
            _ => {
                let mut reach = Reach::new();
                for_lanes!(L, x.len(), |i, n| {
                    let v = x.load::<L>(i, n);
                    reach.see(v);
                    v.store(to.as_mut_ptr().add(i), n);
                });
                reach.peak()
            }
        }
    }
}

/// The same for [`GroupRotation::Fours`].
///
/// # Safety
/// As [`quantize_row`].
#[inline(always)]
unsafe fn by_fours<L: Lanes>(x: Row<'_>, group: usize, to: &mut [f32]) -> f32 {
    // SAFETY: the caller's promise: the rows are equally long.
    unsafe {
        for_lanes!(L, x.len(), |i, n| {
            x.load::<L>(i, n).store(to.as_mut_ptr().add(i), n);
        });
        for group in to.chunks_exact_mut(group) {
            fours::<1>(group);
            fours::<4>(group);
            fours::<16>(group);
            fours::<64>(group);
        }
        let mut reach = Reach::new();
        for_lanes!(L, to.len(), |i, n| {
            reach.see(L::load(to.as_ptr().add(i), n));
        });
        reach.peak()
    }
}

/// Multiplies each four elements that are `STRIDE` apart by a Hadamard matrix whose rows have one -1 each, where row and column
/// add up to 3. Of a group that is too small for it, nothing.
#[inline(always)]
fn fours<const STRIDE: usize>(group: &mut [f32]) {
    for four in group.chunks_exact_mut(4 * STRIDE) {
        let (low, high) = four.split_at_mut(2 * STRIDE);
        let ((a, b), (c, d)) = (low.split_at_mut(STRIDE), high.split_at_mut(STRIDE));
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (sum, difference, sum2, difference2) = (*a + *b, *a - *b, *c + *d, *c - *d);
            (*a, *b) = (sum + difference2, sum - difference2);
            (*c, *d) = (sum2 + difference, sum2 - difference);
        }
    }
}

/// Makes signed bytes, taken as unsigned ones, 128 more than they are, and the reverse.
///
/// # Safety
/// The processor has what the caller's target features say.
#[inline(always)]
pub(super) unsafe fn flip(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte ^= Int8Weight::ZERO);
}

/// [`rotate`] for groups of `R` registers.
#[inline(always)]
unsafe fn groups<L: Lanes, const R: usize>(x: Row<'_>, to: &mut [f32]) -> f32 {
    // SAFETY: the caller's promise: rows are whole groups.
    unsafe {
        let mut reach = Reach::new();
        for first in (0..x.len()).step_by(R * L::N) {
            let mut registers = [L::splat(0.0); R];
            for (i, register) in registers.iter_mut().enumerate() {
                *register = x.load(first + i * L::N, L::N);
            }
            registers = hadamard(registers);
            for (i, register) in registers.into_iter().enumerate() {
                reach.see(register);
                register.store(to.as_mut_ptr().add(first + i * L::N), L::N);
            }
        }
        reach.peak()
    }
}

/// The product with a Hadamard matrix of ones. Each round takes sums and differences of neighbours and puts the sums
/// into the first half: the bits of an element's number turn by one place, so after all rounds the order is the old one.
#[inline(always)]
unsafe fn hadamard<L: Lanes, const R: usize>(mut registers: [L; R]) -> [L; R] {
    // SAFETY: the processor has what `L` needs.
    unsafe {
        let mut left = R * L::N;
        while left > 1 {
            let from = registers;
            for i in 0..R / 2 {
                let (even, odd) = L::unzip(from[2 * i], from[2 * i + 1]);
                registers[i] = even.add(odd);
                registers[i + R / 2] = even.sub(odd);
            }
            left /= 2;
        }
        registers
    }
}

/// The smallest and largest value seen.
struct Reach<L> {
    low: L,
    high: L,
    /// 0, or NaN once a value is not finite: comparisons pass over those.
    finite: L,
}

impl<L: Lanes> Reach<L> {
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        let zero = unsafe { L::splat(0.0) };
        Self { low: zero, high: zero, finite: zero }
    }

    #[inline(always)]
    unsafe fn see(&mut self, v: L) {
        // SAFETY: the caller's promise.
        unsafe {
            self.low = self.low.min(v);
            self.high = self.high.max(v);
            self.finite = v.mul_add(L::splat(0.0), self.finite);
        }
    }

    #[inline(always)]
    unsafe fn peak(self) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let lowest = L::splat(0.0).sub(self.low).largest();
            self.high.largest().max(lowest) + self.finite.sum()
        }
    }
}
