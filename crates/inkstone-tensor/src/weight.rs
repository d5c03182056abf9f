//! The weight of a linear layer or a convolution, in whatever format it is stored.

use crate::{DType, Shape, Tensor};

/// A matrix `[n_out, n_in]` as stored; kernels decode it panel by panel while they multiply.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Weight {
    /// Plain f32, bf16 or f16 rows.
    Dense(Tensor),
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

    /// The type in which the values are stored.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(t) => t.dtype(),
        }
    }

    /// The tensors that it is stored in.
    #[must_use]
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Dense(t) => vec![t],
        }
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Dense(t) => *t.shape(),
        }
    }
}
