//! Tensors as the kernels see them: rows with a start, a length and an element type. No alignment is promised,
//! since weights may lie anywhere in a mapped file.

use std::marker::PhantomData;
use std::ops::Range;

use super::lanes::Lanes;
use crate::{DType, Tensor};

/// That an operation's rows have the elements that its kernel counts on. [`crate::ops`] gives errors for what does not
/// fit; this is for those who call a device's methods themselves, and once an operation.
pub(super) fn assert_cols(cols: usize, rows: &[usize]) {
    assert!(rows.iter().all(|row| *row == cols), "rows of {rows:?} elements, a kernel counts on {cols}");
}

/// Elements side by side, for reading: f32, bf16 or f16.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    start: *const u8,
    len: usize,
    dtype: DType,
    life: PhantomData<&'a [u8]>,
}

// SAFETY: a row is a shared borrow of bytes and only reads them.
unsafe impl Send for Row<'_> {}
// SAFETY: as above.
unsafe impl Sync for Row<'_> {}

impl<'a> Row<'a> {
    pub(super) fn new(bytes: &'a [u8], dtype: DType) -> Self {
        assert!(dtype.is_float(), "{dtype} elements where a kernel takes floats");
        let len = bytes.len() / dtype.size_bytes().max(2);
        Self { start: bytes.as_ptr(), len, dtype, life: PhantomData }
    }

    pub(super) fn f32s(values: &'a [f32]) -> Self {
        Self { start: values.as_ptr().cast(), len: values.len(), dtype: DType::F32, life: PhantomData }
    }

    pub(super) fn len(self) -> usize {
        self.len
    }

    pub(super) fn len_bytes(self) -> usize {
        self.len * self.dtype.size_bytes()
    }

    pub(super) fn start(self) -> *const u8 {
        self.start
    }

    pub(super) fn dtype(self) -> DType {
        self.dtype
    }

    /// The same row where the type is a constant to the compiler. It must be the row's own.
    #[inline(always)]
    pub(super) fn known_as(self, dtype: DType) -> Self {
        debug_assert!(self.dtype == dtype);
        Self { dtype, ..self }
    }

    /// Elements `range`; the caller's range must lie within the row.
    pub(super) fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len);
        let start = self.start.wrapping_add(range.start * self.dtype.size_bytes());
        Self { start, len: range.len(), ..self }
    }

    /// Asks for a part of the next row, where rows follow each other, while pass `pass` of `passes` over this one is at its
    /// element `i`: so that memory works while they compute, and in none of them more than in the others.
    #[inline(always)]
    pub(super) unsafe fn fetch_next<L: Lanes>(self, i: usize, [pass, passes]: [usize; 2]) {
        let next = self.len + (pass * self.len + i) / passes;
        // SAFETY: any address may be asked for.
        unsafe { L::fetch(self.start.wrapping_add(next * self.dtype.size_bytes())) }
    }

    /// Lanes with the elements from `i` on: `n` of them, zeros behind.
    ///
    /// # Safety
    /// `i + n <= len`, `n <= L::N`, and the processor has what `L` needs.
    #[inline(always)]
    pub(super) unsafe fn load<L: Lanes>(self, i: usize, n: usize) -> L {
        debug_assert!(i + n <= self.len && n <= L::N);
        // SAFETY: the elements are in the row, by the contract above.
        unsafe {
            match self.dtype {
                DType::F32 => L::load(self.start.cast::<f32>().add(i), n),
                DType::Bf16 => L::load_bf16(self.start.cast::<u16>().add(i), n),
                _ => L::load_f16(self.start.cast::<u16>().add(i), n),
            }
        }
    }

    /// The first and the second elements of the `n` pairs from element `i` on.
    ///
    /// # Safety
    /// `i + 2 n <= len`, `n <= L::N`, and the processor has what `L` needs.
    #[inline(always)]
    pub(super) unsafe fn load_pairs<L: Lanes>(self, i: usize, n: usize) -> (L, L) {
        // SAFETY: the elements are in the row, by the contract above.
        unsafe {
            if self.dtype == DType::Bf16 {
                return L::load_bf16_pairs(self.start.cast::<u16>().add(i), n);
            }
            let low = L::N.min(2 * n);
            L::unzip(self.load(i, low), self.load(i + low, 2 * n - low))
        }
    }
}

/// Elements side by side, for writing: f32 or bf16.
pub(super) struct RowMut<'a> {
    start: *mut u8,
    len: usize,
    dtype: DType,
    life: PhantomData<&'a mut [u8]>,
}

impl<'a> RowMut<'a> {
    pub(super) fn new(bytes: &'a mut [u8], dtype: DType) -> Self {
        assert!(matches!(dtype, DType::F32 | DType::Bf16), "kernels do not write {dtype}");
        let len = bytes.len() / dtype.size_bytes().max(2);
        Self { start: bytes.as_mut_ptr(), len, dtype, life: PhantomData }
    }

