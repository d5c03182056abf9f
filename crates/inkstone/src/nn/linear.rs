//! The linear layer: a weight in whatever format it is stored, paths around it, a bias, and the type of its output.

use inkstone_tensor::ops::{self, Activation, RowTable, Term};
use inkstone_tensor::{DType, Tensor, Weight};

use crate::Result;
use crate::weights::Loader;
use crate::weights::lora::SidePath;

/// `x W^T + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    /// LoRAs: added to the product, whatever the weight's format.
    paths: Vec<SidePath>,
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
        let paths = loader.side_paths(name, n_in, n_out);
        Self { weight, paths, bias: None, activations: loader.activations() }
    }

    /// A convolution with a kernel of one pixel, stored as `NAME.weight [n_out, n_in, 1, 1]`, is a linear layer
    /// over pixels.
    pub fn load_pointwise(loader: &mut Loader, name: &str, n_in: usize, n_out: usize) -> Self {
        let weight = Weight::Dense(loader.pixel_weight(name, n_out, n_in));
        let bias = Some(loader.vector(&format!("{name}.bias"), n_out));
        Self { weight, paths: Vec::new(), bias, activations: loader.activations() }
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
        let bias = self.bias.as_ref();
        self.with_terms(x, |terms| Ok(ops::linear_add_with(residual, gate, x, &self.weight, bias, terms)?))
    }

    /// `factor * product`, in place where the factor is not shared.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_mul(&self, factor: Tensor, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref();
        self.with_terms(x, |terms| Ok(ops::linear_mul_with(factor, x, &self.weight, bias, terms)?))
    }

    fn run(&self, x: &Tensor, activation: Activation, out: DType) -> Result<Tensor> {
        let bias = self.bias.as_ref();
        self.with_terms(x, |terms| Ok(ops::linear_with(x, &self.weight, bias, terms, activation, out)?))
    }

    /// Calls the product with what the paths around the weight add to it.
    fn with_terms(&self, x: &Tensor, product: impl FnOnce(&[Term<'_>]) -> Result<Tensor>) -> Result<Tensor> {
        let inner: Vec<Tensor> = self.paths.iter().map(|path| inner(path, x)).collect::<Result<_, _>>()?;
        let pairs = self.paths.iter().zip(&inner);
        let terms: Vec<Term<'_>> =
            pairs.map(|(path, x)| Term { x, weight: &path.up, groups: path.groups() }).collect();
        product(&terms)
    }
}

/// What a path's last matrix is multiplied with: `[rows * groups, rank]` in the type of `x`.
fn inner(path: &SidePath, x: &Tensor) -> inkstone_tensor::Result<Tensor> {
    let (width, dtype) = (path.width(), x.dtype());
    let mut mixed = x.clone();
    for (i, left) in path.left.iter().enumerate() {
        let factor = if i + 1 == path.left.len() { path.factor } else { 1.0 };
        mixed = ops::mix(&mixed, width, left, factor, dtype)?;
    }
    let Some(down) = &path.down else {
        let is_scaled = path.factor == 1.0 || !path.left.is_empty();
        return if is_scaled { Ok(mixed) } else { ops::scale(x, path.factor, dtype) };
    };
    if !path.left.is_empty() {
        return ops::linear(&mixed, down, None, Activation::None, dtype);
    }
    let narrow = ops::linear(x, down, None, Activation::None, DType::F32)?;
    ops::scale(&narrow, path.factor, dtype)
}
