//! Panels: the operand B of a tile, decoded from wherever it is stored a block at a time.

use std::ops::Range;

use super::lanes::Lanes;
use super::rows::{Matrix, Row, RowMut};
use super::table::Table;
use super::tile::Tile;
use crate::{DType, Weight};

/// A weight as a source of panels. Each format needs only a way to get a part of a row; the rest is the same for all.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    matrix: Matrix<'a>,
    /// The type in which the tile wants its operands.
    work: DType,
    /// The type of the activations: operands have its precision, whatever the tile computes in.
    operands: DType,
}

impl<'a> Source<'a> {
    pub(super) fn of(weight: &'a Weight, work: DType, operands: DType) -> Self {
        let Weight::Dense(tensor) = weight;
        Self { matrix: Matrix::of(tensor), work, operands }
    }

    /// Bytes that [`Self::decode`] needs beside the panel to decode `words` words of k.
    pub(super) fn scratch_bytes(&self, tile: &Tile, words: usize) -> usize {
        // Whole rows where they cannot be read in place, and one row on its way through bf16.
        tile.cols * words * 4 + words * 8
    }

    /// Writes the panel of the rows `outs` of the matrix (columns of the product) and its columns `ks`.
    pub(super) fn decode(
        &self,
        table: &Table,
        tile: &Tile,
        outs: Range<usize>,
        ks: Range<usize>,
        scratch: &mut [u8],
        panel: &mut [u8],
    ) {
        let row_bytes = words_of(ks.len(), self.work) * 4;
        let count = outs.len();
        let plain = self.matrix.dtype() == self.work
            && !self.rounds()
            && ks.len() * self.work.size_bytes() == row_bytes;
        let words = if plain && count > 0 && !ks.is_empty() {
            Words {
                bytes: self.matrix.bytes_from(outs.start, ks.start),
                stride_bytes: self.matrix.stride_bytes(),
                rows: count,
                words: row_bytes / 4,
                width: tile.cols,
            }
        } else {
            let (rows, through) = scratch.split_at_mut(tile.cols * row_bytes);
            for (row, out) in rows.chunks_exact_mut(row_bytes.max(1)).zip(outs) {
                let stored = self.matrix.part(out, ks.clone());
                self.convert(table, stored, row, through);
            }
            Words {
                bytes: rows,
                stride_bytes: row_bytes,
                rows: count,
                words: row_bytes / 4,
                width: tile.cols,
            }
        };
        words.transpose(table, panel);
    }

    /// Whether values lose precision on their way to a wider type, so that every table multiplies the same ones.
    fn rounds(&self) -> bool {
        self.operands == DType::Bf16 && self.work == DType::F32 && self.matrix.dtype() != DType::Bf16
    }

    /// Part of a row in the type of the tile, zeros behind its end up to a whole word.
    fn convert(&self, table: &Table, stored: Row<'_>, to: &mut [u8], through: &mut [u8]) {
        let len_bytes = stored.len() * self.work.size_bytes();
        let (to, behind) = to.split_at_mut(len_bytes);
        behind.fill(0);
        // SAFETY: the rows are equally long.
        unsafe {
            if self.rounds() {
                let bytes = &mut through[..stored.len() * 2];
                (table.rows.convert)(stored, RowMut::new(bytes, DType::Bf16));
                (table.rows.convert)(Row::new(bytes, DType::Bf16), RowMut::new(to, self.work));
            } else {
                (table.rows.convert)(stored, RowMut::new(to, self.work));
            }
        }
    }
}

/// 32-bit words that hold `len` elements.
pub(super) fn words_of(len: usize, dtype: DType) -> usize {
    (len * dtype.size_bytes()).div_ceil(4)
}

/// Rows of 32-bit words that become columns of a panel.
pub(super) struct Words<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) stride_bytes: usize,
    pub(super) rows: usize,
    /// Words of a row.
    pub(super) words: usize,
    /// Columns of the panel; those beyond `rows` become zero.
    pub(super) width: usize,
}

impl Words<'_> {
    /// Writes word `w` of row `r` to place `w * width + r`.
    pub(super) fn transpose(&self, table: &Table, panel: &mut [u8]) {
        assert!(self.rows <= self.width && panel.len() >= self.words * self.width * 4);
        assert!(self.rows == 0 || self.bytes.len() >= (self.rows - 1) * self.stride_bytes + self.words * 4);
        // SAFETY: both slices reach far enough, as just checked.
        unsafe { (table.rows.transpose)(self, panel) }
    }
}

/// # Safety
/// The processor has what `L` needs; the lengths are as [`Words::transpose`] checks.
#[inline(always)]
pub(super) unsafe fn transpose<L: Lanes>(from: &Words<'_>, to: &mut [u8]) {
    let whole = |n: usize| n - n % L::N;
    let (rows, words) = (whole(from.rows), whole(from.words));
    let (source, target) = (from.bytes.as_ptr(), to.as_mut_ptr());
    // SAFETY: squares of N rows and N words, then what is left of both, all within the lengths of the contract.
    unsafe {
        let mut row = 0;
        while row < rows {
            let mut word = 0;
            while word < words {
                let square = source.add(row * from.stride_bytes + word * 4);
                L::transpose(
                    square,
                    from.stride_bytes,
                    target.add((word * from.width + row) * 4),
                    from.width * 4,
                );
                word += L::N;
            }
            row += L::N;
        }
        for word in 0..from.words {
            let to = target.add(word * from.width * 4).cast::<u32>();
            let done = if word < words { rows } else { 0 };
            for row in done..from.rows {
                let from = source.add(row * from.stride_bytes + word * 4).cast::<u32>();
                to.add(row).write_unaligned(from.read_unaligned());
            }
            for row in from.rows..from.width {
                to.add(row).write_unaligned(0);
            }
        }
    }
}

/// Puts the 16-bit elements of two rows side by side, pair by pair: `a0 b0 a1 b1 ..`.
///
/// # Safety
/// The processor has what the caller's target features say. Lengths are limited to the shortest slice.
#[inline(always)]
pub(super) unsafe fn pair_rows(a: &[u8], b: &[u8], to: &mut [u8]) {
    let (a, b, to) = (a.as_chunks::<2>().0, b.as_chunks::<2>().0, to.as_chunks_mut::<4>().0);
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to = [a[0], a[1], b[0], b[1]];
    }
}
