//! Convolution as an implicit matrix product: each pixel of a line of the output is a row of A whose taps lie at
//! fixed offsets in a zero-padded copy of the input's lines, so no im2col is ever made.

use std::ops::Range;

use super::Cpu;
use super::panel::{Source, words_of};
use super::rows::{Matrix, MatrixMut, Row, RowMut};
use super::scratch;
use super::table::Table;
use super::tile::{Operand, Panel, Sums, Tile};
use crate::ops::{Activation, Conv2d, Epilogue, Into, Linear, Padding, Window};
use crate::{DType, Tensor};

/// Pixels of a line in a block at most: the padded copy stays in the L2 cache.
pub(super) const BLOCK_WIDTH: usize = 112;
/// Pixels in a block at least, where the picture has them: spreads the cost of decoding the weight.
pub(super) const BLOCK_PIXELS: usize = 448;
/// Jobs for each thread at least, where the picture is large enough.
const JOBS_PER_THREAD: usize = 4;
/// Products of elements that a thread computes in a nanosecond, on the slow side.
const PRODUCTS_PER_NS: usize = 64;

pub(super) fn conv2d(cpu: &Cpu, args: &Conv2d<'_>, out: &mut Tensor) {
    let (&[n, h, w, _], &[_, h_out, w_out, c_out]) = (args.x.shape().dims(), out.shape().dims()) else {
        return;
    };
    if n * h_out * w_out * c_out == 0 {
        return;
    }
    let Window { above, stride, padding } = args.window;
    if args.weight.kernel == 1 && stride == 1 && above.is_none() && padding == Padding::all(0) {
        return pointwise(cpu, args, out);
    }
    let (tile, work) = cpu.table.tile(args.x.dtype());
    let convolution = Convolution {
        table: cpu.table,
        tile,
        work,
        x: Matrix::of(args.x),
        above: above.map(Matrix::of),
        lines_above: args.window.lines_above(),
        weight: Source::of(&args.weight.matrix, work, args.x.dtype()),
        args,
        h,
        w,
        h_out,
        w_out,
        out: MatrixMut::of(out),
    };
    let wide = w_out.min(BLOCK_WIDTH);
    let high = BLOCK_PIXELS.div_ceil(wide).min(h_out);
    let (across, down) = (w_out.div_ceil(wide), h_out.div_ceil(high));
    // Small pictures have few blocks; then the channels are divided as well.
    let places = n * across * down;
    let wanted = (JOBS_PER_THREAD * cpu.threads.count()).div_ceil(places);
    let deep = c_out.div_ceil(wanted).next_multiple_of(tile.cols);
    let parts = c_out.div_ceil(deep);
    let work_ns = n * h_out * w_out * c_out * args.weight.matrix.n_in() / PRODUCTS_PER_NS;
    cpu.threads.run(places * parts, work_ns, |job| {
        let (place, c) = (job / parts, job % parts * deep);
        let (y, x) = (place / across % down * high, place % across * wide);
        convolution.block(&Block {
            image: place / across / down,
            lines: y..h_out.min(y + high),
            columns: x..w_out.min(x + wide),
            channels: c..c_out.min(c + deep),
        });
    });
}

/// A 1x1 convolution is a linear layer over all pixels.
fn pointwise(cpu: &Cpu, args: &Conv2d<'_>, out: &mut Tensor) {
    let epilogue = match args.into {
        Into::Store => Epilogue::Store(Activation::None),
        Into::Add => Epilogue::AddTo(None),
    };
    let linear =
        Linear { x: args.x, weight: &args.weight.matrix, bias: Some(args.bias), terms: &[], epilogue };
    super::gemm::linear(cpu, &linear, out);
}

struct Convolution<'a> {
    table: &'static Table,
    tile: &'static Tile,
    /// The type in which the tile wants its operands.
    work: DType,
    x: Matrix<'a>,
    above: Option<Matrix<'a>>,
    lines_above: usize,
    weight: Source<'a>,
    args: &'a Conv2d<'a>,
    h: usize,
    w: usize,
    h_out: usize,
    w_out: usize,
    out: MatrixMut<'a>,
}

/// A part of the output.
struct Block {
    image: usize,
    lines: Range<usize>,
    columns: Range<usize>,
    channels: Range<usize>,
}

