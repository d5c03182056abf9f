//! The linear layer: a weight in whatever format it is stored, a bias, and the type of its output.

use inkstone_tensor::ops::{self, Activation, RowTable};
use inkstone_tensor::{DType, Shape, Tensor, Weight};

use crate::Result;
use crate::weights::Loader;

/// `x W^T + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    activations: DType,
}

impl Linear {
    /// `NAME.weight [n_out, n_in]` and `NAME.bias [n_out]`.
    pub fn load(loader: &mut Loader, name: &str, n_in: usize, n_out: usize) -> Self {
        let mut layer = Self::load_without_bias(loader, name, n_in, n_out);
        layer.bias = Some(loader.vector(&format!("{name}.bias"), n_out));
        layer
    }

    /// `NAME.weight [n_out, n_in]` alone.
    pub fn load_without_bias(loader: &mut Loader, name: &str, n_in: usize, n_out: usize) -> Self {
        let weight = loader.layer_weight(name, n_out, n_in);
        Self { weight, bias: None, activations: loader.activations() }
    }

    /// A convolution with a kernel of one pixel, stored as `NAME.weight [n_out, n_in, 1, 1]`, is a linear layer
    /// over pixels.
    pub fn load_pointwise(loader: &mut Loader, name: &str, n_in: usize, n_out: usize) -> Self {
        let stored = loader.tensor(&format!("{name}.weight"), &[n_out, n_in, 1, 1]);
        // A tensor that was misshapen stays as it is; the loader reports it when all are taken.
        let weight = stored.clone().reshape(Shape::matrix(n_out, n_in)).unwrap_or(stored);
        let bias = Some(loader.vector(&format!("{name}.bias"), n_out));
        Self { weight: Weight::Dense(weight), bias, activations: loader.activations() }
    }

    /// The product, in the activations' type.
    ///
    /// # Shapes
    /// `x [rows, n_in]`, result `[rows, n_out]`.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, Activation::None, self.activations)
    }

    /// The product through a function, in the activations' type.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.run(x, activation, self.activations)
    }

    /// The product in f32: the start of a residual stream, or the model's result.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_f32(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, Activation::None, DType::F32)
    }

    /// `residual + gate * product`, in place where the residual is not shared.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_add(&self, residual: Tensor, gate: Option<&RowTable>, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear_add(residual, gate, x, &self.weight, self.bias.as_ref())?)
    }

    fn run(&self, x: &Tensor, activation: Activation, out: DType) -> Result<Tensor> {
        Ok(ops::linear(x, &self.weight, self.bias.as_ref(), activation, out)?)
    }
}
