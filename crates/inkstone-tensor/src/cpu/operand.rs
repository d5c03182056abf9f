//! The operand A of a tile: activations where they lie, or a block of them in the tile's type.

use std::ops::Range;

use super::lanes::Lanes;
use super::panel::words_of;
use super::rows::{Matrix, Row, RowMut};
use super::table::Table;
use super::tile::Operand;
use crate::DType;

/// Rows that are asked for before they are worked on. They lie in as many places, which no processor foresees.
const ROWS_AHEAD: usize = 8;
/// A copy's rows are this much longer than their elements, so that they do not fall into the same L1 sets.
const PADDING_BYTES: usize = 64;
const LINE_BYTES: usize = 64;

/// Activations as a source of operands.
#[derive(Clone, Copy)]
pub(super) struct Activations<'a> {
    matrix: Matrix<'a>,
    /// The type in which the tile wants its operands.
    work: DType,
}

impl<'a> Activations<'a> {
    pub(super) fn of(matrix: Matrix<'a>, work: DType) -> Self {
        Self { matrix, work }
    }

    /// Whether the tile can read them where they lie.
    pub(super) fn in_place(&self) -> bool {
        let whole_words = (self.matrix.cols() * self.work.size_bytes()).is_multiple_of(4);
        self.matrix.dtype() == self.work && whole_words
    }

    /// Bytes that [`Self::block`] needs for so many rows of so many words.
    pub(super) fn scratch_bytes(&self, rows: usize, words: usize) -> usize {
        if self.in_place() { 0 } else { rows * (words * 4 + PADDING_BYTES) }
    }

    /// A block of them, in `scratch` if need be.
    pub(super) fn block<'s>(
        &self,
        table: &Table,
        rows: Range<usize>,
        ks: Range<usize>,
        scratch: &'s mut [u8],
    ) -> Operand<'s>
    where
        'a: 's,
    {
        let words = words_of(ks.len(), self.work);
        if self.in_place() {
            let bytes = self.matrix.bytes_from(rows.start, ks.start);
            return Operand { bytes, stride_bytes: self.matrix.stride_bytes(), taps: &[0], words };
        }
        let stride_bytes = words * 4 + PADDING_BYTES;
        for (r, row) in rows.zip(scratch.chunks_exact_mut(stride_bytes)) {
            let (row, behind) = row.split_at_mut(ks.len() * self.work.size_bytes());
            behind.fill(0);
            let ahead = Ahead::of(&self.matrix);
            // SAFETY: both rows have `ks.len()` elements.
            unsafe {
                (table.rows.convert_ahead)(
                    self.matrix.part(r, ks.clone()),
                    ahead,
                    RowMut::new(row, self.work),
                )
            }
        }
        Operand { bytes: scratch, stride_bytes, taps: &[0], words }
    }
}

/// How far behind a row's start lies the one to ask for.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    bytes: usize,
}

impl Ahead {
    /// In a matrix whose rows are gone through one by one.
    pub(super) fn of(matrix: &Matrix<'_>) -> Self {
        Self { bytes: ROWS_AHEAD * matrix.stride_bytes() }
    }
}

/// Converts a row and asks for a later one.
///
/// # Safety
/// The processor has what `L` needs, and the rows are equally long.
#[inline(always)]
pub(super) unsafe fn convert_ahead_row<L: Lanes>(x: Row<'_>, ahead: Ahead, to: RowMut<'_>) {
    // SAFETY: the caller's promise; any address may be asked for.
    unsafe {
        for line in (0..x.len_bytes()).step_by(LINE_BYTES) {
            L::fetch(x.start().wrapping_add(ahead.bytes + line));
        }
        super::elementwise::convert_row::<L>(x, to);
    }
}
