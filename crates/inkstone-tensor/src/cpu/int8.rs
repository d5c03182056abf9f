//! Linear layers whose weights are of 8 bits: activations are rotated and rounded once, then multiplied as bytes.
//!
//! Blocks, panels and epilogues are those of [`super::gemm`]. Each row's part in a block of k has a scale of its own:
//! sums leave the tile there anyhow. Activations are rounded before the product, all rows on all threads, into memory of
//! the device's pool.

use std::ops::Range;

use super::gemm::{BLOCK_COLS, BLOCK_ROWS, Finished, blocks};
use super::panel::Words;
use super::rows::{Matrix, MatrixMut};
use super::table::Table;
use super::threads::Chunks;
use super::tile::int8::{BLOCK_BYTES, Factors, Int8Tile, RowScale, Target};
use super::tile::{Lines, Operand, Panel, Sums};
use super::{Cpu, scratch};
use crate::ops::{Int8Rows, Linear, QuantizeInt8};
use crate::quant::MAX_GROUP;
use crate::weight::GroupRotation;
use crate::{AlignedBuffer, DType, Int8Weight, Result, Tensor};

/// A row's bytes are this much farther apart than they are long, so that they do not fall into the same L1 sets.
const PADDING_BYTES: usize = 64;
/// Elements that a thread rotates and rounds in a nanosecond, on the slow side.
const PER_NS: usize = 2;
const SCALE_BYTES: usize = size_of::<RowScale>();

pub(super) fn linear(cpu: &Cpu, args: &Linear<'_>, weight: &Int8Weight, out: &mut Tensor) -> Result<()> {
    let tile = cpu.table.int8_tile();
    let x = Rounded::of(cpu, Matrix::of(args.x), weight.rotation())?;
    let product = Product {
        table: cpu.table,
        tile,
        x: &x,
        weight: Matrix::of(weight.values()),
        scales: Matrix::of(weight.scales()),
        args,
        out: MatrixMut::of(out),
    };
    blocks(cpu, args, [BLOCK_ROWS, BLOCK_COLS], [tile.rows(), tile.cols], |rows, cols| {
        product.block(rows, cols)
    })
}

struct Product<'a> {
    table: &'static Table,
    tile: &'static Int8Tile,
    x: &'a Rounded,
    weight: Matrix<'a>,
    scales: Matrix<'a>,
    args: &'a Linear<'a>,
    out: MatrixMut<'a>,
}

impl Product<'_> {
    /// Computes a block of the output.
    fn block(&self, rows: Range<usize>, cols: Range<usize>) {
        let (tile, k) = (self.tile, self.args.x.cols());
        let words = k.min(BLOCK_BYTES).div_ceil(4);
        let stride = cols.len().next_multiple_of(tile.cols) + 16;
        let sizes = [rows.len() * stride * 4, tile.panel_bytes(words), tile.cols * words * 4, tile.cols * 4];
        scratch::with(sizes, |[sums, panel, decoding, factors]| {
            let (sums, factors) = (scratch::as_f32(sums), scratch::as_f32(factors));
            if k == 0 {
                sums.fill(0.0);
            }
            for (block, k0) in (0..k).step_by(BLOCK_BYTES).enumerate() {
                let ks = k0..k.min(k0 + BLOCK_BYTES);
                let a = self.x.operand(block, rows.clone(), ks.len());
                let mode = if block == 0 { Sums::Start } else { Sums::GoOn };
                for j in cols.clone().step_by(tile.cols) {
                    let outs = j..cols.end.min(j + tile.cols);
                    self::factors(&self.scales, outs.clone(), factors);
                    self::panel(self.table, tile, &self.weight, [outs, ks.clone()], decoding, panel);
                    let factors = Factors { rows: self.x.scales(block, rows.clone()), cols: factors };
                    let to = Target { sums: &mut sums[j - cols.start..], stride, mode };
                    let next = self.next(&cols, j, &ks);
                    tile.run(a, Panel { bytes: panel, next }, factors, to);
                }
            }
            let finished = Finished { sums, stride, rows, cols };
            // SAFETY: a block is one job's.
            unsafe { finished.store(self.table, self.args, &self.out) }
        });
    }

    /// What the panel behind that of column `j` and these `ks` is made of.
    fn next(&self, cols: &Range<usize>, j: usize, ks: &Range<usize>) -> Lines {
        let (width, k) = (self.tile.cols, self.args.x.cols());
        let panel = |j: usize, ks: Range<usize>| {
            let bytes = self.weight.bytes_from(j, ks.start);
            Lines::of(bytes, self.weight.stride_bytes(), width.min(cols.end - j), ks.len())
        };
        if j + width < cols.end {
            panel(j + width, ks.clone())
        } else if ks.end < k {
            panel(cols.start, ks.end..k.min(ks.end + ks.len()))
        } else {
            Lines::NONE
        }
    }
}

