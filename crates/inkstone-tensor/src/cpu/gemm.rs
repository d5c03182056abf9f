//! Matrix products: blocks of rows and columns are the jobs; inside of one, blocks of k, then panels of the weight.
//!
//! Sums stay in f32 scratch until k is done, then go through the epilogue. The weight is decoded panel by panel in
//! each job, which costs a few percent from some hundred rows on; nothing is packed ahead, so weights are used where
//! they lie. A job of more rows than a block keeps its panels until the last of its blocks. For an output element the
//! order of summation is that of k, whatever the blocks. Few rows of bf16 go to [`super::turned`] or [`super::few`], products
//! of bytes to [`super::int8`].

use std::ops::Range;

use super::Cpu;
use super::operand::Activations;
use super::panel::{Source, words_of};
use super::rows::{Matrix, MatrixMut, Row};
use super::scratch;
use super::table::Table;
use super::tile::{Lines, Panel, Sums, Tile};
use crate::ops::{Epilogue, Linear, Term};
use crate::{ConvRot, DType, Quantized, Result, Shape, Tensor, Weight};

/// 32-bit words of k in a block: a panel of it fits the L1 cache beside the rows of A.
pub(super) const BLOCK_WORDS: usize = 256;
/// Rows in a block at most: A's block stays in the L2 cache.
pub(super) const BLOCK_ROWS: usize = 560;
/// Columns in a block at most: its sums fit the L2 cache beside A's block.
pub(super) const BLOCK_COLS: usize = 256;
/// Rows and columns of a job whose blocks of rows share panels that were decoded: as many sums.
pub(super) const SHARING: [usize; 2] = [2 * BLOCK_ROWS, BLOCK_COLS / 2];
/// Rows of activations whose products with a panel take less time than reading the next one does.
pub(super) const FEW_ROWS: usize = 8;
/// Jobs for each thread at least, where the product is large enough, so that all end at about the same time.
const JOBS_PER_THREAD: usize = 4;
/// Elements that a thread rotates in a nanosecond, on the slow side.
const ROTATED_PER_NS: usize = 4;
/// Products of elements that a thread computes in a nanosecond, on the slow side.
const PRODUCTS_PER_NS: usize = 64;

pub(super) fn linear(cpu: &Cpu, args: &Linear<'_>, out: &mut Tensor) -> Result<()> {
    if let Weight::Int8(weight) = args.weight {
        return super::int8::linear(cpu, args, weight, out);
    }
    if let Some(matrix) = rotated(args) {
        let x = rotate(cpu, args.x, matrix.group())?;
        let weight = Quantized::ConvRot(matrix.as_it_lies()).into();
        return linear(cpu, &Linear { x: &x, weight: &weight, ..args.clone() }, out);
    }
    if let Some(tile) = super::few::tile(cpu.table, args) {
        return super::few::linear(cpu, tile, args, out);
    }
    if let Some(tile) = super::turned::tile(cpu.table, args) {
        return super::turned::linear(cpu, tile, args, out);
    }
    let (tile, work) = cpu.table.tile(args.x.dtype());
    let product = Product {
        table: cpu.table,
        tile,
        work,
        x: Activations::of(Matrix::of(args.x), work),
        weight: Source::of(args.weight, work, args.x.dtype()).early(args.x.rows() <= FEW_ROWS),
        args,
        out: MatrixMut::of(out),
    };
    let most = if shares(cpu.table, args) { SHARING } else { [BLOCK_ROWS, BLOCK_COLS] };
    blocks(cpu, args, most, [tile.rows(), tile.cols], |rows, cols| product.block(rows, cols))
}

/// The weight, where the activations are rotated as it is, since they are fewer. Those of f32 are not: their weights are not rounded.
pub(super) fn rotated<'a>(args: &Linear<'a>) -> Option<&'a ConvRot> {
    let Weight::Quantized(matrix) = args.weight else { return None };
    let Quantized::ConvRot(matrix) = &**matrix else { return None };
    Some(matrix).filter(|matrix| matrix.group() > 1 && args.x.dtype() == DType::Bf16)
}

/// Memory for activations that are rotated.
pub(super) fn rotated_rows(x: &Tensor) -> Result<Tensor> {
    Tensor::empty(x.device(), DType::Bf16, Shape::matrix(x.rows(), x.cols()))
}