    pub(super) fn f32s(values: &'a mut [f32]) -> Self {
        Self { start: values.as_mut_ptr().cast(), len: values.len(), dtype: DType::F32, life: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where its first element is.
    pub(super) fn start(&mut self) -> *mut u8 {
        self.start
    }

    /// Takes the elements of a row of the same type.
    ///
    /// # Safety
    /// The row is as long as this one, and of its type.
    #[inline(always)]
    pub(super) unsafe fn copy(self, x: Row<'_>) {
        debug_assert!(x.dtype == self.dtype && x.len == self.len);
        // SAFETY: the caller's promise; `self` is borrowed mutably, so they do not overlap.
        unsafe { self.start.copy_from_nonoverlapping(x.start, self.len * self.dtype.size_bytes()) }
    }

    /// As [`Row::known_as`].
    #[inline(always)]
    pub(super) fn known_as(self, dtype: DType) -> Self {
        debug_assert!(self.dtype == dtype);
        Self { dtype, ..self }
    }

    /// What the row holds now.
    ///
    /// # Safety
    /// As [`Row::load`].
    #[inline(always)]
    pub(super) unsafe fn load<L: Lanes>(&self, i: usize, n: usize) -> L {
        let row = Row { start: self.start, len: self.len, dtype: self.dtype, life: PhantomData };
        // SAFETY: the same contract.
        unsafe { row.load(i, n) }
    }

    /// Writes the first `n` lanes to the elements from `i` on.
    ///
    /// # Safety
    /// As [`Row::load`].
    #[inline(always)]
    pub(super) unsafe fn store<L: Lanes>(&mut self, i: usize, n: usize, v: L) {
        debug_assert!(i + n <= self.len && n <= L::N);
        // SAFETY: the elements are in the row, by the contract above.
        unsafe {
            match self.dtype {
                DType::F32 => v.store(self.start.cast::<f32>().add(i), n),
                _ => v.store_bf16(self.start.cast::<u16>().add(i), n),
            }
        }
    }

    /// Writes two registers' elements from element `i` on. With `NUMBERS` none of them may be a NaN.
    ///
    /// # Safety
    /// As [`Self::store`], for `2 N` elements.
    #[inline(always)]
    pub(super) unsafe fn store_two<L: Lanes, const NUMBERS: bool>(&mut self, i: usize, a: L, b: L) {
        debug_assert!(i + 2 * L::N <= self.len);
        // SAFETY: the elements are in the row, by the contract above.
        unsafe {
            if self.dtype == DType::Bf16 {
                return L::store_bf16_two::<NUMBERS>(a, b, self.start.cast::<u16>().add(i));
            }
            self.store(i, L::N, a);
            self.store(i + L::N, L::N, b);
        }
    }

    /// Writes `n` pairs from element `i` on.
    ///
    /// # Safety
    /// As [`Row::load_pairs`].
    #[inline(always)]
    pub(super) unsafe fn store_pairs<L: Lanes>(&mut self, i: usize, n: usize, (first, second): (L, L)) {
        debug_assert!(i + 2 * n <= self.len && n <= L::N);
        // SAFETY: the elements are in the row, by the contract above.
        unsafe {
            if self.dtype == DType::Bf16 {
                return L::store_bf16_pairs(first, second, self.start.cast::<u16>().add(i), n);
            }
            let low = L::N.min(2 * n);
            let (a, b) = L::zip(first, second);
            self.store(i, low, a);
            self.store(i + low, 2 * n - low, b);
        }
    }
}

/// Rows at a fixed distance, for writing: an iterator over them.
pub(super) struct RowsMut<'a> {
    start: *mut u8,
    rows: usize,
    len_bytes: usize,
    stride_bytes: usize,
    dtype: DType,
    life: PhantomData<&'a mut [u8]>,
}

impl<'a> RowsMut<'a> {
    /// Rows of so many bytes, one in each chunk of `stride_bytes`.
    pub(super) fn new(bytes: &'a mut [u8], len_bytes: usize, stride_bytes: usize, dtype: DType) -> Self {
        assert!(len_bytes <= stride_bytes && stride_bytes > 0);
        let rows = bytes.len() / stride_bytes;
        Self { start: bytes.as_mut_ptr(), rows, len_bytes, stride_bytes, dtype, life: PhantomData }
    }

    /// Rows that are left.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }
}

impl<'a> Iterator for RowsMut<'a> {
    type Item = RowMut<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<RowMut<'a>> {
        self.rows = self.rows.checked_sub(1)?;
        // SAFETY: one of the rows that `MatrixMut::rows_part` checked; each is given once.
        let row = unsafe { std::slice::from_raw_parts_mut(self.start, self.len_bytes) };
        self.start = self.start.wrapping_add(self.stride_bytes);
        Some(RowMut::new(row, self.dtype))
    }
}

/// A tensor for reading, as rows at a fixed distance.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
    stride_bytes: usize,
    dtype: DType,
}

