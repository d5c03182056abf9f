//! Rotation tables: an angle for each token and each pair of a head.

use inkstone_tensor::ops::{Rope, RopeLayout};
use inkstone_tensor::{Device, Shape, Tensor};

use crate::Result;

/// A picture in a sequence, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows of tokens.
    pub height: usize,
    /// Columns of tokens.
    pub width: usize,
}

impl Grid {
    /// Tokens of the picture.
    #[must_use]
    pub const fn tokens(self) -> usize {
        self.height * self.width
    }
}

/// Rotation by three positions (picture, row, column), each of which turns its own share of a head's pairs.
///
/// # Source
/// `QwenEmbedRope` with `scale_rope=True`, diffusers transformer_qwenimage.py.
#[derive(Clone, Debug, PartialEq)]
pub struct AxialRope {
    frequencies: [Vec<f32>; 3],
}

impl AxialRope {
    /// Axes of these widths (even, together a head) with this base.
    #[must_use]
    pub fn new(axes: [usize; 3], theta: f32) -> Self {
        Self { frequencies: axes.map(|axis| frequencies(axis, theta)) }
    }

    /// The table of pictures that follow each other in a sequence: the first coordinate is the picture's place,
    /// rows and columns are counted from the picture's centre.
    ///
    /// # Errors
    /// No memory.
    pub fn pictures(&self, grids: &[Grid], device: &Device) -> Result<Rope> {
        let [of_picture, of_row, of_column] = &self.frequencies;
        let mut table = Angles::default();
        for (index, &Grid { height, width }) in grids.iter().enumerate() {
            let picture = Angles::at(of_picture, position(index));
            let columns: Vec<Angles> =
                (0..width).map(|column| Angles::at(of_column, centred(column, width))).collect();
            for row in 0..height {
                let row = Angles::at(of_row, centred(row, height));
                for column in &columns {
                    [&picture, &row, column].into_iter().for_each(|axis| table.extend(axis));
                }
            }
        }
        table.finish(RopeLayout::Interleaved, self.pairs(), device)
    }

    /// The table of prompts one after another: each starts behind the farthest coordinate of the pictures and has
    /// the same position on all axes.
    ///
    /// # Errors
    /// No memory.
    pub fn prompts(&self, lengths: &[usize], grids: &[Grid], device: &Device) -> Result<Rope> {
        let start = grids.iter().map(|g| (g.height / 2).max(g.width / 2)).max().unwrap_or(0);
        let mut table = Angles::default();
        for p in lengths.iter().flat_map(|&n| start..start + n) {
            self.frequencies.iter().for_each(|axis| table.extend(&Angles::at(axis, position(p))));
        }
        table.finish(RopeLayout::Interleaved, self.pairs(), device)
    }

    fn pairs(&self) -> usize {
        self.frequencies.iter().map(Vec::len).sum()
    }
}

/// The table of prompts one after another for a language model: one position, halves of a head as pairs.
///
/// Qwen2.5-VL rotates by three positions, but for text all three are the token's index, so this is all of it.
///
/// # Errors
/// No memory.
pub fn text(lengths: &[usize], head_dim: usize, theta: f32, device: &Device) -> Result<Rope> {
    let frequencies = frequencies(head_dim, theta);
    let mut table = Angles::default();
    for p in lengths.iter().flat_map(|&n| 0..n) {
        table.extend(&Angles::at(&frequencies, position(p)));
    }
    table.finish(RopeLayout::Halves, frequencies.len(), device)
}

/// One behind another, of tokens and of their pairs.
#[derive(Default)]
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Those of some pairs at a position.
    #[allow(clippy::cast_possible_truncation)] // rounds f64 results to f32 on purpose
    fn at(frequencies: &[f32], position: f32) -> Self {
        // The reference rounds the angle to f32.
        let angle = |f: &f32| f64::from(f * position).sin_cos();
        let (sin, cos) = frequencies.iter().map(angle).map(|(sin, cos)| (sin as f32, cos as f32)).unzip();
        Self { cos, sin }
    }

    fn extend(&mut self, other: &Self) {
        self.cos.extend_from_slice(&other.cos);
        self.sin.extend_from_slice(&other.sin);
    }

    fn finish(self, layout: RopeLayout, pairs: usize, device: &Device) -> Result<Rope> {
        let shape = Shape::matrix(self.cos.len() / pairs.max(1), pairs);
        let cos = Tensor::from_f32(device, &self.cos, shape)?;
        let sin = Tensor::from_f32(device, &self.sin, shape)?;
        Ok(Rope { cos, sin, layout })
    }
}

/// `theta^(-2i / dim)` for each pair, rounded to f32 after the power and after the division as in the reference.
#[allow(clippy::cast_possible_truncation)] // f64 results go to f32 on purpose
fn frequencies(dim: usize, theta: f32) -> Vec<f32> {
    let exponent = |pair: usize| (2 * pair) as f32 / dim as f32;
    (0..dim / 2).map(|pair| 1.0 / f64::from(theta).powf(f64::from(exponent(pair))) as f32).collect()
}

fn position(index: usize) -> f32 {
    index as f32
}

/// The coordinate of a row or column: the first half (and the odd one) lies before zero.
fn centred(index: usize, size: usize) -> f32 {
    position(index) - position(size - size / 2)
}

#[cfg(test)]
mod tests;
