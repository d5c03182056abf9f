//! A line of pixels on its way to 8 bits: a norm where there is one, rotation, rounding by the line's largest value.
//!
//! As [`super::rotate`] does with rows of tokens. Here all pixels of a line share a scale, so the line is rotated first
//! and rounded when its largest value is known.

use super::elementwise::for_lanes;
use super::lanes::Lanes;
use super::rotate::rotate_pairs;
use super::rows::{Matrix, Row};
use super::{activation, norm};
use crate::DType::{self, Bf16, F32};
use crate::ops::Activation;

/// Pixels that follow each other, and what is done to them.
pub(super) struct PixelLine<'a> {
    pub(super) pixels: Matrix<'a>,
    /// The first of them.
    pub(super) first: usize,
    /// The norm's factors, and the function behind it.
    pub(super) norm: Option<(Row<'a>, Activation)>,
    /// How many channels are rotated together.
    pub(super) group: usize,
}

/// Where the bytes of a line go.
pub(super) struct RoundedPixels<'a> {
    /// The pixels, `pixel_bytes` apart.
    pub(super) bytes: &'a mut [u8],
    pub(super) pixel_bytes: usize,
    pub(super) channels: usize,
    /// The sum of each pixel's whole numbers.
    pub(super) sums: &'a mut [f32],
}

/// Rotates as many pixels as `to` has room for, times the root of the group. Returns the largest magnitude, NaN if a
/// value is not finite. `pixel` is room for one.
///
/// # Safety
/// The processor has what `L` needs. `pixel` has the length of a pixel, a multiple of the group, and so has the norm;
/// the pixels are in the matrix.
#[inline(always)]
pub(super) unsafe fn rotate_pixels<L: Lanes>(line: &PixelLine<'_>, pixel: &mut [f32], to: &mut [f32]) -> f32 {
    // SAFETY: the caller's promise. A loop for each of what nearly all lines are: see `convert_row`.
    unsafe {
        match (line.pixels.dtype(), line.norm) {
            (Bf16, None) => plain::<L>(line, Bf16, to),
            (dtype, None) => plain::<L>(line, dtype, to),
            (Bf16, Some((gamma, Activation::Silu))) => {
                normalized::<L>(line, Bf16, (gamma.known_as(F32), Activation::Silu), pixel, to)
            }
            (dtype, Some((gamma, activation))) => {
                normalized::<L>(line, dtype, (gamma.known_as(F32), activation), pixel, to)
            }
        }
    }
}

#[inline(always)]
unsafe fn plain<L: Lanes>(line: &PixelLine<'_>, dtype: DType, to: &mut [f32]) -> f32 {
    let mut peak = Peak::default();
    for (i, to) in to.chunks_exact_mut(line.pixels.cols()).enumerate() {
        let x = line.pixels.row(line.first + i).known_as(dtype);
        // SAFETY: the caller's promise.
        peak.see(unsafe { rotate_pairs::<L>(x, line.group, to) });
    }
    peak.get()
}

#[inline(always)]
unsafe fn normalized<L: Lanes>(
    line: &PixelLine<'_>,
    dtype: DType,
    (gamma, activation): (Row<'_>, Activation),
    pixel: &mut [f32],
    to: &mut [f32],
) -> f32 {
    let mut peak = Peak::default();
    for (i, to) in to.chunks_exact_mut(line.pixels.cols()).enumerate() {
        let x = line.pixels.row(line.first + i).known_as(dtype);
        // SAFETY: the caller's promise.
        unsafe {
            let factor = L::splat(norm::channel_factor::<L>(x));
            for_lanes!(L, x.len(), |i, n| {
                let normal = x.load::<L>(i, n).mul(factor).mul(gamma.load(i, n));
                activation::apply(activation, normal).store(pixel.as_mut_ptr().add(i), n);
            });
            peak.see(rotate_pairs::<L>(Row::f32s(pixel).known_as(F32), line.group, to));
        }
    }
    peak.get()
}

/// The largest of values that may be NaN.
#[derive(Default)]
struct Peak {
    largest: f32,
    /// 0, or NaN once one was.
    finite: f32,
}

impl Peak {
    #[inline(always)]
    fn see(&mut self, v: f32) {
        self.largest = self.largest.max(v);
        self.finite += v * 0.0;
    }

    #[inline(always)]
    fn get(&self) -> f32 {
        self.largest + self.finite
    }
}

/// Rounds rotated pixels, times a factor, to whole numbers from -127 to 127; zeros behind each one's channels.
///
/// # Safety
/// The processor has what `L` needs; `rotated` has all channels of as many pixels as there are sums, and so have the
/// bytes.
#[inline(always)]
pub(super) unsafe fn round_pixels<L: Lanes>(rotated: &[f32], factor: f32, to: RoundedPixels<'_>) {
    let RoundedPixels { bytes, pixel_bytes, channels, sums } = to;
    // SAFETY: the caller's promise.
    unsafe {
        let factor = L::splat(factor);
        for ((x, to), all) in
            rotated.chunks_exact(channels).zip(bytes.chunks_exact_mut(pixel_bytes)).zip(sums)
        {
            let (to, behind) = to.split_at_mut(channels);
            behind.fill(0);
            let mut sum = L::splat(0.0);
            for_lanes!(L, channels, |i, n| {
                let whole = L::load(x.as_ptr().add(i), n).mul(factor).round();
                sum = sum.add(whole);
                whole.store_low_bytes(to.as_mut_ptr().add(i), n);
            });
            *all = sum.sum();
        }
    }
}