impl<'a> Matrix<'a> {
    pub(super) fn of(t: &'a Tensor) -> Self {
        let stride_bytes = t.row_stride() * t.dtype().size_bytes();
        Self { bytes: t.bytes(), rows: t.rows(), cols: t.cols(), stride_bytes, dtype: t.dtype() }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn stride_bytes(&self) -> usize {
        self.stride_bytes
    }

    /// Whether rows follow each other without a gap.
    pub(super) fn is_dense(&self) -> bool {
        self.stride_bytes == self.cols * self.dtype.size_bytes()
    }

    /// A run of whole rows of a dense matrix.
    pub(super) fn dense_rows(&self, rows: Range<usize>) -> Row<'a> {
        debug_assert!(self.is_dense());
        Row::new(&self.bytes[rows.start * self.stride_bytes..rows.end * self.stride_bytes], self.dtype)
    }

    /// Every `step`-th row, from `first` on.
    pub(super) fn every(&self, step: usize, first: usize) -> Self {
        let rows = self.rows.saturating_sub(first).div_ceil(step);
        let bytes = if rows == 0 { &[] } else { &self.bytes[first * self.stride_bytes..] };
        Self { bytes, rows, stride_bytes: step * self.stride_bytes, ..*self }
    }

    /// The parts of `width` columns that a row consists of, one below the other.
    pub(super) fn parts(&self, r: usize, width: usize) -> Self {
        let bytes = self.part_bytes(r, 0..self.cols);
        let stride_bytes = width * self.dtype.size_bytes();
        Self { bytes, rows: self.cols / width.max(1), cols: width, stride_bytes, dtype: self.dtype }
    }

    /// Some rows.
    pub(super) fn rows_from(&self, first: usize, rows: usize) -> Self {
        let bytes = if rows == 0 { &[] } else { &self.bytes[first * self.stride_bytes..] };
        Self { bytes, rows, ..*self }
    }

    pub(super) fn row(&self, r: usize) -> Row<'a> {
        self.part(r, 0..self.cols)
    }

    /// Columns of one row.
    pub(super) fn part(&self, r: usize, cols: Range<usize>) -> Row<'a> {
        Row::new(self.part_bytes(r, cols), self.dtype)
    }

    pub(super) fn part_bytes(&self, r: usize, cols: Range<usize>) -> &'a [u8] {
        let size = self.dtype.size_bytes();
        let start = if cols.is_empty() { 0 } else { r * self.stride_bytes + cols.start * size };
        &self.bytes[start..start + cols.len() * size]
    }

    /// The bytes from an element to the end of the matrix.
    pub(super) fn bytes_from(&self, r: usize, c: usize) -> &'a [u8] {
        &self.bytes[r * self.stride_bytes + c * self.dtype.size_bytes()..]
    }
}

/// A tensor for writing, shared by jobs that write disjoint parts of it.
pub(super) struct MatrixMut<'a> {
    start: *mut u8,
    len_bytes: usize,
    rows: usize,
    cols: usize,
    stride_bytes: usize,
    dtype: DType,
    life: PhantomData<&'a mut [u8]>,
}

// SAFETY: the only access is `part`, whose callers promise that concurrent parts are disjoint.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    pub(super) fn of(t: &'a mut Tensor) -> Self {
        let (rows, cols, dtype) = (t.rows(), t.cols(), t.dtype());
        let stride_bytes = t.row_stride() * dtype.size_bytes();
        let Some(bytes) = t.bytes_mut() else { unreachable!("ops hands over outputs that nothing shares") };
        let (start, len_bytes) = (bytes.as_mut_ptr(), bytes.len());
        Self { start, len_bytes, rows, cols, stride_bytes, dtype, life: PhantomData }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Columns of one row.
    ///
    /// # Safety
    /// No other part that overlaps this one is alive.
    pub(super) unsafe fn part(&self, r: usize, cols: Range<usize>) -> RowMut<'a> {
        // SAFETY: the caller's promise is ours.
        RowMut::new(unsafe { self.part_bytes(r, cols) }, self.dtype)
    }

    /// Columns of some rows.
    ///
    /// # Safety
    /// As [`Self::part`].
    pub(super) unsafe fn rows_part(&self, rows: Range<usize>, cols: Range<usize>) -> RowsMut<'a> {
        let size = self.dtype.size_bytes();
        let (start, len_bytes) = (rows.start * self.stride_bytes + cols.start * size, cols.len() * size);
        let reach = start + rows.len().saturating_sub(1) * self.stride_bytes + len_bytes;
        assert!(rows.is_empty() || reach <= self.len_bytes);
        let (start, stride_bytes) = (self.start.wrapping_add(start), self.stride_bytes);
        RowsMut { start, rows: rows.len(), len_bytes, stride_bytes, dtype: self.dtype, life: PhantomData }
    }

    /// The same as bytes.
    ///
    /// # Safety
    /// As [`Self::part`].
    pub(super) unsafe fn part_bytes(&self, r: usize, cols: Range<usize>) -> &'a mut [u8] {
        let size = self.dtype.size_bytes();
        let start = if cols.is_empty() { 0 } else { r * self.stride_bytes + cols.start * size };
        assert!(start + cols.len() * size <= self.len_bytes);
        // SAFETY: within the tensor's bytes, as just checked; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), cols.len() * size) }
    }
}
