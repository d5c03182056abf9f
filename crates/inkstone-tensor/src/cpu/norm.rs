//! Norms over rows.

use super::Cpu;
use super::activation;
use super::elementwise::{for_lanes, known_types, sum_lanes};
use super::lanes::Lanes;
use super::rows::{Matrix, MatrixMut, Row, RowMut, RowsMut, assert_cols};
use crate::ops::{Activation, ChannelNorm, LayerNorm, RmsNorm};
use crate::{DType, Result, Tensor};

/// Elements a thread handles in about a nanosecond, on the slow side.
const PER_NS: usize = 2;
/// Pixels of a job.
const PIXELS: usize = 64;

pub(super) fn layer_norm(cpu: &Cpu, args: &LayerNorm<'_>, out: &mut Tensor) -> Result<()> {
    let (x, to) = (Matrix::of(args.x), MatrixMut::of(out));
    let (scale, shift) = (Matrix::of(&args.scale.table), Matrix::of(&args.shift.table));
    let cols = x.cols();
    assert_cols(cols, &[scale.cols(), shift.cols(), to.cols()]);
    cpu.threads.rows(x.rows(), cols.div_ceil(PER_NS), |r| {
        let (scale, shift) = (scale.row(args.scale.entry_of(r)), shift.row(args.shift.entry_of(r)));
        // SAFETY: each row is one job's; all are of `cols` elements.
        unsafe { (cpu.table.rows.layer_norm)(x.row(r), args.eps, scale, shift, to.part(r, 0..cols)) }
    })
}

pub(super) fn rms_norm(cpu: &Cpu, args: &RmsNorm<'_>, out: &mut Tensor) -> Result<()> {
    let (x, to) = (Matrix::of(args.x), MatrixMut::of(out));
    let weight = Matrix::of(args.weight).row(0);
    let cols = x.cols();
    assert_cols(cols, &[weight.len(), to.cols()]);
    cpu.threads.rows(x.rows(), cols.div_ceil(PER_NS), |r| {
        // SAFETY: each row is one job's; all are of `cols` elements.
        unsafe { (cpu.table.rows.rms_norm)(x.row(r), weight, args.eps, to.part(r, 0..cols)) }
    })
}

pub(super) fn channel_norm(cpu: &Cpu, args: &ChannelNorm<'_>, out: &mut Tensor) -> Result<()> {
    let (x, to) = (Matrix::of(args.x), MatrixMut::of(out));
    let gamma = Matrix::of(args.gamma).row(0);
    let cols = x.cols();
    assert_cols(cols, &[gamma.len(), to.cols()]);
    let (all, activation) = (x.rows(), args.activation);
    cpu.threads.run(all.div_ceil(PIXELS), all * cols.div_ceil(PER_NS), |i| {
        let rows = i * PIXELS..all.min((i + 1) * PIXELS);
        let pixels = NormedPixels { pixels: x, first: rows.start, gamma, activation };
        // SAFETY: each row is one job's; all are of `cols` elements.
        unsafe { (cpu.table.rows.channel_norm)(pixels, to.rows_part(rows, 0..cols)) }
    })
}

/// # Safety
/// The processor has what `L` needs, and the rows are equally long.
#[inline(always)]
pub(super) unsafe fn layer_norm_row<L: Lanes>(
    x: Row<'_>,
    eps: f32,
    scale: Row<'_>,
    shift: Row<'_>,
    to: RowMut<'_>,
) {
    let (scale, shift) = (scale.known_as(DType::F32), shift.known_as(DType::F32));
    // SAFETY: the caller's promise.
    unsafe { known_types!(x, to, |x, to| layer_norm_of::<L>(x, eps, scale, shift, to)) }
}

#[inline(always)]
unsafe fn layer_norm_of<L: Lanes>(x: Row<'_>, eps: f32, scale: Row<'_>, shift: Row<'_>, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        // Mean first, then squares of what is left: residuals of 5e7 leave nothing of E[x^2] - E[x]^2.
        let count = count(to.len());
        let sum = sum_lanes!(L, to.len(), |i, n, sum| {
            x.fetch_next::<L>(i, [0, 3]);
            sum.add(x.load(i, n))
        });
        let mean = L::splat(sum / count);
        let squares = sum_lanes!(L, to.len(), |i, n, sum| {
            x.fetch_next::<L>(i, [1, 3]);
            let d = x.load::<L>(i, n).sub(mean).first(n);
            d.mul_add(d, sum)
        });
        let factor = L::splat(1.0 / (squares / count + eps).sqrt());
        for_lanes!(L, to.len(), |i, n| {
            x.fetch_next::<L>(i, [2, 3]);
            let normal = x.load::<L>(i, n).sub(mean).mul(factor);
            let scale = scale.load::<L>(i, n).add(L::splat(1.0));
            to.store(i, n, normal.mul_add(scale, shift.load(i, n)));
        });
    }
}

