//! Products of few rows, turned: the weight's rows are those of the tile, the activations its panels.
//!
//! A panel of the weight is read once for each block of rows, so with few rows making it takes a good part of the time.
//! Here the activations become panels instead, once a call, and a weight is read where it lies or, if it has to be
//! decoded, from its decoded rows. Sums come out with rows and columns exchanged and are exchanged back before the
//! epilogue. Their bits are those of [`super::gemm`]'s.

use std::ops::Range;

use super::gemm::{self, FEW_ROWS, Finished, blocks};
use super::panel::{Source, Words, words_of};
use super::rows::{Matrix, MatrixMut, RowMut};
use super::table::Table;
use super::threads::Chunks;
use super::tile::Sums;
use super::tile::turned::{Panels, TurnedSums, TurnedTile, Wanted, WeightRows};
use super::{Cpu, scratch};
use crate::ops::Linear;
use crate::{AlignedBuffer, DType, Result, Tensor, Weight};

/// With more rows panels of the weight are as fast, and those of the activations leave the caches.
const MOST_ROWS: usize = 288;
/// With fewer rows, panels of the weight are faster: this tile reads each word of a weight by itself, that one 16 at a time.
const LEAST_ROWS: usize = FEW_ROWS + 1;
/// Columns in a job at most: their sums fit the L2 cache beside a block's panels.
const BLOCK_COLS: usize = 128;
/// Bytes of panels in a block of k: they stay in the L2 cache.
const BLOCK_BYTES: usize = 640 << 10;
/// 32-bit words of k in a block.
const BLOCK_WORDS: Range<usize> = 256..1536;
/// Words of k of which a block is a multiple: blocks of codes are not cut.
const WHOLE_WORDS: usize = 128;
/// Words of k that are packed in a job.
const PACKED_WORDS: usize = 256;
/// Elements that a thread packs in a nanosecond, on the slow side.
const PER_NS: usize = 4;
/// Rows on their way to a panel, and of sums, are this much farther apart than they are long, so that they do not fall
/// into the same L1 sets.
const PADDING_BYTES: usize = 64;
const PADDING: usize = PADDING_BYTES / 4;
/// Sums change rows and columns in squares of so many.
const SQUARE: usize = 16;

/// The tile for a product, if it is one that is turned.
pub(super) fn tile(table: &Table, args: &Linear<'_>) -> Option<&'static TurnedTile> {
    let few = (LEAST_ROWS..=MOST_ROWS).contains(&args.x.rows()) && !matches!(args.weight, Weight::Int8(_));
    table.turned_tile().filter(|_| few && args.x.dtype() == DType::Bf16 && args.x.cols() > 0)
}

pub(super) fn linear(
    cpu: &Cpu,
    tile: &'static TurnedTile,
    args: &Linear<'_>,
    out: &mut Tensor,
) -> Result<()> {
    let sizes = Sizes::of(tile, args);
    let packed = pack(cpu, Matrix::of(args.x), &sizes)?;
    let weight = Source::of(args.weight, DType::Bf16, DType::Bf16);
    let product = Product { table: cpu.table, tile, sizes, packed, weight, args, out: MatrixMut::of(out) };
    blocks(cpu, args, [MOST_ROWS, BLOCK_COLS], [1, sizes.weights], |_, cols| product.block(cols))
}

/// Bytes of the panels that a call takes.
pub(super) fn packed_bytes(tile: &TurnedTile, args: &Linear<'_>) -> usize {
    Sizes::of(tile, args).packed_bytes()
}

/// Bytes of scratch that a thread needs.
pub(super) fn scratch_bytes(tile: &TurnedTile, args: &Linear<'_>) -> usize {
    let sizes = Sizes::of(tile, args);
    let cols = args.weight.n_out().min(BLOCK_COLS) + sizes.weights;
    let most = args.terms.iter().map(|term| term.x.cols()).max().unwrap_or(0);
    let rank = most.min(2 * gemm::BLOCK_WORDS);
    let term = 2 * 4 * (args.x.rows() + 64) * (rank + PADDING);
    let block: usize = sizes.scratch(cols).iter().sum();
    (block + if rank > 0 { term } else { 0 }).max(sizes.packing_bytes())
}

/// How a product is cut.
#[derive(Clone, Copy)]
struct Sizes {
    panels: Panels,
    /// Rows of the weight that are multiplied at a time.
    weights: usize,
    /// Elements of k, and the words that hold them.
    k: usize,
    words: usize,
    /// Words of k in a block.
    block: usize,
}

impl Sizes {
    fn of(tile: &TurnedTile, args: &Linear<'_>) -> Self {
        let panels = tile.panels(args.x.rows());
        let k = args.x.cols();
        let words = words_of(k, DType::Bf16);
        let most = BLOCK_BYTES / (panels.count * panels.width() * 4);
        let parts = words.div_ceil(most.clamp(BLOCK_WORDS.start, BLOCK_WORDS.end));
        let block = words.div_ceil(parts).next_multiple_of(WHOLE_WORDS).min(words);
        Self { panels, weights: tile.weights(panels), k, words, block }
    }

    /// Bytes of a panel over all of k.
    fn panel_bytes(&self) -> usize {
        self.words * self.panels.width() * 4
    }

    fn packed_bytes(&self) -> usize {
        self.panels.count * self.panel_bytes()
    }

    /// Distance between the sums of two rows of the weight.
    fn turned_stride(&self) -> usize {
        self.high() + PADDING
    }

    /// Rows of activations with sums, in whole squares.
    fn high(&self) -> usize {
        (self.panels.count * self.panels.rows).next_multiple_of(SQUARE)
    }

    /// Bytes of a block's turned sums, its sums, and decoded rows.
    fn scratch(&self, cols: usize) -> [usize; 3] {
        let turned = cols.next_multiple_of(self.weights) * self.turned_stride() * 4;
        [turned, self.high() * stride(cols) * 4, Source::rows_bytes(self.weights, self.block)]
    }

    /// Bytes of rows on their way to a panel.
    fn packing_bytes(&self) -> usize {
        self.panels.width() * (PACKED_WORDS.min(self.words) * 4 + PADDING_BYTES)
    }
}

/// Distance between rows of sums.
fn stride(cols: usize) -> usize {
    cols.next_multiple_of(SQUARE) + PADDING
}

/// The activations as panels, one behind the other.
fn pack(cpu: &Cpu, x: Matrix<'_>, sizes: &Sizes) -> Result<AlignedBuffer> {
    let Sizes { panels, k, words, .. } = *sizes;
    let width = panels.width();
    let mut buffer = cpu.packing_buffer(sizes.packed_bytes())?;
    let parts = words.div_ceil(PACKED_WORDS);
    let lines = Chunks::new(buffer.as_mut_slice(), width * 4);
    cpu.threads.run(panels.count * parts, x.rows() * k / PER_NS, |job| {
        let (panel, first) = (job / parts, job % parts * PACKED_WORDS);
        let ks = first * 2..k.min((first + PACKED_WORDS) * 2);
        let row_bytes = words_of(ks.len(), DType::Bf16) * 4;
        let stride_bytes = row_bytes + PADDING_BYTES;
        scratch::with([width * stride_bytes], |[rows]| {
            for (i, row) in rows.chunks_exact_mut(stride_bytes).enumerate() {
                let r = panel * panels.rows + panels.row_at(i);
                let (row, behind) = row.split_at_mut(ks.len() * 2);
                behind.fill(0);
                if r < x.rows() {
                    // SAFETY: both rows have `ks.len()` elements.
                    unsafe {
                        (cpu.table.rows.convert)(x.part(r, ks.clone()), RowMut::new(row, DType::Bf16));
                    }
                } else {
                    row.fill(0);
                }
            }
            // SAFETY: each word of a panel is one job's.
            let to = unsafe { lines.take_some(panel * words + first, row_bytes / 4) };
            Words::rows(rows, stride_bytes, [width, row_bytes / 4, width]).transpose(cpu.table, to);
        });
    })?;
    Ok(buffer)
}

struct Product<'a> {
    table: &'static Table,
    tile: &'static TurnedTile,
    sizes: Sizes,
    packed: AlignedBuffer,
    weight: Source<'a>,
    args: &'a Linear<'a>,
    out: MatrixMut<'a>,
}