/// Writes the panel of the rows `outs` of a weight and its columns `ks`. Scratch is a word for each of the panel's.
pub(super) fn panel(
    table: &'static Table,
    tile: &Int8Tile,
    weight: &Matrix<'_>,
    [outs, ks]: [Range<usize>; 2],
    scratch: &mut [u8],
    panel: &mut [u8],
) {
    let panel = &mut panel[..tile.panel_bytes(ks.len().div_ceil(4))];
    as_stored(table, tile, weight, [outs, ks], scratch, panel);
    if weight.dtype() == DType::I8 {
        // SAFETY: the table is one of this processor's.
        unsafe { (table.rows.flip)(panel) }
    }
}

/// The same of bytes as they are stored.
fn as_stored(
    table: &'static Table,
    tile: &Int8Tile,
    weight: &Matrix<'_>,
    [outs, ks]: [Range<usize>; 2],
    scratch: &mut [u8],
    panel: &mut [u8],
) {
    let (rows, words, width) = (outs.len(), ks.len().div_ceil(4), tile.cols);
    if ks.len().is_multiple_of(4) {
        let bytes = weight.bytes_from(outs.start, ks.start);
        let stored = Words::stored(bytes, weight.stride_bytes(), [rows, words, width]);
        return stored.transpose(table, panel);
    }
    for (row, out) in scratch.chunks_exact_mut(words * 4).zip(outs) {
        let (row, behind) = row.split_at_mut(ks.len());
        row.copy_from_slice(weight.part_bytes(out, ks.clone()));
        behind.fill(0);
    }
    Words::plain(scratch, words * 4, rows, width).transpose(table, panel);
}

/// The columns' factors, aligned in memory, zeros behind the last.
pub(super) fn factors(scales: &Matrix<'_>, outs: Range<usize>, to: &mut [f32]) {
    if scales.cols() == 1 {
        let all = scales.part_bytes(0, 0..1).first_chunk().map_or(0.0, |bytes| f32::from_le_bytes(*bytes));
        return to.fill(all);
    }
    let stored = scales.part_bytes(0, outs).as_chunks::<4>().0;
    let stored = stored.iter().map(|bytes| f32::from_le_bytes(*bytes));
    for (to, from) in to.iter_mut().zip(stored.chain(std::iter::repeat(0.0))) {
        *to = from;
    }
}

/// Activations as bytes: for each block of k, the rows one below the other; behind all, their scales in the same order.
struct Rounded {
    buffer: AlignedBuffer,
    rows: usize,
    stride_bytes: usize,
    /// Bytes before the scales.
    values_bytes: usize,
}