/// Activations rotated in groups, rounded to bf16.
fn rotate(cpu: &Cpu, x: &Tensor, group: usize) -> Result<Tensor> {
    let mut rotated = rotated_rows(x)?;
    let (x, to) = (Matrix::of(x), MatrixMut::of(&mut rotated));
    cpu.threads.rows(x.rows(), x.cols().div_ceil(ROTATED_PER_NS), |r| {
        // SAFETY: each row is one job's; rows are whole groups of one that there is a rotation for.
        unsafe { (cpu.table.rows.rotate)(x.row(r), group, to.part(r, 0..x.cols())) }
    })?;
    Ok(rotated)
}

/// Whether panels are kept for a second block of rows: where they are decoded, and where the activations of narrow jobs
/// need no copies.
pub(super) fn shares(table: &Table, args: &Linear<'_>) -> bool {
    let in_place = Activations::of(Matrix::of(args.x), table.tile(args.x.dtype()).1).in_place();
    in_place && matches!(args.weight, Weight::Quantized(_)) && args.x.rows() > BLOCK_ROWS
}

/// Calls `block` with the rows and columns of each block of the output, on all threads; a block has about `most` rows and
/// columns at most, and `tile` is the size of the tile that computes it.
pub(super) fn blocks(
    cpu: &Cpu,
    args: &Linear<'_>,
    most: [usize; 2],
    tile: [usize; 2],
    block: impl Fn(Range<usize>, Range<usize>) + Sync,
) -> Result<()> {
    let (rows, cols, k) = (args.x.rows(), args.weight.n_out(), args.x.cols());
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let block_rows = even_blocks(rows, most[0], tile[0]);
    let down = rows.div_ceil(block_rows);
    let wanted = (JOBS_PER_THREAD * cpu.threads.count()).div_ceil(down);
    let block_cols = even_blocks(cols, most[1].min(cols.div_ceil(wanted)), tile[1]);
    let across = cols.div_ceil(block_cols);
    let work_ns = rows * cols * k / PRODUCTS_PER_NS + rows * cols;
    cpu.threads.run(down * across, work_ns, |job| {
        // Jobs that follow each other share columns: what one reads of the weight, the next finds in a cache.
        let (i, j) = (job % down * block_rows, job / down * block_cols);
        block(i..rows.min(i + block_rows), j..cols.min(j + block_cols));
    })
}

/// The size of equal blocks that cover `len`, at most about `most` each, multiples of `step`.
fn even_blocks(len: usize, most: usize, step: usize) -> usize {
    let blocks = len.div_ceil(most.max(step));
    len.div_ceil(blocks).next_multiple_of(step)
}

struct Product<'a> {
    table: &'static Table,
    tile: &'static Tile,
    /// The type in which the tile wants its operands.
    work: DType,
    x: Activations<'a>,
    weight: Source<'a>,
    args: &'a Linear<'a>,
    out: MatrixMut<'a>,
}

