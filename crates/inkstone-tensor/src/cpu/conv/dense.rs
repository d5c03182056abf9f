//! Convolution of floats: each block of the output copies the lines that it sees, padded, in the tile's type,
//! behind their norm where they have one.

use std::ops::Range;

use super::super::norm::NormedPixels;
use super::super::panel::{Source, words_of};
use super::super::rows::{Matrix, RowMut, RowsMut};
use super::super::table::Table;
use super::super::tile::{Lines, Operand, Panel, Sums, Tile};
use super::super::{Cpu, scratch};
use super::{Axis, Block, JOBS_PER_THREAD, Output, Picture, block_size};
use crate::ops::{Conv2d, PixelNorm};
use crate::{DType, Result};

/// Pixels in a block at least: spreads the cost of decoding the weight.
const BLOCK_PIXELS: usize = 448;
/// Bytes of a block's pixels, if those are more: what a block sees beyond its own lines is copied, and normalized, more than once.
const COPY_BYTES: usize = 384 << 10;

pub(super) fn convolve(cpu: &Cpu, picture: &Picture<'_>, output: &Output<'_>) -> Result<()> {
    let dtype = picture.x.dtype();
    let (tile, work) = cpu.table.tile(dtype);
    let weight = Source::of(&output.args.weight.matrix, work, dtype);
    let (down, across) = (Axis::down(output.args), Axis::across(output.args));
    let convolution = Convolution { tile, work, picture, weight, output, down, across };
    // Fewer where there would not be a block for each job.
    let per_job = output.images * output.h_out * output.w_out / (JOBS_PER_THREAD * cpu.threads.count());
    let pixels = block_pixels(output.args, work).min(per_job).max(BLOCK_PIXELS);
    output.blocks(cpu, [pixels, tile.cols], |block| convolution.block(block))
}

/// Pixels in a block, where the picture has them.
fn block_pixels(args: &Conv2d<'_>, work: DType) -> usize {
    BLOCK_PIXELS.max(COPY_BYTES / (4 * words_of(args.x.cols(), work)).max(1))
}

/// Bytes of scratch that a block of an output `[h, w]` takes at most.
pub(in crate::cpu) fn scratch_bytes(table: &Table, args: &Conv2d<'_>, [h, w]: [usize; 2]) -> usize {
    let (tile, work) = table.tile(args.x.dtype());
    let [wide, high] = block_size(w, h, block_pixels(args, work));
    let kernel = args.weight.kernel;
    let copied = Axis::down(args).reach_len(high) * Axis::across(args).reach_len(wide);
    let words = words_of(args.x.cols(), work);
    let taps = args.weight.zoom() * kernel * kernel;
    4 * (copied * words + (taps + 2) * tile.cols * words + wide * tile.cols)
}

struct Convolution<'a> {
    tile: &'static Tile,
    /// The type in which the tile wants its operands.
    work: DType,
    picture: &'a Picture<'a>,
    weight: Source<'a>,
    output: &'a Output<'a>,
    down: Axis,
    across: Axis,
}

