//! Convolution as an implicit matrix product: each pixel of a line of the output is a row of A whose taps lie at fixed
//! offsets in zero-padded lines of the input, so no im2col is ever made.

mod axis;
mod dense;
mod int8;
mod lines;

use std::ops::Range;

use super::Cpu;
use super::rows::{Matrix, MatrixMut};
use super::table::Table;
use crate::ops::{Activation, Conv2d, Epilogue, Into, Linear, Padding, Window};
use crate::{Result, Tensor, Weight};

use axis::Axis;
pub(super) use dense::scratch_bytes;
pub(super) use int8::{rounded_bytes, scratch_bytes as int8_scratch_bytes};

/// Pixels of a line in a block at most: the padded copy stays in the L2 cache. Even, so that a
/// block begins with an output of the first run.
const BLOCK_WIDTH: usize = 112;
/// Jobs for each thread at least, where the picture is large enough.
const JOBS_PER_THREAD: usize = 4;
/// Products of elements that a thread computes in a nanosecond, on the slow side.
const PRODUCTS_PER_NS: usize = 64;

pub(super) fn conv2d(cpu: &Cpu, args: &Conv2d<'_>, out: &mut Tensor) -> Result<()> {
    let (&[n, h, w, _], &[_, h_out, w_out, c_out]) = (args.x.shape().dims(), out.shape().dims()) else {
        return Ok(());
    };
    if n * h_out * w_out * c_out == 0 {
        return Ok(());
    }
    if is_pointwise(args) {
        return pointwise(cpu, args, out);
    }
    let above = args.window.above.map(Matrix::of);
    let picture =
        Picture { x: Matrix::of(args.x), above, lines_above: args.window.lines_above(), images: n, h, w };
    let output = Output { table: cpu.table, args, images: n, h_out, w_out, out: MatrixMut::of(out) };
    match &args.weight.matrix {
        Weight::Int8(weight) => int8::convolve(cpu, &picture, weight, &output),
        _ => dense::convolve(cpu, &picture, &output),
    }
}

/// Whether it is a linear layer over all pixels.
pub(super) fn is_pointwise(args: &Conv2d<'_>) -> bool {
    let Window { stride, padding, .. } = args.window;
    let all = stride == 1 && padding == Padding::all(0) && args.window.lines_above() == 0;
    args.weight.kernel == 1 && all && args.norm.is_none()
}

fn pointwise(cpu: &Cpu, args: &Conv2d<'_>, out: &mut Tensor) -> Result<()> {
    let epilogue = match args.into {
        Into::Store => Epilogue::Store(Activation::None),
        Into::Add => Epilogue::AddTo(None),
    };
    let linear =
        Linear { x: args.x, weight: &args.weight.matrix, bias: Some(args.bias), terms: &[], epilogue };
    super::gemm::linear(cpu, &linear, out)
}

/// The input's pixels.
struct Picture<'a> {
    x: Matrix<'a>,
    above: Option<Matrix<'a>>,
    lines_above: usize,
    images: usize,
    h: usize,
    w: usize,
}

impl<'a> Picture<'a> {
    /// Where line `y` of an image lies, counted from the first of those above, and its first pixel there; `None` outside
    /// of the image.
    fn line(&self, image: usize, y: usize) -> Option<(&Matrix<'a>, usize)> {
        match &self.above {
            Some(above) if y < self.lines_above => Some((above, (image * self.lines_above + y) * self.w)),
            _ => {
                let y = y.checked_sub(self.lines_above).filter(|y| *y < self.h)?;
                Some((&self.x, (image * self.h + y) * self.w))
            }
        }
    }
}

/// A part of the output.
struct Block {
    image: usize,
    lines: Range<usize>,
    columns: Range<usize>,
    channels: Range<usize>,
}

/// Channels of a block, and which lines' weights they have.
struct Turn {
    channels: Range<usize>,
    /// The lines' place in their pair.
    place: usize,
}

/// The output, and what happens on the way to it.
struct Output<'a> {
    table: &'static Table,
    args: &'a Conv2d<'a>,
    images: usize,
    h_out: usize,
    w_out: usize,
    out: MatrixMut<'a>,
}

impl Output<'_> {
    /// Calls `job` with all parts of the output, on all threads: of `pixels` pixels at least, where the output has them. A
    /// tile computes `cols` channels.
    fn blocks(&self, cpu: &Cpu, [pixels, cols]: [usize; 2], job: impl Fn(&Block) + Sync) -> Result<()> {
        let (h_out, w_out, c_out) = (self.h_out, self.w_out, self.out.cols());
        let [wide, high] = block_size(w_out, h_out, pixels);
        let (across, down) = (w_out.div_ceil(wide), h_out.div_ceil(high));
        // Small pictures have few blocks; then the channels are divided as well.
        let places = self.images * across * down;
        let wanted = (JOBS_PER_THREAD * cpu.threads.count()).div_ceil(places);
        let deep = c_out.div_ceil(wanted).next_multiple_of(cols);
        let parts = c_out.div_ceil(deep);
        let products = self.images * h_out * w_out * c_out * self.args.weight.matrix.n_in();
        cpu.threads.run(places * parts, products / PRODUCTS_PER_NS, |i| {
            let (place, c) = (i / parts, i % parts * deep);
            let (y, x) = (place / across % down * high, place % across * wide);
            job(&Block {
                image: place / across / down,
                lines: y..h_out.min(y + high),
                columns: x..w_out.min(x + wide),
                channels: c..c_out.min(c + deep),
            });
        })
    }

    /// What a block computes with the same panels, of `cols` channels.
    fn turns<'b>(&self, block: &'b Block, cols: usize, down: &Axis) -> impl Iterator<Item = Turn> + use<'b> {
        let zoom = down.zoom;
        block.channels.clone().step_by(cols).flat_map(move |c| {
            let channels = c..block.channels.end.min(c + cols);
            (0..zoom).map(move |place| Turn { channels: channels.clone(), place })
        })
    }

    /// The lines of a block that have this place in their pair.
    fn lines(&self, block: &Block, place: usize, down: &Axis) -> impl Iterator<Item = usize> + Clone {
        let down = *down;
        block.lines.clone().filter(move |line| down.place(*line) == place)
    }

    /// Rows of the weight: the channels of a turn for outputs that have this place in their pair across.
    fn rows(&self, turn: &Turn, place: usize) -> Range<usize> {
        let weight = self.args.weight;
        let first = (turn.place * weight.zoom() + place) * weight.c_out();
        first + turn.channels.start..first + turn.channels.end
    }

    /// Takes the sums of a line, `stride` apart, through the epilogue.
    fn finish(&self, block: &Block, line: usize, channels: &Range<usize>, sums: &[f32], stride: usize) {
        let bias = Matrix::of(self.args.bias).part(0, channels.clone());
        let kernels = &self.table.rows;
        let first = (block.image * self.h_out + line) * self.w_out;
        let pixels = first + block.columns.start..first + block.columns.end;
        // SAFETY: a block is one job's; there are sums for all of its columns.
        unsafe {
            let to = self.out.rows_part(pixels, channels.clone());
            match self.args.into {
                Into::Store => (kernels.store_rows)(sums, stride, bias, to),
                Into::Add => (kernels.add_to_rows)(sums, stride, bias, to),
            }
        }
    }
}

/// Columns and lines of a block of an output of this size, of so many pixels at least.
fn block_size(w_out: usize, h_out: usize, pixels: usize) -> [usize; 2] {
    let wide = w_out.clamp(1, BLOCK_WIDTH);
    [wide, pixels.div_ceil(wide).min(h_out)]
}