impl Product<'_> {
    /// Computes a block of the output.
    fn block(&self, rows: Range<usize>, cols: Range<usize>) {
        let k = self.args.x.cols();
        let words = words_of(k, self.work).min(BLOCK_WORDS);
        let block_k = BLOCK_WORDS * 4 / self.work.size_bytes();
        let stride = cols.len().next_multiple_of(self.tile.cols) + 16;
        let block_rows = even_blocks(rows.len(), BLOCK_ROWS, self.tile.rows());
        let panel_bytes = self.tile.panel_bytes(words);
        let kept = if block_rows < rows.len() { cols.len().div_ceil(self.tile.cols) } else { 1 };
        let sizes = [
            rows.len() * stride * 4,
            self.x.scratch_bytes(block_rows, words),
            kept * panel_bytes,
            self.weight.scratch_bytes(self.tile, words),
        ];
        scratch::with(sizes, |[sums, operand, panels, decoding]| {
            let sums = scratch::as_f32(sums);
            if k == 0 {
                sums.fill(0.0);
            }
            for k0 in (0..k).step_by(block_k) {
                let ks = k0..k.min(k0 + block_k);
                let mode = if k0 == 0 { Sums::Start } else { Sums::GoOn };
                for first in rows.clone().step_by(block_rows) {
                    let block = first..rows.end.min(first + block_rows);
                    let a = self.x.block(self.table, block.clone(), ks.clone(), operand);
                    for (i, j) in cols.clone().step_by(self.tile.cols).enumerate() {
                        let panel = &mut panels[i % kept * panel_bytes..][..panel_bytes];
                        let mut next = Lines::NONE;
                        if first == rows.start {
                            let outs = j..cols.end.min(j + self.tile.cols);
                            self.weight.decode(self.table, self.tile, outs, ks.clone(), decoding, panel);
                            next = self.next(&cols, j, &ks);
                        }
                        let sums = &mut sums[(first - rows.start) * stride + j - cols.start..];
                        self.tile.run(block.len(), a, Panel { bytes: panel, next }, sums, stride, mode);
                    }
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
        let panel = |j: usize| j..cols.end.min(j + width);
        if j + width < cols.end {
            self.weight.lines(&panel(j + width), ks)
        } else if ks.end < k {
            self.weight.lines(&panel(cols.start), &(ks.end..k.min(ks.end + ks.len())))
        } else {
            Lines::NONE
        }
    }
}

/// The sums of a block of the output. Their rows have room for the columns of any tile.
pub(super) struct Finished<'a> {
    pub(super) sums: &'a mut [f32],
    /// Distance between rows of the sums.
    pub(super) stride: usize,
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
}

impl Finished<'_> {
    /// Adds the further products, and takes the sums through the epilogue.
    ///
    /// # Safety
    /// No other job writes this part of the output.
    pub(super) unsafe fn store(mut self, table: &'static Table, args: &Linear<'_>, out: &MatrixMut<'_>) {
        args.terms.iter().for_each(|term| self.add(table, term));
        let cols = self.cols;
        let bias = args.bias.map(|bias| Matrix::of(bias).part(0, cols.clone()));
        let kernels = &table.rows;
        for (r, sums) in self.rows.zip(self.sums.chunks(self.stride)) {
            let sums = Row::f32s(&sums[..cols.len()]);
            // SAFETY: the caller's promise; all rows have `cols.len()` elements.
            unsafe {
                let to = out.part(r, cols.clone());
                match args.epilogue {
                    Epilogue::Store(activation) => (kernels.store)(sums, bias, activation, to),
                    Epilogue::AddTo(gate) => {
                        let gate = gate.map(|g| Matrix::of(&g.table).part(g.entry_of(r), cols.clone()));
                        (kernels.add_to)(sums, bias, gate, to);
                    }
                    Epilogue::MulTo => (kernels.mul_to)(sums, bias, to),
                }
            }
        }
    }

    /// Adds a product to the sums.
    fn add(&mut self, table: &'static Table, term: &Term<'_>) {
        let (tile, work) = table.tile(term.x.dtype());
        let (k, size) = (term.x.cols(), term.weight.n_out());
        let (words, block_k) = (words_of(k, work).min(BLOCK_WORDS), BLOCK_WORDS * 4 / work.size_bytes());
        let x = |group| Activations::of(Matrix::of(term.x).every(term.groups, group), work);
        let weight = Source::of(term.weight, work, term.x.dtype());
        let sizes = [
            x(0).scratch_bytes(self.rows.len(), words),
            tile.panel_bytes(words),
            weight.scratch_bytes(tile, words),
        ];
        // Within the layer's own call: it takes so little that buffers of its own cost nothing.
        scratch::with(sizes, |[operand, panel, decoding]| {
            for group in self.cols.start / size..self.cols.end.div_ceil(size) {
                let first = group * size;
                let own = self.cols.start.max(first)..self.cols.end.min(first + size);
                // Panels begin where those of the sums do, so that none reaches beyond a row of them.
                let skipped = (own.start - self.cols.start) / tile.cols * tile.cols;
                for k0 in (0..k).step_by(block_k) {
                    let ks = k0..k.min(k0 + block_k);
                    let a = x(group).block(table, self.rows.clone(), ks.clone(), operand);
                    for j in (self.cols.start + skipped..own.end).step_by(tile.cols) {
                        let outs = own.start.max(j)..own.end.min(j + tile.cols);
                        let lead = outs.start - j;
                        let outs = outs.start - first..outs.end - first;
                        weight.decode_behind(lead, table, tile, outs, ks.clone(), decoding, panel);
                        let sums = &mut self.sums[j - self.cols.start..];
                        tile.run(self.rows.len(), a, Panel::of(panel), sums, self.stride, Sums::GoOn);
                    }
                }
            }
        });
    }
}
