//! Resizing as Pillow does it, to the byte: diffusers prepares pictures with it.
//!
//! # Source
//! `src/libImaging/Resample.c` of Pillow 13: a pass along the rows and one along the columns, both rounded to bytes,
//! with weights of 22 fractional bits. Which pass is first changes last bits; before version 13 it was always the rows.

use super::Pixels;
use crate::{Error, Result};

/// Samples of a pixel.
const CHANNELS: usize = 3;
/// Fractional bits of a weight: 32 less 8 for the sample and 2 for sums beyond 255.
const WEIGHT_BITS: u32 = 22;
/// Longest side of a result: that of the largest picture that is read.
const MAX_SIDE_PX: usize = 16_384;

/// How samples are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A windowed sinc over three samples on each side.
    Lanczos,
    /// Keys' cubic with a = -0.5, over two samples on each side.
    Bicubic,
}

impl Filter {
    const fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bicubic if x.abs() < 1.0 => (1.5 * x.abs() - 2.5) * x * x + 1.0,
            Self::Bicubic if x.abs() < 2.0 => (((x.abs() - 5.0) * x.abs() + 8.0) * x.abs() - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// A picture of another size, with [`Filter::Lanczos`].
///
/// # Errors
/// [`Error::InvalidParam`] for a side of 0 or above 16,384 px, and for pixels that are not of their picture's size.
pub fn resize(picture: &Pixels, width_px: usize, height_px: usize) -> Result<Pixels> {
    resize_with(picture, width_px, height_px, Filter::Lanczos)
}

/// A picture of another size.
///
/// # Errors
/// As [`resize`].
pub fn resize_with(picture: &Pixels, width_px: usize, height_px: usize, filter: Filter) -> Result<Pixels> {
    for (what, side) in [("width", width_px), ("height", height_px)] {
        check_side(what, side)?;
    }
    check_side("image", picture.width_px)?;
    check_side("image", picture.height_px)?;
    if picture.rgb.len() != CHANNELS * picture.width_px * picture.height_px {
        let (param, got) = ("image", format!("{} bytes", picture.rgb.len()));
        let allowed = format!("3 bytes for each of {} x {} pixels", picture.width_px, picture.height_px);
        return Err(Error::InvalidParam { param, got, allowed });
    }
    let rows = |picture: &Pixels| along_rows(picture, &Weights::new(filter, picture.width_px, width_px));
    let columns =
        |picture: &Pixels| along_columns(picture, &Weights::new(filter, picture.height_px, height_px));
    Ok(match (width_px == picture.width_px, height_px == picture.height_px) {
        (true, true) => picture.clone(),
        (true, false) => columns(picture),
        (false, true) => rows(picture),
        (false, false) if columns_first(picture, width_px, height_px) => rows(&columns(picture)),
        (false, false) => columns(&rows(picture)),
    })
}

/// Whether Pillow shrinks the height before it touches the width: when it loses more than twice what the width does.
/// Found by comparing 5,000 sizes.
fn columns_first(from: &Pixels, width_px: usize, height_px: usize) -> bool {
    let lost_px = from.height_px.saturating_sub(height_px);
    lost_px > 2 * from.width_px.saturating_sub(width_px)
}

fn check_side(param: &'static str, side: usize) -> Result<()> {
    if (1..=MAX_SIDE_PX).contains(&side) {
        return Ok(());
    }
    Err(Error::InvalidParam {
        param,
        got: side.to_string(),
        allowed: format!("1 to {MAX_SIDE_PX} px a side"),
    })
}

/// For each sample of the result, which samples it is made of.
struct Weights {
    spans: Vec<Span>,
}

struct Span {
    first: usize,
    weights: Vec<i32>,
}

impl Weights {
    fn new(filter: Filter, from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        // When shrinking, the filter widens to cover every sample.
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let span = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            let first = index(centre - support + 0.5);
            let end = index(centre + support + 0.5).min(from);
            let raw: Vec<f64> =
                (first..end).map(|j| filter.weight((j as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = raw.iter().sum();
            let weights = raw.iter().map(|w| fixed(if sum == 0.0 { *w } else { w / sum })).collect();
            Span { first, weights }
        };
        Self { spans: (0..to).map(span).collect() }
    }
}

/// Cut to a whole number; below 0 it is 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // cutting is meant; sides are small
fn index(position: f64) -> usize {
    position as usize
}

/// A weight in fixed point, rounded away from 0 at halves.
#[allow(clippy::cast_possible_truncation)] // weights are below 4 in magnitude
fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << WEIGHT_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// A sum of weighted samples, rounded and brought into a byte's range.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
fn byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (WEIGHT_BITS - 1);

fn along_rows(picture: &Pixels, weights: &Weights) -> Pixels {
    let width_px = weights.spans.len();
    let mut rgb = Vec::with_capacity(CHANNELS * width_px * picture.height_px);
    for row in picture.rgb.chunks_exact(CHANNELS * picture.width_px) {
        for span in &weights.spans {
            let mut sums = [HALF; CHANNELS];
            for (pixel, weight) in row[CHANNELS * span.first..].chunks_exact(CHANNELS).zip(&span.weights) {
                for (sum, sample) in sums.iter_mut().zip(pixel) {
                    *sum += weight * i32::from(*sample);
                }
            }
            rgb.extend(sums.map(byte));
        }
    }
    Pixels { width_px, height_px: picture.height_px, rgb }
}

fn along_columns(picture: &Pixels, weights: &Weights) -> Pixels {
    let stride = CHANNELS * picture.width_px;
    let mut rgb = Vec::with_capacity(stride * weights.spans.len());
    let mut sums = vec![HALF; stride];
    for span in &weights.spans {
        sums.fill(HALF);
        for (row, weight) in picture.rgb.chunks_exact(stride).skip(span.first).zip(&span.weights) {
            for (sum, sample) in sums.iter_mut().zip(row) {
                *sum += weight * i32::from(*sample);
            }
        }
        rgb.extend(sums.iter().map(|sum| byte(*sum)));
    }
    Pixels { width_px: picture.width_px, height_px: weights.spans.len(), rgb }
}

#[cfg(test)]
mod tests;
