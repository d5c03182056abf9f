//! The online softmax of attention: a row of scores at a time, one block of keys after the other.

use super::activation::exp2_down;
use super::elementwise::for_lanes;
use super::lanes::Lanes;
use super::rows::{Row, RowMut};

/// A row's scores against a block of keys.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    /// Scores against the keys that the row sees; may be none.
    pub(super) seen: Row<'a>,
    /// Factor on the scores, times log2(e): weights are powers of two.
    pub(super) scale_log2: f32,
}

/// What a row remembers from one block of keys to the next.
#[derive(Clone, Copy)]
pub(super) struct Running {
    /// The largest scaled score so far.
    max: f32,
    /// The sum of `2^(scaled score - max)` so far.
    sum: f32,
}

impl Running {
    pub(super) const START: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// The factor that makes the weights add up to one; 0 for a row that saw no key.
    pub(super) fn norm(self) -> f32 {
        if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum }
    }
}

/// Writes `2^(scaled score - max)` for the keys that are seen and 0 for those behind; returns the factor that what was
/// summed up before now needs, because the maximum may have grown.
///
/// # Safety
/// The processor has what `L` needs; `to` is at least as long as the scores.
#[inline(always)]
pub(super) unsafe fn softmax_row<L: Lanes>(
    scores: &Scores<'_>,
    running: &mut Running,
    mut to: RowMut<'_>,
) -> f32 {
    let Scores { seen, scale_log2 } = *scores;
    let len = seen.len();
    let whole = len - len % L::N;
    // SAFETY: the caller's promise.
    unsafe {
        let scale = L::splat(scale_log2);
        let mut largest = L::splat(running.max);
        for_lanes!(L, whole, |i, n| { largest = largest.max(seen.load::<L>(i, n).mul(scale)) });
        let mut max = largest.largest();
        for i in whole..len {
            max = max.max(seen.load::<L>(i, 1).mul(scale).first(1).sum());
        }
        let before =
            if running.max == max { 1.0 } else { exp2_down(L::splat(running.max - max)).first(1).sum() };
        let mut sum = L::splat(0.0);
        let minus_max = L::splat(-max);
        for_lanes!(L, whole, |i, n| {
            let weight = exp2_down(seen.load::<L>(i, n).mul_add(scale, minus_max));
            sum = sum.add(weight);
            to.store(i, n, weight);
        });
        if whole < len {
            let n = len - whole;
            let weight = exp2_down(seen.load::<L>(whole, n).mul_add(scale, minus_max)).first(n);
            sum = sum.add(weight);
            to.store(whole, n, weight);
        }
        let behind = to.len() - len;
        for_lanes!(L, behind, |i, n| { to.store(len + i, n, L::splat(0.0)) });
        *running = Running { max, sum: running.sum * before + sum.sum() };
        before
    }
}

/// Multiplies a row in place.
///
/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
pub(super) unsafe fn scale_row<L: Lanes>(factor: f32, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = L::splat(factor);
        for_lanes!(L, to.len(), |i, n| {
            let v = to.load::<L>(i, n).mul(factor);
            to.store(i, n, v);
        });
    }
}

/// `factor * x`
///
/// # Safety
/// The processor has what `L` needs; `x` is at least as long as `to`.
#[inline(always)]
pub(super) unsafe fn scale_to_row<L: Lanes>(x: Row<'_>, factor: f32, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = L::splat(factor);
        for_lanes!(L, to.len(), |i, n| { to.store(i, n, x.load::<L>(i, n).mul(factor)) });
    }
}
