//! The weight of a linear layer or a convolution, in whatever format it is stored.

mod int8;

pub(crate) use int8::GroupRotation;
pub use int8::Int8Weight;

use crate::{DType, Device, Quantized, Result, Shape, Tensor};

/// A matrix `[n_out, n_in]` as stored; kernels decode it panel by panel while they multiply.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Weight {
    /// Plain f32, bf16 or f16 rows.
    Dense(Tensor),
    /// Codes with scales.
    Quantized(Box<Quantized>),
    /// Rotated rows, rounded to bytes, for products of bytes.
    Int8(Int8Weight),
}

impl Weight {
    /// Number of outputs.
    #[must_use]
    pub fn n_out(&self) -> usize {
        self.shape().rows()
    }

    /// Number of inputs.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.shape().cols()
    }

    /// The type in which the values are stored; of a quantized one f32, in which its formula is computed.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(t) => t.dtype(),
            Self::Quantized(_) => DType::F32,
            Self::Int8(w) => w.values().dtype(),
        }
    }

    /// The device that holds it.
    #[must_use]
    pub fn device(&self) -> &Device {
        match self {
            Self::Dense(t) => t.device(),
            Self::Quantized(m) => m.device(),
            Self::Int8(w) => w.values().device(),
        }
    }

    /// The tensors that it is stored in.
    #[must_use]
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Dense(t) => vec![t],
            Self::Quantized(m) => m.tensors(),
            Self::Int8(w) => vec![w.values(), w.scales()],
        }
    }

    /// The same weight over other tensors of the same types and shapes.
    ///
    /// # Errors
    /// What `change` gives, and tensors that do not fit each other.
    pub fn with_tensors(&self, change: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(match self {
            Self::Dense(t) => Self::Dense(change(t)?),
            Self::Quantized(m) => m.with_tensors(change)?.into(),
            Self::Int8(w) => Self::Int8(w.with_tensors(change)?),
        })
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Dense(t) => *t.shape(),
            Self::Quantized(m) => m.shape(),
            Self::Int8(w) => *w.values().shape(),
        }
    }
}

impl From<Quantized> for Weight {
    fn from(matrix: Quantized) -> Self {
        Self::Quantized(Box::new(matrix))
    }
}
