//! Panels: the operand B of a tile, decoded from wherever it is stored a block at a time.

use std::ops::Range;

use super::decode::QuantRows;
use super::lanes::{Lanes, Scalar};
use super::rows::{Matrix, Row, RowMut};
use super::table::Table;
use super::tile::turned::{ELEMENTS_BETWEEN, StoredRows};
use super::tile::{Lines, Tile};
use crate::{DType, Weight};

/// A weight as a source of panels. Each format needs only a way to get a part of a row; the rest is the same for all.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    stored: Stored<'a>,
    /// The type in which the tile wants its operands.
    work: DType,
    /// The type of the activations: operands have its precision, whatever the tile computes in.
    operands: DType,
    /// Whether the next panel's rows are asked for while those of one are read.
    early: bool,
}

#[derive(Clone, Copy)]
enum Stored<'a> {
    Dense(Matrix<'a>),
    Quantized(QuantRows<'a>),
}

/// A matrix whose rows hold `n_in` elements, evenly spread.
struct Stretched<'a> {
    matrix: Matrix<'a>,
    n_in: usize,
}

impl Stretched<'_> {
    /// Bytes of so many elements of a row.
    fn bytes(&self, elements: usize) -> usize {
        elements * self.matrix.cols() * self.matrix.dtype().size_bytes() / self.n_in.max(1)
    }
}

/// Rows on their way to a panel are this much longer than their elements, so that they do not fall into the same L1
/// sets.
const PADDING_BYTES: usize = 64;

impl<'a> Source<'a> {
    pub(super) fn of(weight: &'a Weight, work: DType, operands: DType) -> Self {
        let stored = match weight {
            Weight::Dense(tensor) => Stored::Dense(Matrix::of(tensor)),
            Weight::Quantized(matrix) => Stored::Quantized(QuantRows::of(matrix)),
            Weight::Int8(_) => unreachable!("rotated rows are multiplied elsewhere"),
        };
        Self { stored, work, operands, early: false }
    }

    /// The same, asking for the next panel's rows while one is made where `early` says so. Few rows of activations are
    /// multiplied too soon for the tile alone to ask for them.
    pub(super) fn early(self, early: bool) -> Self {
        Self { early, ..self }
    }

    /// Bytes that [`Self::decode`] needs beside the panel to decode `words` words of k.
    pub(super) fn scratch_bytes(&self, tile: &Tile, words: usize) -> usize {
        // Whole rows where they cannot be read in place, and one row on its way through bf16.
        Self::rows_bytes(tile.cols, words)
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
        self.decode_behind(0, table, tile, outs, ks, scratch, panel);
    }

    /// The same with `lead` columns of zeros in front.
    #[allow(clippy::too_many_arguments, reason = "those of `decode`")]
    pub(super) fn decode_behind(
        &self,
        lead: usize,
        table: &Table,
        tile: &Tile,
        outs: Range<usize>,
        ks: Range<usize>,
        scratch: &mut [u8],
        panel: &mut [u8],
    ) {
        let words = if lead == 0 { self.in_place(tile.cols, &outs, &ks) } else { None };
        let decoded = || self.decoded(table, [lead, tile.cols], outs, ks, scratch);
        words.unwrap_or_else(decoded).transpose(table, panel);
    }

    /// Bytes that [`Self::rows`] needs for so many rows of so many words.
    pub(super) fn rows_bytes(rows: usize, words: usize) -> usize {
        rows * (words * 4 + PADDING_BYTES) + words * 8
    }

