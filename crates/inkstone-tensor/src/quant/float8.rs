//! 8-bit floats with a scale for the matrix or for each row: ComfyUI's fp8 files.
//!
//! # Source
//! OCP 8-bit floating point (OFP8): `e4m3` in its finite form (no infinity, one NaN), `e5m2` as the upper half of an
//! IEEE half.

use super::{scale_of, unfit};
use crate::{DType, Error, Result, Shape, Tensor};

/// Which 8-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float8Kind {
    /// 4 bits of exponent, 3 of mantissa: up to 448.
    E4m3,
    /// 5 bits of exponent, 2 of mantissa: up to 57344.
    E5m2,
}

impl Float8Kind {
    /// Its name, such as `fp8 e4m3`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::E4m3 => "fp8 e4m3",
            Self::E5m2 => "fp8 e5m2",
        }
    }

    /// What [`widen`] leaves out: a factor that is a power of two.
    pub(crate) const fn factor(self) -> f32 {
        match self {
            Self::E4m3 => 256.0,
            Self::E5m2 => 1.0,
        }
    }
}

/// A matrix of 8-bit floats.
#[derive(Clone, Debug)]
pub struct Float8 {
    kind: Float8Kind,
    /// f8 `[n_out, n_in]`
    values: Tensor,
    /// f32, one or `n_out` of them; 1 where there is none.
    scales: Option<Tensor>,
}

impl Float8 {
    /// A matrix over its values (f8, `[n_out, n_in]`) and scales (f32, one for all or one a row).
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::Shape`].
    pub fn new(values: Tensor, scales: Option<Tensor>) -> Result<Self> {
        const OP: &str = "quantized";
        let kind = match values.dtype() {
            DType::F8E4m3 => Float8Kind::E4m3,
            DType::F8E5m2 => Float8Kind::E5m2,
            got => return Err(Error::DType { op: OP, what: "values", expected: "an 8-bit float", got }),
        };
        if let Some(scales) = &scales {
            if scales.dtype() != DType::F32 {
                return Err(Error::DType { op: OP, what: "scales", expected: "f32", got: scales.dtype() });
            }
            let count = scales.shape().count();
            if count != 1 && count != values.rows() {
                return unfit("scales", scales, format!("1 or {}", values.rows()));
            }
        }
        Ok(Self { kind, values, scales })
    }

    /// Which 8-bit float.
    #[must_use]
    pub fn kind(&self) -> Float8Kind {
        self.kind
    }

    pub(super) fn shape(&self) -> Shape {
        Shape::matrix(self.values.rows(), self.values.cols())
    }

    pub(super) fn values(&self) -> &Tensor {
        &self.values
    }

    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        std::iter::once(&self.values).chain(&self.scales).collect()
    }

    /// The factor on what [`widen`] makes of the values of row `r`, with the bytes of all scales.
    pub(crate) fn factor(&self, scales: &[u8], r: usize) -> f32 {
        let scale = if self.scales.is_some() { scale_of(scales, r) } else { 1.0 };
        scale * self.kind.factor()
    }
}

/// An 8-bit float as a half that is [`Float8Kind::factor`] times too small.
#[inline(always)]
pub(crate) const fn widen(kind: Float8Kind, byte: u8) -> u16 {
    let byte = byte as u16;
    match kind {
        Float8Kind::E4m3 => {
            let (sign, magnitude) = ((byte & 0x80) << 8, byte & 0x7f);
            // The one NaN.
            let special = if magnitude == 0x7f { 0x7e00 } else { 0 };
            sign | (magnitude << 7) | special
        }
        Float8Kind::E5m2 => byte << 8,
    }
}