impl Product<'_> {
    /// Computes some columns of the output.
    fn block(&self, cols: Range<usize>) {
        let Sizes { k, block, .. } = self.sizes;
        scratch::with(self.sizes.scratch(cols.len()), |[turned, sums, decoding]| {
            let (turned, sums) = (scratch::as_f32(turned), scratch::as_f32(sums));
            for k0 in (0..k).step_by(block * 2) {
                let ks = k0..k.min(k0 + block * 2);
                for j in cols.clone().step_by(self.sizes.weights) {
                    let sums = &mut turned[(j - cols.start) * self.sizes.turned_stride()..];
                    self.multiply(&cols, j, &ks, decoding, sums);
                }
            }
            let (stride, from) = (stride(cols.len()), self.sizes.turned_stride());
            let size = [cols.len(), self.sizes.high(), stride];
            Words::rows(scratch::as_bytes(turned), from * 4, size)
                .transpose(self.table, scratch::as_bytes_mut(sums));
            let finished = Finished { sums, stride, rows: 0..self.args.x.rows(), cols };
            // SAFETY: a block is one job's.
            unsafe { finished.store(self.table, self.args, &self.out) }
        });
    }

    /// Adds the products of the rows of the weight from `j` on.
    fn multiply(
        &self,
        cols: &Range<usize>,
        j: usize,
        ks: &Range<usize>,
        decoding: &mut [u8],
        sums: &mut [f32],
    ) {
        let Sizes { panels, weights, k, .. } = self.sizes;
        let outs = j..cols.end.min(j + weights);
        let next = if outs.end < cols.end {
            (outs.end, ks.start)
        } else if ks.end < k {
            (cols.start, ks.end)
        } else {
            (j, ks.start)
        };
        let ahead = self.weight.stored_rows(next);
        let words = words_of(ks.len(), DType::Bf16);
        let (bytes, stride_bytes) = self.weight.rows(self.table, outs, ks.clone(), weights, decoding);
        let weight = WeightRows { bytes, stride_bytes, words };
        let mode = if ks.start == 0 { Sums::Start } else { Sums::GoOn };
        let panels_bytes = self.packed.as_slice().chunks_exact(self.sizes.panel_bytes());
        for (call, panel) in panels_bytes.enumerate().take(panels.count) {
            let panel = &panel[ks.start / 2 * panels.width() * 4..];
            let to = TurnedSums {
                sums: &mut sums[call * panels.rows..],
                stride: self.sizes.turned_stride(),
                mode,
            };
            self.tile.run(panels, weight, panel, Wanted { rows: ahead, call, calls: panels.count }, to);
        }
    }
}