    /// The rows `outs` of the matrix, their columns `ks`, as words of the tile's type, and the distance in bytes between
    /// them: where they lie if that can be and there are `count` of them, else in scratch that has room for as many.
    pub(super) fn rows<'s>(
        &self,
        table: &Table,
        outs: Range<usize>,
        ks: Range<usize>,
        count: usize,
        scratch: &'s mut [u8],
    ) -> (&'s [u8], usize)
    where
        'a: 's,
    {
        let words = self.in_place(count, &outs, &ks).filter(|words| words.rows == count);
        let words = words.unwrap_or_else(|| self.decoded(table, [0, count], outs, ks, scratch));
        assert!(words.form == Form::Plain, "rows are words of the tile");
        (words.bytes, words.stride_bytes)
    }

    /// The stored rows from element (row, column) on.
    pub(super) fn stored_rows(&self, (row, col): (usize, usize)) -> StoredRows {
        let codes = self.codes();
        StoredRows {
            start: codes.matrix.bytes_from(row, 0).as_ptr().wrapping_add(codes.bytes(col)),
            stride_bytes: codes.matrix.stride_bytes(),
            step_bytes: codes.bytes(ELEMENTS_BETWEEN),
        }
    }

    /// Where the elements lie, but for scales that lie elsewhere: they are too few to be asked for.
    fn codes(&self) -> Stretched<'a> {
        match self.stored {
            Stored::Dense(matrix) => Stretched { matrix, n_in: matrix.cols() },
            Stored::Quantized(matrix) => Stretched { matrix: matrix.codes(), n_in: matrix.n_in() },
        }
    }

    /// Rows on their way to a panel of `width` columns, in scratch, behind `lead` rows of zeros.
    fn decoded<'s>(
        &self,
        table: &Table,
        [lead, width]: [usize; 2],
        outs: Range<usize>,
        ks: Range<usize>,
        scratch: &'s mut [u8],
    ) -> Words<'s> {
        let (dtype, form) = self.row_form(ks.len());
        let row_bytes = words_of(ks.len(), dtype) * 4;
        let stride_bytes = row_bytes + PADDING_BYTES;
        let (bytes, through) = scratch.split_at_mut(width * stride_bytes);
        let rows = lead + outs.len();
        bytes[..lead * stride_bytes].fill(0);
        for (row, out) in bytes.chunks_exact_mut(stride_bytes).skip(lead).zip(outs) {
            let (row, behind) = row[..row_bytes].split_at_mut(ks.len() * dtype.size_bytes());
            if !behind.is_empty() {
                behind.fill(0);
            }
            self.convert(table, out, ks.clone(), RowMut::new(row, dtype), through);
        }
        Words { bytes, stride_bytes, rows, words: row_bytes / 4, width, ahead_bytes: 0, form }
    }

    /// The memory that [`Self::decode`] reads for this panel.
    pub(super) fn lines(&self, outs: &Range<usize>, ks: &Range<usize>) -> Lines {
        if outs.is_empty() {
            return Lines::NONE;
        }
        let codes = self.codes();
        let bytes = &codes.matrix.bytes_from(outs.start, 0)[codes.bytes(ks.start)..];
        Lines::of(bytes, codes.matrix.stride_bytes(), outs.len(), codes.bytes(ks.len()))
    }

    /// The stored words themselves, if the panel can be made of them.
    fn in_place(&self, width: usize, outs: &Range<usize>, ks: &Range<usize>) -> Option<Words<'a>> {
        let Stored::Dense(matrix) = &self.stored else { return None };
        let stored = matrix.dtype();
        let row_bytes = ks.len() * stored.size_bytes();
        let widen = (stored, self.work) == (DType::Bf16, DType::F32);
        let fits = (stored == self.work && !self.rounds()) || widen;
        if !fits || row_bytes == 0 || !row_bytes.is_multiple_of(4) || outs.is_empty() {
            return None;
        }
        let stride_bytes = matrix.stride_bytes();
        Some(Words {
            bytes: matrix.bytes_from(outs.start, ks.start),
            stride_bytes,
            rows: outs.len(),
            words: row_bytes / 4,
            width,
            ahead_bytes: if self.early { width * stride_bytes } else { 0 },
            form: if widen { Form::Widened } else { Form::Plain },
        })
    }

    /// Whether values lose precision on their way to a wider type, so that every table multiplies the same ones.
    fn rounds(&self) -> bool {
        let stored = match &self.stored {
            Stored::Dense(matrix) => matrix.dtype(),
            Stored::Quantized(_) => DType::F32,
        };
        self.operands == DType::Bf16 && self.work == DType::F32 && stored != DType::Bf16
    }

    /// The type of a row of `len` elements in front of the transposition, and what its words are. Values that are rounded
    /// to bf16 are widened by the transposition, as stored bf16 is.
    fn row_form(&self, len: usize) -> (DType, Form) {
        if self.rounds() && len.is_multiple_of(2) {
            (DType::Bf16, Form::Widened)
        } else {
            (self.work, Form::Plain)
        }
    }

    /// Part of a row in the type of `to`.
    #[inline(always)]
    fn convert(&self, table: &Table, out: usize, ks: Range<usize>, to: RowMut<'_>, through: &mut [u8]) {
        if !(self.rounds() && to.dtype() == DType::F32) {
            return self.convert_stored(table, out, ks, to);
        }
        let through = &mut through[..ks.len() * 2];
        self.convert_stored(table, out, ks, RowMut::new(through, DType::Bf16));
        // SAFETY: the rows are equally long.
        unsafe { (table.rows.convert)(Row::new(through, DType::Bf16), to) }
    }

    /// The same without a rounding on the way.
    #[inline(always)]
    fn convert_stored(&self, table: &Table, out: usize, ks: Range<usize>, to: RowMut<'_>) {
        // SAFETY: the part of the row and `to` are equally long.
        unsafe {
            match self.stored {
                Stored::Dense(matrix) => (table.rows.convert)(matrix.part(out, ks), to),
                Stored::Quantized(matrix) => table.decode(&matrix.row(out), ks, to),
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
    bytes: &'a [u8],
    stride_bytes: usize,
    rows: usize,
    /// Words of a row.
    words: usize,
    /// Columns of the panel; those beyond `rows` become zero.
    width: usize,
    /// Distance to what is likely wanted next: it is fetched while these words are worked on.
    ahead_bytes: usize,
    form: Form,
}

/// What a word is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A word of the panel.
    Plain,
    /// Two bf16 that become two f32, one below the other.
    Widened,
}

impl<'a> Words<'a> {
    /// Rows of scratch that are words of the panel already.
    pub(super) fn plain(bytes: &'a [u8], row_bytes: usize, rows: usize, width: usize) -> Self {
        Self::rows(bytes, row_bytes, [rows, row_bytes / 4, width])
    }

    /// Rows of scratch that are words of the panel already, some bytes apart.
    pub(super) fn rows(bytes: &'a [u8], stride_bytes: usize, [rows, words, width]: [usize; 3]) -> Self {
        Self { bytes, stride_bytes, rows, words, width, ahead_bytes: 0, form: Form::Plain }
    }

    /// Stored rows that are words of the panel already, with more such rows behind them.
    pub(super) fn stored(bytes: &'a [u8], stride_bytes: usize, [rows, words, width]: [usize; 3]) -> Self {
        Self { bytes, stride_bytes, rows, words, width, ahead_bytes: width * stride_bytes, form: Form::Plain }
    }

    /// Writes word `w` of row `r` to place `w * width + r`; of a word of two, to `2 w * width + r` and a row below.
    pub(super) fn transpose(&self, table: &Table, panel: &mut [u8]) {
        let height = self.words * if self.form == Form::Widened { 2 } else { 1 };
        assert!(self.rows <= self.width && panel.len() >= height * self.width * 4);
        assert!(self.rows == 0 || self.bytes.len() >= (self.rows - 1) * self.stride_bytes + self.words * 4);
        // SAFETY: both slices reach far enough, as just checked.
        unsafe { (table.rows.transpose)(self, panel) }
    }
}

/// # Safety
/// The processor has what `L` needs; the lengths are as [`Words::transpose`] checks.
#[inline(always)]
pub(super) unsafe fn transpose<L: Lanes>(from: &Words<'_>, to: &mut [u8]) {
    let (rows, words) = (from.rows - from.rows % L::N, from.words - from.words % L::N);
    let height = if from.form == Form::Widened { 2 } else { 1 };
    let pitch = from.width * 4;
    let (source, target) = (from.bytes.as_ptr(), to.as_mut_ptr());
    // SAFETY: squares of N rows and N words, then what is left of both, all within the lengths of the contract.
    unsafe {
        for row in (0..rows).step_by(L::N) {
            for word in (0..words).step_by(L::N) {
                let square = source.add(row * from.stride_bytes + word * 4);
                let next = square.wrapping_add(from.ahead_bytes);
                let to = target.add(word * height * pitch + row * 4);
                match from.form {
                    Form::Plain => L::transpose(square, from.stride_bytes, to, pitch, next),
                    Form::Widened => L::transpose_widened(square, from.stride_bytes, to, pitch, next),
                }
            }
        }
        for row in 0..from.rows {
            for word in (if row < rows { words } else { 0 })..from.words {
                let square = source.add(row * from.stride_bytes + word * 4);
                let to = target.add(word * height * pitch + row * 4);
                match from.form {
                    Form::Plain => Scalar::transpose(square, 0, to, 0, square),
                    Form::Widened => Scalar::transpose_widened(square, 0, to, pitch, square),
                }
            }
        }
        for line in (0..from.words * height).take_while(|_| from.rows < from.width) {
            target.add(line * pitch + from.rows * 4).write_bytes(0, pitch - from.rows * 4);
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
