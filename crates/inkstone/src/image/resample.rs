//! Resizing as Pillow does it, to the byte: diffusers prepares pictures with it.
//!
//! # Source
//! `src/libImaging/Resample.c` of Pillow 13: a pass along the rows and one along the columns, both rounded to bytes,
//! with weights of 22 fractional bits. Which pass is first changes last bits; before version 13 it was always the rows.

use inkstone_tensor::with_room;

use super::Pixels;
use crate::request::Size;
use crate::{Error, Result};

/// Samples of a pixel.
const CHANNELS: usize = 3;
/// Fractional bits of a weight: 32 less 8 for the sample and 2 for sums beyond 255.
const WEIGHT_BITS: u32 = 22;
/// What an allocation takes beside its bytes, rounded up.
const ALLOCATION_BYTES: usize = 32;
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
    let from = Size { width_px: picture.width_px, height_px: picture.height_px };
    let to = Size { width_px, height_px };
    check_size(from, to)?;
    if picture.rgb.len() != CHANNELS * picture.width_px * picture.height_px {
        let (param, got) = ("image", format!("{} bytes", picture.rgb.len()));
        let allowed = format!("3 bytes for each of {} x {} pixels", picture.width_px, picture.height_px);
        return Err(Error::InvalidParam { param, got, allowed });
    }
    if from == to {
        return Ok(picture.clone());
    }
    let mut resizer = Resizer::new(from, to, filter)?;
    picture.rgb.chunks_exact(CHANNELS * picture.width_px).for_each(|row| resizer.push(row));
    Ok(resizer.finish())
}

/// Resizes a picture that comes row by row: of what comes, no more rows are kept than a row of the result is made of.
///
/// The result is [`resize_with`]'s.
pub(crate) struct Resizer {
    rows: Option<Weights>,
    columns: Option<Weights>,
    columns_first: bool,
    /// Bytes of a row that waits for its column pass.
    stride: usize,
    /// The last rows, each at its number modulo how many there is room for.
    waiting: Vec<u8>,
    seen: usize,
    sums: Vec<i32>,
    summed: Vec<u8>,
    result: Pixels,
}

impl Resizer {
    /// For a picture of a size, and the size of the result.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a side of 0 or above 16,384 px; [`crate::Error::Tensor`] without memory.
    pub(crate) fn new(from: Size, to: Size, filter: Filter) -> Result<Self> {
        check_size(from, to)?;
        let weights = |from, to| (from != to).then(|| Weights::new(filter, from, to));
        let (rows, columns) = (weights(from.width_px, to.width_px), weights(from.height_px, to.height_px));
        let columns_first = columns_first(from, to);
        let stride = CHANNELS * if columns_first { from.width_px } else { to.width_px };
        let waiting = columns.as_ref().map_or(0, |weights| stride * weights.longest());
        let mut room = with_room(waiting)?;
        room.resize(waiting, 0);
        let rgb = with_room(CHANNELS * to.width_px * to.height_px)?;
        Ok(Self {
            sums: vec![HALF; stride],
            summed: vec![0; stride],
            rows,
            columns,
            columns_first,
            stride,
            waiting: room,
            seen: 0,
            result: Pixels { width_px: to.width_px, height_px: 0, rgb },
        })
    }

    /// The bytes that resizing takes, its result counted.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] as [`Self::new`].
    pub(crate) fn bytes(from: Size, to: Size, filter: Filter) -> Result<usize> {
        check_size(from, to)?;
        let stride = CHANNELS * if columns_first(from, to) { from.width_px } else { to.width_px };
        let longest = |from: usize, to: usize| {
            let stretch = (from as f64 / to as f64).max(1.0);
            index(2.0 * filter.support() * stretch) + 2
        };
        let weights = |from, to| to * (4 * longest(from, to) + size_of::<Span>() + ALLOCATION_BYTES);
        let waiting =
            stride * (longest(from.height_px, to.height_px).min(from.height_px) + size_of::<i32>() + 1);
        let result = CHANNELS * to.width_px * to.height_px;
        Ok(waiting + result + weights(from.width_px, to.width_px) + weights(from.height_px, to.height_px))
    }

    /// Takes the next row from the top, 3 bytes for each pixel.
    pub(crate) fn push(&mut self, row: &[u8]) {
        let (number, stride) = (self.seen, self.stride);
        self.seen += 1;
        let Some(columns) = &self.columns else {
            append(&mut self.result, row, self.rows.as_ref());
            return;
        };
        let room = self.waiting.len() / stride;
        let place = &mut self.waiting[number % room * stride..][..stride];
        match &self.rows {
            Some(rows) if !self.columns_first => along_row(row, rows, place),
            _ => place.copy_from_slice(row),
        }
        let rows = self.rows.as_ref().filter(|_| self.columns_first);
        while let Some(span) = columns.spans.get(self.result.height_px).filter(|span| span.end() <= self.seen)
        {
            self.sums.fill(HALF);
            for (row, weight) in (span.first..).zip(&span.weights) {
                let row = &self.waiting[row % room * stride..][..stride];
                for (sum, sample) in self.sums.iter_mut().zip(row) {
                    *sum += weight * i32::from(*sample);
                }
            }
            for (sample, sum) in self.summed.iter_mut().zip(&self.sums) {
                *sample = byte(*sum);
            }
            append(&mut self.result, &self.summed, rows);
        }
    }

    /// The picture, when all rows were given.
    pub(crate) fn finish(self) -> Pixels {
        self.result
    }
}

/// Whether Pillow shrinks the height before it touches the width: when it loses more than twice what the width does.
/// Found by comparing 5,000 sizes.
fn columns_first(from: Size, to: Size) -> bool {
    let lost_px = from.height_px.saturating_sub(to.height_px);
    lost_px > 2 * from.width_px.saturating_sub(to.width_px)
}

fn check_size(from: Size, to: Size) -> Result<()> {
    check_side("width", to.width_px)?;
    check_side("height", to.height_px)?;
    check_side("image", from.width_px)?;
    check_side("image", from.height_px)
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

impl Span {
    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
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

    /// The most samples that one of the result is made of.
    fn longest(&self) -> usize {
        self.spans.iter().map(|span| span.weights.len()).max().unwrap_or(0)
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

/// Adds a row to a picture, resized if there are weights for that.
fn append(picture: &mut Pixels, row: &[u8], weights: Option<&Weights>) {
    match weights {
        Some(weights) => {
            let start = picture.rgb.len();
            picture.rgb.resize(start + CHANNELS * picture.width_px, 0);
            along_row(row, weights, &mut picture.rgb[start..]);
        }
        None => picture.rgb.extend_from_slice(row),
    }
    picture.height_px += 1;
}

fn along_row(row: &[u8], weights: &Weights, result: &mut [u8]) {
    for (span, pixel) in weights.spans.iter().zip(result.chunks_exact_mut(CHANNELS)) {
        let mut sums = [HALF; CHANNELS];
        for (pixel, weight) in row[CHANNELS * span.first..].chunks_exact(CHANNELS).zip(&span.weights) {
            for (sum, sample) in sums.iter_mut().zip(pixel) {
                *sum += weight * i32::from(*sample);
            }
        }
        pixel.copy_from_slice(&sums.map(byte));
    }
}

#[cfg(test)]
mod tests;
