//! Rotation of rows, and rounding to 8 bits, for activations and weights alike.
//!
//! A group of channels is multiplied by a Hadamard matrix: sums and differences of pairs, log2(group) times over. So a
//! channel far larger than the others, which would take all of a row's 255 levels for itself, is spread over its group.
//! The products of two rows that were both rotated are those of the rows themselves.

use super::elementwise::for_lanes;
use super::lanes::{Lanes, Scalar};
use super::rows::{Row, RowMut};
use crate::quant::MAX_GROUP;
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
            (GroupRotation::Fours(_), DType::F32) => {
                rotate::<L, true>(x.known_as(DType::F32), group, 1.0, RowMut::f32s(rotated))
            }
            (GroupRotation::Fours(_), _) => rotate::<L, true>(x, group, 1.0, RowMut::f32s(rotated)),
            (_, DType::F32) => rotate_pairs::<L>(x.known_as(DType::F32), group, rotated),
            (_, DType::Bf16) => rotate_pairs::<L>(x.known_as(DType::Bf16), group, rotated),
            _ => rotate_pairs::<L>(x, group, rotated),
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

/// Rotates a row of bf16 by [`GroupRotation::Fours`].
///
/// # Safety
/// As [`quantize_row`]; `to` has the row's length and is of bf16.
#[inline(always)]
pub(super) unsafe fn rotate_row<L: Lanes>(x: Row<'_>, group: usize, to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        rotate::<L, true>(x.known_as(DType::Bf16), group, unit(group), to.known_as(DType::Bf16));
    }
}

/// Writes the row rotated by [`GroupRotation::Pairs`], times the root of `group`; returns its largest magnitude, which is NaN if
/// a value is not finite.
///
/// # Safety
/// As [`quantize_row`].
#[inline(always)]
pub(super) unsafe fn rotate_pairs<L: Lanes>(x: Row<'_>, group: usize, to: &mut [f32]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { rotate::<L, false>(x, group, 1.0, RowMut::f32s(to)) }
}

/// Writes the row rotated by pairs or by `FOURS`, times the root of `group` and `factor`; returns the largest magnitude before
/// this factor.
///
/// # Safety
/// As [`quantize_row`].
#[inline(always)]
unsafe fn rotate<L: Lanes, const FOURS: bool>(
    x: Row<'_>,
    group: usize,
    factor: f32,
    mut to: RowMut<'_>,
) -> f32 {
    let most = if FOURS { MAX_GROUP } else { Int8Weight::MAX_GROUP };
    // SAFETY: the caller's promise.
    unsafe {
        match group / L::N {
            2 if !FOURS => groups::<L, 2, FOURS>(x, factor, to),
            4 => groups::<L, 4, FOURS>(x, factor, to),
            8 => groups::<L, 8, FOURS>(x, factor, to),
            16 if L::N * 16 <= most => groups::<L, 16, FOURS>(x, factor, to),
            32 if L::N * 32 <= most => groups::<L, 32, FOURS>(x, factor, to),
            64 if L::N * 64 <= most => groups::<L, 64, FOURS>(x, factor, to),
            128 if L::N * 128 <= most => groups::<L, 128, FOURS>(x, factor, to),
            256 if L::N * 256 <= most => groups::<L, 256, FOURS>(x, factor, to),
            _ if group > 1 && L::N > 1 => rotate::<Scalar, FOURS>(x, group, factor, to),
            _ => {
                let mut reach = Reach::new();
                for_lanes!(L, x.len(), |i, n| {
                    let v = x.load::<L>(i, n);
                    reach.see(v);
                    to.store(i, n, v.mul(L::splat(factor)));
                });
                reach.peak()
            }
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
unsafe fn groups<L: Lanes, const R: usize, const FOURS: bool>(
    x: Row<'_>,
    factor: f32,
    mut to: RowMut<'_>,
) -> f32 {
    // SAFETY: the caller's promise: rows are whole groups.
    unsafe {
        let (mut reach, factor) = (Reach::new(), L::splat(factor));
        for first in (0..x.len()).step_by(R * L::N) {
            let mut registers = [L::splat(0.0); R];
            for (i, register) in registers.iter_mut().enumerate() {
                *register = x.load(first + i * L::N, L::N);
            }
            registers = if FOURS { fours(registers) } else { hadamard(registers) };
            for (i, register) in registers.into_iter().enumerate() {
                reach.see(register);
                to.store(first + i * L::N, L::N, register.mul(factor));
            }
        }
        reach.peak()
    }
}

/// The product with a Kronecker power of the Hadamard matrix of order 4 whose rows have one -1 each, where row and column add up
/// to 3. Each round multiplies fours of neighbours and puts the first ones into the first quarter: the digits of base 4 of an
/// element's number turn by one place.
#[inline(always)]
unsafe fn fours<L: Lanes, const R: usize>(mut registers: [L; R]) -> [L; R] {
    // SAFETY: the processor has what `L` needs.
    unsafe {
        let mut left = R * L::N;
        while left > 1 {
            let from = registers;
            for i in 0..R / 4 {
                let (even, odd) = L::unzip(from[4 * i], from[4 * i + 1]);
                let (even2, odd2) = L::unzip(from[4 * i + 2], from[4 * i + 3]);
                let ((a, c), (b, d)) = (L::unzip(even, even2), L::unzip(odd, odd2));
                let (sum, difference, sum2, difference2) = (a.add(b), a.sub(b), c.add(d), c.sub(d));
                registers[i] = sum.add(difference2);
                registers[i + R / 4] = sum.sub(difference2);
                registers[i + R / 2] = sum2.add(difference);
                registers[i + R / 4 * 3] = sum2.sub(difference);
            }
            left /= 4;
        }
        registers
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
