//! Convolution of bytes: the picture's lines are rounded once, padded, and read by the tile where they lie.
//!
//! A line has a scale of its own, so each line of the kernel has a sum of its own, whole and exact; as f32 they are added
//! in order.

use super::super::int8::{factors, panel};
use super::super::rows::Matrix;
use super::super::table::Table;
use super::super::tile::int8::{Factors, Int8Tile, Target};
use super::super::tile::{Operand, Panel, Sums};
use super::super::{Cpu, scratch};
use super::lines::{Layout, Lines};
use super::{Axis, Block, Output, Picture, block_size};
use crate::ops::{Conv2d, ConvWeight};
use crate::{Int8Weight, Result};

/// Pixels in a block at least, where the picture has them: their bytes take half the cache of other types, and their
/// products half the time in which to make a panel.
const BLOCK_PIXELS: usize = 896;

pub(super) fn convolve(
    cpu: &Cpu,
    picture: &Picture<'_>,
    weight: &Int8Weight,
    output: &Output<'_>,
) -> Result<()> {
    let tile = cpu.table.int8_tile();
    let convolution = Convolution {
        tile,
        lines: &Lines::of(cpu, picture, output.args, weight.group(), output.w_out)?,
        weight: Matrix::of(weight.values()),
        scales: Matrix::of(weight.scales()),
        channels: picture.x.cols(),
        output,
        down: Axis::down(output.args),
        across: Axis::across(output.args),
    };
    output.blocks(cpu, [BLOCK_PIXELS, tile.cols], |block| convolution.block(block))
}

/// Bytes of a picture `[n, h, w]` once rounded, where the output's lines are of `w_out` pixels.
pub(in crate::cpu) fn rounded_bytes(args: &Conv2d<'_>, [n, h, w]: [usize; 3], w_out: usize) -> usize {
    Layout::of(args, [h, w], w_out).bytes(n)
}

/// Bytes of scratch that rounding a line of `[h, w]` or a block of the output `[h_out, w_out]` takes.
pub(in crate::cpu) fn scratch_bytes(
    table: &Table,
    args: &Conv2d<'_>,
    picture: [usize; 2],
    [h_out, w_out]: [usize; 2],
) -> usize {
    let [wide, _] = block_size(w_out, h_out, BLOCK_PIXELS);
    let block: usize = sizes(table.int8_tile(), args.weight, wide).iter().sum();
    block.max(Layout::of(args, picture, w_out).scratch_bytes())
}

/// All taps' panels, a word for each of one tap's, sums of a line, factors.
fn sizes(tile: &Int8Tile, weight: &ConvWeight, wide: usize) -> [usize; 4] {
    let (kernel, places) = (weight.kernel, weight.zoom());
    let tap_bytes = tile.panel_bytes(weight.c_in().div_ceil(4));
    [places * kernel * kernel * tap_bytes, tap_bytes, wide * tile.cols * 4, places * tile.cols * 4]
}

struct Convolution<'a> {
    tile: &'static Int8Tile,
    lines: &'a Lines,
    weight: Matrix<'a>,
    scales: Matrix<'a>,
    /// Of the input.
    channels: usize,
    output: &'a Output<'a>,
    down: Axis,
    across: Axis,
}

impl Convolution<'_> {
    fn block(&self, block: &Block) {
        let (tile, weight) = (self.tile, self.output.args.weight);
        let (n_taps, tap_bytes) =
            (weight.kernel * weight.kernel, tile.panel_bytes(self.channels.div_ceil(4)));
        scratch::with(sizes(tile, weight, block.columns.len()), |[panels, decoding, sums, columns]| {
            let (sums, columns) = (scratch::as_f32(sums), scratch::as_f32(columns));
            for turn in self.output.turns(block, tile.cols, &self.down) {
                for (place, columns) in columns.chunks_exact_mut(tile.cols).enumerate() {
                    factors(&self.scales, self.output.rows(&turn, place), columns);
                }
                for (i, to) in panels.chunks_exact_mut(tap_bytes).enumerate() {
                    let (rows, tap) = (self.output.rows(&turn, i / n_taps), i % n_taps);
                    let ks = tap * self.channels..(tap + 1) * self.channels;
                    panel(self.output.table, tile, &self.weight, [rows, ks], decoding, to);
                }
                for line in self.output.lines(block, turn.place, &self.down) {
                    self.line(block, line, panels, columns, sums);
                    self.output.finish(block, line, &turn.channels, sums, tile.cols);
                }
            }
        });
    }

    /// The sums of a line of the output.
    fn line(&self, block: &Block, line: usize, panels: &[u8], columns: &[f32], sums: &mut [f32]) {
        let (tile, kernel, pixel_bytes) =
            (self.tile, self.output.args.weight.kernel, self.lines.pixel_bytes());
        let (down, across) = (&self.down, &self.across);
        let panel_bytes = panels.len() / kernel / across.zoom;
        let mut mode = Sums::Start;
        for i in 0..kernel {
            // A line of the padding adds nothing.
            let y = down.seen(line, i).checked_sub(down.before);
            let Some(from) = y.and_then(|y| self.lines.number(block.image, y)) else { continue };
            for run in 0..across.zoom.min(block.columns.len()) {
                let first = block.columns.start + run;
                let place = across.place(first);
                let taps = [0, 1, 2].map(|tap| tap * pixel_bytes);
                let a = Operand {
                    bytes: &self.lines.bytes(from)[across.seen(first, 0) * pixel_bytes..],
                    stride_bytes: across.stride * pixel_bytes,
                    taps: &taps[..kernel],
                    words: pixel_bytes / 4,
                };
                let rows = self.lines.scales(from, &block.columns, run);
                let factors = Factors { rows, cols: &columns[place * tile.cols..] };
                let to = Target { sums: &mut sums[run * tile.cols..], stride: across.zoom * tile.cols, mode };
                let panel = &panels[(place * kernel + i) * panel_bytes..][..panel_bytes];
                tile.run(a, Panel::of(panel), factors, to);
            }
            mode = Sums::GoOn;
        }
        if mode == Sums::Start {
            sums.fill(0.0);
        }
    }
}