/// # Safety
/// As [`layer_norm_row`].
#[inline(always)]
pub(super) unsafe fn rms_norm_row<L: Lanes>(x: Row<'_>, weight: Row<'_>, eps: f32, to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe { known_types!(x, to, |x, to| rms_norm_of::<L>(x, weight, eps, to)) }
}

#[inline(always)]
unsafe fn rms_norm_of<L: Lanes>(x: Row<'_>, weight: Row<'_>, eps: f32, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = L::splat(1.0 / (sum_of_squares::<L>(x) / count(to.len()) + eps).sqrt());
        for_lanes!(L, to.len(), |i, n| {
            x.fetch_next::<L>(i, [0, 1]);
            to.store(i, n, x.load::<L>(i, n).mul(factor).mul(weight.load(i, n)));
        });
    }
}

/// Pixels that follow each other, and the factors and the function of their norm.
#[derive(Clone, Copy)]
pub(super) struct NormedPixels<'a> {
    pub(super) pixels: Matrix<'a>,
    /// The first of them.
    pub(super) first: usize,
    pub(super) gamma: Row<'a>,
    pub(super) activation: Activation,
}

/// As many pixels as `to` has rows.
///
/// # Safety
/// The processor has what `L` needs; pixels, factors and rows are equally long, and the pixels are in the matrix.
#[inline(always)]
pub(super) unsafe fn channel_norm_rows<L: Lanes>(x: NormedPixels<'_>, to: RowsMut<'_>) {
    use DType::{Bf16, F32};
    // SAFETY: the caller's promise. A loop for each of what nearly all pictures are: see `convert_row`.
    unsafe {
        match (x.activation, x.pixels.dtype(), to.dtype()) {
            (Activation::Silu, Bf16, Bf16) => channel_norm_of::<L>(x, Activation::Silu, [Bf16; 2], to),
            (Activation::Silu, F32, F32) => channel_norm_of::<L>(x, Activation::Silu, [F32; 2], to),
            (activation, from, dtype) => channel_norm_of::<L>(x, activation, [from, dtype], to),
        }
    }
}

#[inline(always)]
unsafe fn channel_norm_of<L: Lanes>(
    x: NormedPixels<'_>,
    activation: Activation,
    [from, dtype]: [DType; 2],
    mut to: RowsMut<'_>,
) {
    /// Pixels whose factors are found together, so that none waits for the root and the quotient of the one before.
    const TOGETHER: usize = 8;
    let gamma = x.gamma.known_as(DType::F32);
    let pixel = |i| x.pixels.row(i).known_as(from);
    let last = x.first + to.len();
    for first in (x.first..last).step_by(TOGETHER) {
        let mut factors = [0.0; TOGETHER];
        let factors = &mut factors[..TOGETHER.min(last - first)];
        // SAFETY: the caller's promise.
        unsafe {
            for (i, factor) in factors.iter_mut().enumerate() {
                *factor = channel_factor::<L>(pixel(first + i));
            }
            for (i, (factor, to)) in factors.iter().zip(to.by_ref()).enumerate() {
                let (x, mut to, factor) = (pixel(first + i), to.known_as(dtype), L::splat(*factor));
                for_lanes!(L, to.len(), |i, n| {
                    let normal = x.load::<L>(i, n).mul(factor).mul(gamma.load(i, n));
                    to.store(i, n, activation::apply(activation, normal));
                });
            }
        }
    }
}

/// What the channel norm multiplies a pixel by.
///
/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
pub(super) unsafe fn channel_factor<L: Lanes>(x: Row<'_>) -> f32 {
    /// The smallest length that is divided by: `F.normalize`'s default.
    const MIN_LENGTH: f32 = 1e-12;
    // SAFETY: the caller's promise.
    let length = unsafe { sum_of_squares::<L>(x) }.sqrt().max(MIN_LENGTH);
    count(x.len()).sqrt() / length
}

/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
pub(super) unsafe fn sum_of_squares<L: Lanes>(x: Row<'_>) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        sum_lanes!(L, x.len(), |i, n, sum| {
            let v = x.load::<L>(i, n);
            v.mul_add(v, sum)
        })
    }
}

/// A length as a divisor; rows are far shorter than the 2^24 that f32 counts exactly.
#[inline(always)]
#[allow(clippy::cast_precision_loss)]
pub(super) fn count(len: usize) -> f32 {
    len as f32
}