impl Convolution<'_> {
    fn block(&self, block: &Block) {
        let (table, kernel, c_in) =
            (self.output.table, self.output.args.weight.kernel, self.picture.x.cols());
        let words = words_of(c_in, self.work);
        let pixel_bytes = words * 4;
        let seen = [self.down.reach(&block.lines), self.across.reach(&block.columns)];
        let line_bytes = seen[1].len() * pixel_bytes;
        let (n_taps, places) = (kernel * kernel, self.across.zoom);
        let tap_bytes = self.tile.panel_bytes(words);
        let sizes = [
            seen[0].len() * line_bytes,
            places * n_taps * tap_bytes,
            self.weight.scratch_bytes(self.tile, words),
            block.columns.len() * self.tile.cols * 4,
        ];
        scratch::with(sizes, |[copy, panels, decoding, sums]| {
            self.copy(block, &seen, copy);
            let sums = scratch::as_f32(sums);
            let mut turns = self.output.turns(block, self.tile.cols, &self.down).peekable();
            while let Some(turn) = turns.next() {
                for (i, panel) in panels.chunks_exact_mut(tap_bytes).enumerate() {
                    let (rows, tap) = (self.output.rows(&turn, i / n_taps), i % n_taps);
                    let ks = tap * c_in..(tap + 1) * c_in;
                    self.weight.decode(table, self.tile, rows, ks, decoding, panel);
                }
                let lines = self.output.lines(block, turn.place, &self.down);
                let n_lines = lines.clone().count();
                for (i, line) in lines.enumerate() {
                    for run in 0..places.min(block.columns.len()) {
                        let place = self.across.place(block.columns.start + run);
                        let next = turns.peek().map_or(Lines::NONE, |next| {
                            self.weight.lines(&self.output.rows(next, place), &(0..n_taps * c_in))
                        });
                        let bytes = &panels[place * n_taps * tap_bytes..][..n_taps * tap_bytes];
                        let b = Panel { bytes, next: next.part(i, n_lines) };
                        self.run(block, line, run, (copy, line_bytes), b, sums);
                    }
                    self.output.finish(block, line, &turn.channels, sums, self.tile.cols);
                }
            }
        });
    }

    /// The sums of a run of a line of the output, from the copy of the lines that the block sees.
    fn run(
        &self,
        block: &Block,
        line: usize,
        run: usize,
        (copy, line_bytes): (&[u8], usize),
        panel: Panel<'_>,
        sums: &mut [f32],
    ) {
        let (down, across) = (&self.down, &self.across);
        let (kernel, words) = (self.output.args.weight.kernel, words_of(self.picture.x.cols(), self.work));
        let pixel_bytes = words * 4;
        let y = down.seen(line, 0) - down.seen(block.lines.start, 0);
        let x = across.seen(block.columns.start + run, 0) - across.seen(block.columns.start, 0);
        let mut taps = [0; 9];
        for (i, tap) in taps.iter_mut().enumerate() {
            *tap = (y + i / kernel) * line_bytes + (x + i % kernel) * pixel_bytes;
        }
        let taps = &taps[..kernel * kernel];
        let a = Operand { bytes: copy, stride_bytes: across.stride * pixel_bytes, taps, words };
        let outs = across.run_len(block.columns.len(), run);
        let sums = &mut sums[run * self.tile.cols..];
        self.tile.run(outs, a, panel, sums, across.zoom * self.tile.cols, Sums::Start);
    }

    /// Copies the part of the input that a block sees, behind its norm, zeros where it reaches beyond the picture, in the
    /// tile's type.
    fn copy(&self, block: &Block, [lines, columns]: &[Range<usize>; 2], copy: &mut [u8]) {
        let pixel_bytes = words_of(self.picture.x.cols(), self.work) * 4;
        if pixel_bytes == 0 {
            return;
        }
        for (line, y) in copy.chunks_exact_mut(columns.len() * pixel_bytes).zip(lines.clone()) {
            let y = y.wrapping_sub(self.down.before);
            let Some((from, first)) = self.picture.line(block.image, y) else {
                line.fill(0);
                continue;
            };
            // Columns of the copy that lie in the picture.
            let before = self.across.before;
            let reached = |column: usize| (column + before).saturating_sub(columns.start).min(columns.len());
            let inside = reached(0)..reached(self.picture.w);
            line[..inside.start * pixel_bytes].fill(0);
            line[inside.end * pixel_bytes..].fill(0);
            let first = first + (columns.start + inside.start).saturating_sub(before);
            let pixels = first..first + inside.len();
            self.copy_pixels(from, pixels, pixel_bytes, &mut line[inside.start * pixel_bytes..]);
        }
    }

    fn copy_pixels(&self, from: &Matrix<'_>, pixels: Range<usize>, pixel_bytes: usize, to: &mut [u8]) {
        let kernels = &self.output.table.rows;
        let len_bytes = from.cols() * self.work.size_bytes();
        let to = &mut to[..pixels.len() * pixel_bytes];
        if len_bytes < pixel_bytes {
            to.chunks_exact_mut(pixel_bytes).for_each(|pixel| pixel[len_bytes..].fill(0));
        }
        if let Some(PixelNorm { gamma, activation }) = self.output.args.norm {
            let gamma = Matrix::of(gamma).row(0);
            let x = NormedPixels { pixels: *from, first: pixels.start, gamma, activation };
            // SAFETY: all rows have the elements of a pixel.
            return unsafe { (kernels.channel_norm)(x, RowsMut::new(to, len_bytes, pixel_bytes, self.work)) };
        }
        if from.is_dense() && len_bytes == pixel_bytes {
            // SAFETY: both rows have the elements of all pixels.
            return unsafe { (kernels.convert)(from.dense_rows(pixels), RowMut::new(to, self.work)) };
        }
        for (pixel, to) in pixels.zip(RowsMut::new(to, len_bytes, pixel_bytes, self.work)) {
            // SAFETY: both rows have the elements of a pixel.
            unsafe { (kernels.convert)(from.row(pixel), to) }
        }
    }
}