impl Convolution<'_> {
    fn block(&self, block: &Block) {
        let Conv2d { window: Window { stride, .. }, weight, .. } = *self.args;
        let (kernel, c_in) = (weight.kernel, self.x.cols());
        let words = words_of(c_in, self.work);
        let pixel_bytes = words * 4;
        // The copy's lines and columns, from the one that the block's first output reaches at its upper left.
        let copied = |outs: &Range<usize>| (outs.len() - 1) * stride + kernel;
        let (high, wide) = (copied(&block.lines), copied(&block.columns));
        let line_bytes = wide * pixel_bytes;
        let mut taps = [0; 9];
        for (i, tap) in taps.iter_mut().enumerate() {
            *tap = i / kernel * line_bytes + i % kernel * pixel_bytes;
        }
        let taps = &taps[..kernel * kernel];
        let tap_bytes = self.tile.panel_bytes(words);
        let sums_stride = self.tile.cols;
        let sizes = [
            high * line_bytes,
            taps.len() * tap_bytes,
            self.weight.scratch_bytes(self.tile, words),
            block.columns.len() * sums_stride * 4,
        ];
        scratch::with(sizes, |[copy, panel, decoding, sums]| {
            self.copy(block, high, wide, copy);
            let sums = scratch::as_f32(sums);
            for c in block.channels.clone().step_by(self.tile.cols) {
                let channels = c..block.channels.end.min(c + self.tile.cols);
                for tap in 0..taps.len() {
                    let ks = tap * c_in..(tap + 1) * c_in;
                    let panel = &mut panel[tap * tap_bytes..(tap + 1) * tap_bytes];
                    self.weight.decode(self.table, self.tile, channels.clone(), ks, decoding, panel);
                }
                let after = channels.end..block.channels.end.min(channels.end + self.tile.cols);
                let next = self.weight.lines(&after, &(0..taps.len() * c_in));
                for (i, line) in block.lines.clone().enumerate() {
                    let bytes = &copy[(line - block.lines.start) * stride * line_bytes..];
                    let a = Operand { bytes, stride_bytes: stride * pixel_bytes, taps, words };
                    let b = Panel { bytes: panel, next: next.part(i, block.lines.len()) };
                    self.tile.run(block.columns.len(), a, b, sums, sums_stride, Sums::Start);
                    self.finish(block, line, &channels, sums);
                }
            }
        });
    }

    /// Copies the part of the input that a block sees, zeros where it reaches beyond the picture, in the tile's type.
    fn copy(&self, block: &Block, high: usize, wide: usize, copy: &mut [u8]) {
        let pixel_bytes = words_of(self.x.cols(), self.work) * 4;
        let Window { stride, padding, .. } = self.args.window;
        if pixel_bytes == 0 {
            return;
        }
        for (i, line) in copy.chunks_exact_mut(wide * pixel_bytes).enumerate().take(high) {
            let y = (block.lines.start * stride + i).wrapping_sub(padding.above);
            let Some((from, first)) = self.line(block.image, y) else {
                line.fill(0);
                continue;
            };
            // Columns of the copy that lie in the picture.
            let columns = block.columns.start * stride;
            let reached = |column: usize| (column + padding.left).saturating_sub(columns).min(wide);
            let inside = reached(0)..reached(self.w);
            line[..inside.start * pixel_bytes].fill(0);
            line[inside.end * pixel_bytes..].fill(0);
            let first = first + (columns + inside.start).saturating_sub(padding.left);
            let pixels = first..first + inside.len();
            self.copy_pixels(from, pixels, pixel_bytes, &mut line[inside.start * pixel_bytes..]);
        }
    }

    /// Where line `y` of an image lies, and its first pixel there; `None` outside of the image.
    fn line(&self, image: usize, y: usize) -> Option<(&Matrix<'_>, usize)> {
        match &self.above {
            Some(above) if y < self.lines_above => Some((above, (image * self.lines_above + y) * self.w)),
            _ => {
                let y = y.checked_sub(self.lines_above).filter(|y| *y < self.h)?;
                Some((&self.x, (image * self.h + y) * self.w))
            }
        }
    }

    fn copy_pixels(&self, from: &Matrix<'_>, pixels: Range<usize>, pixel_bytes: usize, to: &mut [u8]) {
        let len_bytes = from.cols() * self.work.size_bytes();
        if from.is_dense() && len_bytes == pixel_bytes {
            let to = &mut to[..pixels.len() * pixel_bytes];
            // SAFETY: both rows have the elements of all pixels.
            return unsafe { (self.table.rows.convert)(from.dense_rows(pixels), RowMut::new(to, self.work)) };
        }
        for (pixel, to) in pixels.zip(to.chunks_exact_mut(pixel_bytes)) {
            let (to, behind) = to.split_at_mut(len_bytes);
            behind.fill(0);
            // SAFETY: both rows have the elements of a pixel.
            unsafe { (self.table.rows.convert)(from.row(pixel), RowMut::new(to, self.work)) }
        }
    }

    /// Takes the sums of a line through the epilogue.
    fn finish(&self, block: &Block, line: usize, channels: &Range<usize>, sums: &[f32]) {
        let bias = Some(Matrix::of(self.args.bias).part(0, channels.clone()));
        let kernels = &self.table.rows;
        for (column, sums) in block.columns.clone().zip(sums.chunks_exact(self.tile.cols)) {
            let sums = Row::f32s(&sums[..channels.len()]);
            let pixel = (block.image * self.h_out + line) * self.w_out + column;
            // SAFETY: a block is one job's; all rows have `channels.len()` elements.
            unsafe {
                let to = self.out.part(pixel, channels.clone());
                match self.args.into {
                    Into::Store => (kernels.store)(sums, bias, Activation::None, to),
                    Into::Add => (kernels.add_to)(sums, bias, None, to),
                }
            }
        }
    }
}
