//! The tensor: a dtype, a shape, and a window on bytes that live on a device.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::{DType, Device, Error, Result, Shape, Storage, with_room};

/// An array on a device. Cloning shares the bytes; nothing writes to bytes that two tensors share.
///
/// Every tensor is seen as a matrix: [`Tensor::cols`] elements lie side by side (the innermost dimension) and
/// [`Tensor::rows`] such rows follow each other at a distance of [`Tensor::row_stride`] elements. So rows may be
/// padded, and a range of rows or columns is a view.
#[derive(Clone, Debug)]
pub struct Tensor {
    device: Device,
    storage: Arc<Storage>,
    offset_bytes: usize,
    shape: Shape,
    row_stride: usize,
    dtype: DType,
}

impl Tensor {
    /// A new tensor with undefined contents (recycled memory), its rows padded as the device likes them.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn empty(device: &Device, dtype: DType, shape: Shape) -> Result<Self> {
        let row_stride = device.row_stride(dtype, shape.cols());
        let bytes = shape.rows().checked_mul(row_stride).and_then(|n| n.checked_mul(dtype.size_bytes()));
        let storage = device.backend().alloc(bytes.unwrap_or(usize::MAX))?;
        Ok(Self::over(device, storage, dtype, shape, row_stride))
    }

    /// A tensor over bytes that already lie in memory as plain rows (a mapped file, embedded data).
    ///
    /// # Errors
    /// [`Error::Range`] if the bytes are not exactly the shape's.
    pub fn from_storage(device: &Device, storage: Storage, dtype: DType, shape: Shape) -> Result<Self> {
        let want = shape.count() * dtype.size_bytes();
        if storage.len() != want {
            return Err(Error::Range {
                op: "from_storage",
                what: "byte length",
                allowed: want.to_string(),
                got: storage.len().to_string(),
            });
        }
        Ok(Self::over(device, storage, dtype, shape, shape.cols()))
    }

    fn over(device: &Device, storage: Storage, dtype: DType, shape: Shape, row_stride: usize) -> Self {
        Self { device: device.clone(), storage: Arc::new(storage), offset_bytes: 0, shape, row_stride, dtype }
    }

    /// An f32 tensor with these values.
    ///
    /// # Errors
    /// [`Error::Range`] if there are more or fewer values than the shape has; [`Error::OutOfMemory`].
    pub fn from_f32(device: &Device, values: &[f32], shape: Shape) -> Result<Self> {
        if values.len() != shape.count() {
            return Err(Error::Range {
                op: "from_f32",
                what: "number of values",
                allowed: shape.count().to_string(),
                got: values.len().to_string(),
            });
        }
        let mut out = Self::empty(device, DType::F32, shape)?;
        let cols = shape.cols();
        let stride_bytes = out.row_stride * 4;
        if let Some(bytes) = out.bytes_mut() {
            for (row, values) in bytes.chunks_mut(stride_bytes.max(4)).zip(values.chunks(cols.max(1))) {
                for (to, v) in row.chunks_exact_mut(4).zip(values) {
                    to.copy_from_slice(&v.to_le_bytes());
                }
            }
        }
        Ok(out)
    }

    /// The device that holds the bytes.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of rows: the product of all dimensions but the innermost.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// Number of columns: the innermost dimension.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.shape.cols()
    }

    /// Distance from one row to the next, in elements.
    #[must_use]
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// The bytes from the first element to the end of the last row. Padding between rows is included. A tensor of a
    /// counting device has none.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &*self.storage {
            Storage::Counted(_) => &[],
            storage => &storage.bytes()[self.span()],
        }
    }

    /// What holds the bytes, and where in it they lie.
    pub(crate) fn stored(&self) -> (&Storage, Range<usize>) {
        (&self.storage, self.span())
    }

    /// On a counting device, notes that all bytes are read; elsewhere nothing. For code that reads [`Self::bytes`] of
    /// weights itself.
    pub fn count_read(&self) {
        if let Storage::Counted(counted) = &*self.storage {
            counted.touch(self.span());
        }
    }

    /// Whether the bytes are only counted; see [`Device::counting`].
    #[must_use]
    pub fn is_counted(&self) -> bool {
        matches!(*self.storage, Storage::Counted(_))
    }

    /// The same for writing; `None` while another tensor shares the bytes, or if they are read-only.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let span = self.span();
        Some(&mut Arc::get_mut(&mut self.storage)?.bytes_mut()?[span])
    }

    /// Whether this tensor alone holds writable bytes, so that an operation may write its result in place.
    #[must_use]
    pub fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some_and(|storage| storage.is_writable())
    }

    /// Where the bytes lie in the storage. An empty view may start beyond its end.
    fn span(&self) -> Range<usize> {
        let (rows, cols) = (self.rows(), self.cols());
        if rows == 0 || cols == 0 {
            return 0..0;
        }
        let len = ((rows - 1) * self.row_stride + cols) * self.dtype.size_bytes();
        self.offset_bytes..self.offset_bytes + len
    }

    /// A view of some rows, as a matrix.
    ///
    /// # Errors
    /// [`Error::Range`] if the range leaves the tensor.
    pub fn rows_range(&self, rows: Range<usize>) -> Result<Self> {
        if rows.start > rows.end || rows.end > self.rows() {
            return Err(Error::Range {
                op: "rows_range",
                what: "rows",
                allowed: format!("0..{}", self.rows()),
                got: format!("{rows:?}"),
            });
        }
        let mut view = self.clone();
        view.offset_bytes += rows.start * self.row_stride * self.dtype.size_bytes();
        view.shape = Shape::matrix(rows.len(), self.cols());
        Ok(view)
    }

    /// A view of some columns, as a matrix.
    ///
    /// # Errors
    /// [`Error::Range`] if the range leaves the tensor.
    pub fn cols_range(&self, cols: Range<usize>) -> Result<Self> {
        if cols.start > cols.end || cols.end > self.cols() {
            return Err(Error::Range {
                op: "cols_range",
                what: "columns",
                allowed: format!("0..{}", self.cols()),
                got: format!("{cols:?}"),
            });
        }
        let mut view = self.clone();
        view.offset_bytes += cols.start * self.dtype.size_bytes();
        view.shape = Shape::matrix(self.rows(), cols.len());
        Ok(view)
    }

    /// The same bytes under another shape with the same number of columns, or any shape if rows are not padded.
    ///
    /// # Errors
    /// [`Error::Shape`] if the element counts differ, or rows are padded and the columns change.
    pub fn reshape(mut self, shape: Shape) -> Result<Self> {
        let same_cols = shape.cols() == self.cols();
        if shape.count() != self.shape.count() || !(same_cols || self.row_stride == self.cols()) {
            return Err(Error::Shape {
                op: "reshape",
                what: "the tensor",
                expected: format!("{shape}, unpadded unless the columns stay"),
                got: self.shape,
            });
        }
        if !same_cols {
            self.row_stride = shape.cols();
        }
        self.shape = shape;
        Ok(self)
    }

    /// Waits for the device and copies the elements out, row by row without padding, as stored. Of a counting device
    /// come none.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.device.backend().wait();
        let size = self.dtype.size_bytes();
        let (row, stride) = (self.cols() * size, self.row_stride * size);
        if row == 0 {
            return Vec::new();
        }
        if row == stride {
            return self.bytes().to_vec();
        }
        self.bytes().chunks(stride).flat_map(|chunk| &chunk[..row]).copied().collect()
    }

    /// Waits for the device and copies the elements out as f32, row by row without padding. Of a counting device come
    /// none.
    ///
    /// # Errors
    /// [`Error::DType`] if the elements are integers, [`Error::OutOfMemory`].
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.device.backend().wait();
        let extend: fn(&mut Vec<f32>, &[u8]) = match self.dtype {
            DType::F32 => |to, row| to.extend(row.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
            DType::Bf16 => {
                |to, row| to.extend(row.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()))
            }
            DType::F16 => {
                |to, row| to.extend(row.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()))
            }
            got => {
                let expected = "f32, bf16 or f16";
                return Err(Error::DType { op: "to_f32", what: "the tensor", expected, got });
            }
        };
        let (bytes, size) = (self.bytes(), self.dtype.size_bytes());
        let mut values = with_room(if bytes.is_empty() { 0 } else { self.shape.count() })?;
        for row in bytes.chunks((self.row_stride * size).max(1)) {
            extend(&mut values, &row[..self.cols() * size]);
        }
        Ok(values)
    }

    /// Waits for the device and looks whether no element is NaN or infinite. Nothing is copied; of whole numbers the
    /// answer is yes.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.device.backend().wait();
        let size = self.dtype.size_bytes();
        let (row, stride) = (self.cols() * size, self.row_stride * size);
        row == 0 || self.bytes().chunks(stride).all(|chunk| self.dtype.are_finite(&chunk[..row]))
    }
}
