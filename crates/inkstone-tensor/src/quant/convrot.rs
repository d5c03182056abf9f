//! Signed bytes with a scale for the matrix or for each row, of rows that were rotated or not: ComfyUI's
//! `int8_tensorwise`, "ConvRot" where rotated.
//!
//! Each group of inputs that follow each other was multiplied by a Hadamard matrix before it was rounded: a Kronecker power
//! of the one of order 4 whose rows are 1 with one -1, where row and column add up to 3, over the root of its order. The
//! matrix is symmetric and its own inverse, so the way back is the way there.
//!
//! # Source
//! ConvRot (arXiv:2512.03673), "regular" Hadamard rotation; the layout is that of ComfyUI's `TensorWiseINT8Layout`.

use super::{scale_of, unfit};
use crate::{DType, Error, Result, Shape, Tensor};

/// Most elements of a group.
pub(crate) const MAX_GROUP: usize = 256;

/// A matrix of signed bytes.
#[derive(Clone, Debug)]
pub struct ConvRot {
    /// i8 `[n_out, n_in]`
    values: Tensor,
    /// f32, one or `n_out` of them.
    scales: Tensor,
    group: usize,
}

impl ConvRot {
    /// Groups that there is a matrix for; 1 is no rotation.
    pub const GROUPS: [usize; 5] = [1, 4, 16, 64, MAX_GROUP];

    /// A matrix over its values (i8, `[n_out, n_in]`) and scales (f32, one for all or one a row), whose rows were rotated
    /// in groups.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::Shape`]; [`Error::Range`] for a group that is none of [`ConvRot::GROUPS`] or does not
    /// divide `n_in`.
    pub fn new(values: Tensor, scales: Tensor, group: usize) -> Result<Self> {
        const OP: &str = "quantized";
        if values.dtype() != DType::I8 {
            return Err(Error::DType { op: OP, what: "values", expected: "i8", got: values.dtype() });
        }
        if scales.dtype() != DType::F32 {
            return Err(Error::DType { op: OP, what: "scales", expected: "f32", got: scales.dtype() });
        }
        let count = scales.shape().count();
        if scales.rows() != 1 || (count != 1 && count != values.rows()) {
            return unfit("scales", &scales, format!("1 or {}", values.rows()));
        }
        if !Self::GROUPS.contains(&group) || !values.cols().is_multiple_of(group) {
            let allowed = format!("1, 4, 16, 64 or 256, and a divisor of {}", values.cols());
            return Err(Error::Range { op: OP, what: "group", allowed, got: group.to_string() });
        }
        Ok(Self { values, scales, group })
    }

    /// How many inputs were rotated together; 1 is no rotation.
    #[must_use]
    pub fn group(&self) -> usize {
        self.group
    }

    /// The same matrix without its rotation, for activations that were rotated.
    pub(crate) fn as_it_lies(&self) -> Self {
        Self { group: 1, ..self.clone() }
    }

    pub(super) fn shape(&self) -> Shape {
        Shape::matrix(self.values.rows(), self.values.cols())
    }

    pub(crate) fn tensors(&self) -> [&Tensor; 2] {
        [&self.values, &self.scales]
    }

    /// Row `r` as its decoder sees it, with the bytes of all scales.
    pub(crate) fn row<'a>(&self, bytes: &'a [u8], scales: &[u8], r: usize) -> ConvRotRow<'a> {
        let scale = scale_of(scales, r);
        // The root of a group is a power of two: exact.
        let root = match self.group {
            4 => 2.0,
            16 => 4.0,
            64 => 8.0,
            MAX_GROUP => 16.0,
            _ => 1.0,
        };
        ConvRotRow { bytes, factor: scale / root, group: self.group }
    }
}

/// A row of signed bytes.
#[derive(Clone, Copy)]
pub(crate) struct ConvRotRow<'a> {
    pub(crate) bytes: &'a [u8],
    /// From what [`ConvRotRow::unpack`] writes to values.
    pub(crate) factor: f32,
    pub(crate) group: usize,
}

impl ConvRotRow<'_> {
    /// The elements of chunk `i` of [`MAX_GROUP`] inputs, rotated back, as whole numbers; how many there are.
    ///
    /// They fit 16 bits: a row of the largest matrix has 136 ones and 120 of -1, so a sum is 136 * 128 + 120 * 127 = 32,648
    /// at most.
    #[inline(always)]
    pub(crate) fn unpack(&self, i: usize, to: &mut [i16; MAX_GROUP]) -> usize {
        let bytes = &self.bytes[i * MAX_GROUP..];
        let bytes = &bytes[..bytes.len().min(MAX_GROUP)];
        if bytes.len() < MAX_GROUP {
            *to = [0; MAX_GROUP];
        }
        for (to, byte) in to.iter_mut().zip(bytes) {
            *to = i16::from(byte.cast_signed());
        }
        if self.group >= 4 {
            step::<1>(to);
        }
        if self.group >= 16 {
            step::<4>(to);
        }
        if self.group >= 64 {
            step::<16>(to);
        }
        if self.group == MAX_GROUP {
            step::<64>(to);
        }
        bytes.len()
    }
}

/// Multiplies each four elements that are `STRIDE` apart by the matrix of order 4.
#[inline(always)]
fn step<const STRIDE: usize>(x: &mut [i16; MAX_GROUP]) {
    for block in x.chunks_exact_mut(4 * STRIDE) {
        let (low, high) = block.split_at_mut(2 * STRIDE);
        let ((a, b), (c, d)) = (low.split_at_mut(STRIDE), high.split_at_mut(STRIDE));
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (sum, difference) = (a.wrapping_add(*b), a.wrapping_sub(*b));
            let (sum2, difference2) = (c.wrapping_add(*d), c.wrapping_sub(*d));
            *a = sum.wrapping_add(difference2);
            *b = sum.wrapping_sub(difference2);
            *c = sum2.wrapping_add(difference);
            *d = sum2.wrapping_sub(difference);
        }
    }
}