impl Rounded {
    /// Rotates and rounds the rows of `x`.
    fn of(cpu: &Cpu, x: Matrix<'_>, rotation: GroupRotation) -> Result<Self> {
        let (rows, k) = (x.rows(), x.cols());
        let stride_bytes = stride_bytes(k);
        let values_bytes = k.div_ceil(BLOCK_BYTES) * rows * stride_bytes;
        let mut buffer = cpu.packing_buffer(rounded_bytes(rows, k))?;
        let (values, scales) = buffer.as_mut_slice().split_at_mut(values_bytes);
        let (values, scales) = (Chunks::new(values, stride_bytes), Chunks::new(scales, SCALE_BYTES));
        cpu.threads.rows(rows, k.div_ceil(PER_NS), |r| {
            scratch::with([k.min(BLOCK_BYTES) * 4], |[rotated]| {
                let rotated = scratch::as_f32(rotated);
                for (block, k0) in (0..k).step_by(BLOCK_BYTES).enumerate() {
                    let x = x.part(r, k0..k.min(k0 + BLOCK_BYTES));
                    // SAFETY: each row is one job's; blocks of k are whole groups.
                    unsafe {
                        let (to, behind) = values.take(block * rows + r).split_at_mut(x.len());
                        behind.fill(0);
                        let rotated = &mut rotated[..x.len()];
                        let part = (cpu.table.rows.quantize)(x, rotation, rotated, 0.0, to);
                        let scale = scales.take(block * rows + r).as_mut_ptr().cast();
                        let start = -i32::from(Int8Weight::ZERO) * whole(part.sum);
                        std::ptr::write(scale, RowScale { scale: part.scale, start });
                    }
                }
            });
        })?;
        Ok(Self { buffer, rows, stride_bytes, values_bytes })
    }

    fn operand(&self, block: usize, rows: Range<usize>, len: usize) -> Operand<'_> {
        let start = (block * self.rows + rows.start) * self.stride_bytes;
        let bytes = &self.buffer.as_slice()[start..self.values_bytes];
        Operand { bytes, stride_bytes: self.stride_bytes, taps: &[0], words: len.div_ceil(4) }
    }

    fn scales(&self, block: usize, rows: Range<usize>) -> &[RowScale] {
        // SAFETY: any bits are a `RowScale`.
        let (head, scales, _) = unsafe { self.buffer.as_slice()[self.values_bytes..].align_to::<RowScale>() };
        assert!(head.is_empty(), "strides are multiples of 4");
        &scales[block * self.rows + rows.start..][..rows.len()]
    }
}

/// Distance between the bytes of two rows in a block.
fn stride_bytes(k: usize) -> usize {
    k.min(BLOCK_BYTES).next_multiple_of(4) + PADDING_BYTES
}

/// Bytes that `rows` rows of `k` elements take once rounded.
pub(super) fn rounded_bytes(rows: usize, k: usize) -> usize {
    k.div_ceil(BLOCK_BYTES) * rows * (stride_bytes(k) + SCALE_BYTES)
}

/// A whole number that f32 counts exactly; 0 if it is not finite.
#[allow(clippy::cast_possible_truncation, reason = "below 2^24")]
pub(super) fn whole(v: f32) -> i32 {
    v as i32
}

/// See [`crate::ops::quantize_int8`].
pub(super) fn quantize(cpu: &Cpu, args: &QuantizeInt8<'_>, out: Int8Rows<'_>) -> Result<()> {
    let (x, group) = (Matrix::of(args.matrix), args.group);
    let k = x.cols();
    let (values, scales) = (MatrixMut::of(out.values), MatrixMut::of(out.scales));
    let squares = MatrixMut::of(out.squares);
    let (kernels, zero) = (&cpu.table.rows, f32::from(Int8Weight::ZERO));
    cpu.threads.rows(x.rows(), k, |r| {
        scratch::with([k * 4], |[rotated]| {
            let rotated = &mut scratch::as_f32(rotated)[..k];
            // SAFETY: each row is one job's; rows are whole groups.
            unsafe {
                let to = values.part_bytes(r, 0..k);
                let row = (kernels.quantize)(x.row(r), GroupRotation::Pairs(group), rotated, zero, to);
                let lost = (kernels.rounding_squares)(rotated, group, row.scale);
                scales.part_bytes(0, r..r + 1).copy_from_slice(&row.scale.to_le_bytes());
                for (to, v) in squares.part_bytes(r, 0..2).chunks_exact_mut(4).zip(lost) {
                    to.copy_from_slice(&v.to_le_bytes());
                }
            }
        });
    })
}

const _: () = assert!(
    BLOCK_BYTES.is_multiple_of(Int8Weight::MAX_GROUP) && BLOCK_BYTES.is_multiple_of(MAX_GROUP),
    "blocks of k are whole groups"
);
