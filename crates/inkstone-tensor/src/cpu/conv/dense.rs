//! Convolution of floats: each block of the output copies the lines that it sees, padded, in the tile's type.

use std::ops::Range;

use super::super::panel::{Source, words_of};
use super::super::rows::{Matrix, RowMut};
use super::super::table::Table;
use super::super::tile::{Operand, Panel, Sums, Tile};
use super::super::{Cpu, scratch};
use super::{Block, Output, Picture, block_size};
use crate::DType;
use crate::ops::{Conv2d, Window};

/// Pixels in a block at least, where the picture has them: spreads the cost of decoding the weight.
const BLOCK_PIXELS: usize = 448;

pub(super) fn convolve(cpu: &Cpu, picture: &Picture<'_>, output: &Output<'_>) {
    let dtype = picture.x.dtype();
    let (tile, work) = cpu.table.tile(dtype);
    let weight = Source::of(&output.args.weight.matrix, work, dtype);
    let convolution = Convolution { tile, work, picture, weight, output };
    output.blocks(cpu, [BLOCK_PIXELS, tile.cols], |block| convolution.block(block));
}

/// Bytes of scratch that a block of an output `[h, w]` takes.
pub(in crate::cpu) fn scratch_bytes(table: &Table, args: &Conv2d<'_>, [h, w]: [usize; 2]) -> usize {
    let (tile, work) = table.tile(args.x.dtype());
    let [wide, high] = block_size(w, h, BLOCK_PIXELS);
    let (kernel, stride) = (args.weight.kernel, args.window.stride);
    let copied = (high * stride + kernel) * (wide * stride + kernel);
    let words = words_of(args.x.cols(), work);
    4 * (copied * words + (kernel * kernel + 2) * tile.cols * words + wide * tile.cols)
}

struct Convolution<'a> {
    tile: &'static Tile,
    /// The type in which the tile wants its operands.
    work: DType,
    picture: &'a Picture<'a>,
    weight: Source<'a>,
    output: &'a Output<'a>,
}

impl Convolution<'_> {
    fn block(&self, block: &Block) {
        let Conv2d { window: Window { stride, .. }, weight, .. } = *self.output.args;
        let (table, kernel, c_in) = (self.output.table, weight.kernel, self.picture.x.cols());
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
                    self.weight.decode(table, self.tile, channels.clone(), ks, decoding, panel);
                }
                let after = channels.end..block.channels.end.min(channels.end + self.tile.cols);
                let next = self.weight.lines(&after, &(0..taps.len() * c_in));
                for (i, line) in block.lines.clone().enumerate() {
                    let bytes = &copy[(line - block.lines.start) * stride * line_bytes..];
                    let a = Operand { bytes, stride_bytes: stride * pixel_bytes, taps, words };
                    let b = Panel { bytes: panel, next: next.part(i, block.lines.len()) };
                    self.tile.run(block.columns.len(), a, b, sums, sums_stride, Sums::Start);
                    self.output.finish(block, line, &channels, sums, sums_stride);
                }
            }
        });
    }

    /// Copies the part of the input that a block sees, zeros where it reaches beyond the picture, in the tile's type.
    fn copy(&self, block: &Block, high: usize, wide: usize, copy: &mut [u8]) {
        let pixel_bytes = words_of(self.picture.x.cols(), self.work) * 4;
        let Window { stride, padding, .. } = self.output.args.window;
        if pixel_bytes == 0 {
            return;
        }
        for (i, line) in copy.chunks_exact_mut(wide * pixel_bytes).enumerate().take(high) {
            let y = (block.lines.start * stride + i).wrapping_sub(padding.above);
            let Some((from, first)) = self.picture.line(block.image, y) else {
                line.fill(0);
                continue;
            };
            // Columns of the copy that lie in the picture.
            let columns = block.columns.start * stride;
            let reached = |column: usize| (column + padding.left).saturating_sub(columns).min(wide);
            let inside = reached(0)..reached(self.picture.w);
            line[..inside.start * pixel_bytes].fill(0);
            line[inside.end * pixel_bytes..].fill(0);
            let first = first + (columns + inside.start).saturating_sub(padding.left);
            let pixels = first..first + inside.len();
            self.copy_pixels(from, pixels, pixel_bytes, &mut line[inside.start * pixel_bytes..]);
        }
    }

    fn copy_pixels(&self, from: &Matrix<'_>, pixels: Range<usize>, pixel_bytes: usize, to: &mut [u8]) {
        let kernels = &self.output.table.rows;
        let len_bytes = from.cols() * self.work.size_bytes();
        if from.is_dense() && len_bytes == pixel_bytes {
            let to = &mut to[..pixels.len() * pixel_bytes];
            // SAFETY: both rows have the elements of all pixels.
            return unsafe { (kernels.convert)(from.dense_rows(pixels), RowMut::new(to, self.work)) };
        }
        for (pixel, to) in pixels.zip(to.chunks_exact_mut(pixel_bytes)) {
            let (to, behind) = to.split_at_mut(len_bytes);
            behind.fill(0);
            // SAFETY: both rows have the elements of a pixel.
            unsafe { (kernels.convert)(from.row(pixel), RowMut::new(to, self.work)) }
        }
    }
}
