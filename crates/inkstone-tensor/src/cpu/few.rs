//! Products of a few rows with weights that have to be decoded, as modulations have them, and text that grows by a word.
//!
//! A decoded word is used a few times only, so nothing is kept of it: squares of 16 words of 16 decoded rows change rows
//! and columns and are multiplied at once. Each group of a weight's rows passes by from its start to its end,
//! as it lies in memory, and what comes next is asked for meanwhile. The bits are those of [`super::gemm`]'s.

use std::ops::Range;

use super::gemm::{Finished, blocks};
use super::operand::Activations;
use super::panel::{Source, words_of};
use super::rows::{Matrix, MatrixMut};
use super::table::Table;
use super::tile::few::{FewTile, WEIGHTS};
use super::tile::turned::WeightRows;
use super::tile::{Operand, Sums};
use super::{Cpu, scratch};
use crate::ops::Linear;
use crate::{DType, Result, Tensor, Weight};

/// Columns in a job at most.
const BLOCK_COLS: usize = 64;
/// 32-bit words of k in a block: its decoded rows stay in the L1 cache. Blocks of codes are not cut.
const BLOCK_WORDS: usize = 384;
/// Columns of the widest tile, which may add further products.
const WIDEST: usize = 32;
/// Rows of sums are this much farther apart than they are long, so that they do not fall into the same L1 sets.
const PADDING: usize = 16;

/// The tile for a product, if it is one of few rows with a decoded weight.
pub(super) fn tile(table: &Table, args: &Linear<'_>) -> Option<&'static FewTile> {
    let decoded = matches!(args.weight, Weight::Quantized(_)) && args.x.cols() > 0;
    let tile = table.few_tile().filter(|_| decoded && args.x.dtype() == DType::Bf16)?;
    // Words of a weight are two bf16, whatever the activations become.
    let whole = tile.work == DType::Bf16 || args.x.cols().is_multiple_of(2);
    (whole && (1..=tile.most_rows()).contains(&args.x.rows())).then_some(tile)
}

pub(super) fn linear(cpu: &Cpu, tile: &'static FewTile, args: &Linear<'_>, out: &mut Tensor) -> Result<()> {
    let product = Product {
        table: cpu.table,
        tile,
        x: Activations::of(Matrix::of(args.x), tile.work),
        weight: Source::of(args.weight, DType::Bf16, DType::Bf16),
        args,
        out: MatrixMut::of(out),
    };
    blocks(cpu, args, [tile.most_rows(), BLOCK_COLS], [1, WEIGHTS], |_, cols| product.block(cols))
}

struct Product<'a> {
    table: &'static Table,
    tile: &'static FewTile,
    x: Activations<'a>,
    weight: Source<'a>,
    args: &'a Linear<'a>,
    out: MatrixMut<'a>,
}

impl Product<'_> {
    /// Computes some columns of the output.
    fn block(&self, cols: Range<usize>) {
        let (rows, k) = (self.args.x.rows(), self.args.x.cols());
        let block = words_of(k, DType::Bf16).min(BLOCK_WORDS);
        let stride = cols.len().next_multiple_of(WIDEST) + PADDING;
        let operand = self.x.scratch_bytes(rows, words_of(k, self.tile.work));
        let sizes = [rows * stride * 4, operand, Source::rows_bytes(WEIGHTS, block)];
        scratch::with(sizes, |[sums, operand, decoding]| {
            let sums = scratch::as_f32(sums);
            let x = self.x.block(self.table, 0..rows, 0..k, operand);
            for j in cols.clone().step_by(WEIGHTS) {
                self.multiply(x, j..cols.end.min(j + WEIGHTS), decoding, &mut sums[j - cols.start..], stride);
            }
            let finished = Finished { sums, stride, rows: 0..rows, cols };
            // SAFETY: a block is one job's.
            unsafe { finished.store(self.table, self.args, &self.out) }
        });
    }

    /// Multiplies some rows of the weight, no more than the tile takes.
    fn multiply(
        &self,
        x: Operand<'_>,
        outs: Range<usize>,
        decoding: &mut [u8],
        sums: &mut [f32],
        stride: usize,
    ) {
        let k = self.args.x.cols();
        for k0 in (0..k).step_by(2 * BLOCK_WORDS) {
            let ks = k0..k.min(k0 + 2 * BLOCK_WORDS);
            let next = if ks.end < k {
                (outs.start, ks.end)
            } else if outs.end < self.args.weight.n_out() {
                (outs.end, 0)
            } else {
                (outs.start, k0)
            };
            let ahead = self.weight.stored_rows(next);
            let words = words_of(ks.len(), DType::Bf16);
            let (bytes, stride_bytes) = self.weight.rows(self.table, outs.clone(), ks, WEIGHTS, decoding);
            let weight = WeightRows { bytes, stride_bytes, words };
            let part = Operand { bytes: &x.bytes[k0 * self.tile.work.size_bytes()..], words, ..x };
            let mode = if k0 == 0 { Sums::Start } else { Sums::GoOn };
            self.tile.run(self.args.x.rows(), part, weight, ahead, (&mut *sums, stride, mode));
        }
    }
}
