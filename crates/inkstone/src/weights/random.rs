//! A model of Qwen-Image's sizes without its weights: configs as published, tensors with random values. Speed does not
//! depend on the values, so benchmarks need no files.

use std::sync::Arc;

use inkstone_tensor::{AlignedBuffer, DType, Device, Error, Ledger, Shape, Storage, Tensor, bf16};

use crate::Result;
use crate::models::{qwen_image, qwen_vae, qwen25_vl};
use crate::weights::Component;

/// How much of the model there is: every layer has the full size, but there may be fewer of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomModel {
    /// Blocks of the transformer; Qwen-Image has [`RandomModel::BLOCKS`].
    pub blocks: usize,
    /// Layers of the text encoder; Qwen-Image has [`RandomModel::LAYERS`].
    pub layers: usize,
}

impl RandomModel {
    /// Blocks of Qwen-Image's transformer (`num_layers`, transformer/config.json).
    pub const BLOCKS: usize = 60;
    /// Layers of its text encoder (`num_hidden_layers`, text_encoder/config.json).
    pub const LAYERS: usize = 28;

    /// Sizes of the transformer.
    ///
    /// # Errors
    /// More blocks than a config may have.
    pub fn transformer(&self) -> Result<qwen_image::Config> {
        qwen_image::Config::from_json(&self.config(Component::Transformer))
    }

    /// Sizes of the text encoder. Its vocabulary is small: a prompt reads a few rows of the table.
    ///
    /// # Errors
    /// More layers than a config may have.
    pub fn text_encoder(&self) -> Result<qwen25_vl::Config> {
        qwen25_vl::Config::from_json(&self.config(Component::TextEncoder))
    }

    /// Sizes of the VAE.
    ///
    /// # Errors
    /// None.
    pub fn vae(&self) -> Result<qwen_vae::Config> {
        qwen_vae::Config::from_json(&self.config(Component::Vae))
    }

    /// A component's config as text; what is absent is the reader's default, which is Qwen-Image's value.
    pub(super) fn config(&self, component: Component) -> String {
        match component {
            Component::Transformer => {
                format!(r#"{{"_class_name": "QwenImageTransformer2DModel", "num_layers": {}}}"#, self.blocks)
            }
            Component::TextEncoder => format!(
                r#"{{"model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944,
                "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": {VOCABULARY},
                "num_hidden_layers": {}}}"#,
                self.layers
            ),
            Component::Vae => {
                format!(r#"{{"latents_mean": {:?}, "latents_std": {:?}}}"#, [0.0; 16], [1.0; 16])
            }
        }
    }
}

/// More than the embedded tokenizer's tokens.
const VOCABULARY: usize = 8192;

/// A stream of random tensors.
#[derive(Clone, Debug)]
pub(super) struct RandomTensors {
    state: u64,
    /// Where they are counted instead of made.
    ledger: Option<Arc<Ledger>>,
}

impl RandomTensors {
    pub(super) fn new() -> Self {
        Self { state: 0x2545_f491_4f6c_dd1d, ledger: None }
    }

    /// From here on tensors are only counted.
    pub(super) fn count(&mut self, ledger: &Arc<Ledger>) {
        self.ledger = Some(Arc::clone(ledger));
    }

    /// A bf16 tensor of this shape, its rows side by side as in a file. Values keep activations in bounds through any
    /// number of layers: matrices have the variance `1 / n_in`, norms are near 1, biases near 0.
    pub(super) fn tensor(&mut self, name: &str, dims: &[usize], device: &Device) -> Result<Tensor> {
        let too_large = || Error::OutOfMemory { device: device.name(), wanted_bytes: usize::MAX };
        let shape = Shape::new(dims).ok_or_else(too_large)?;
        let fan_in: usize = dims.iter().skip(1).product();
        let (middle, reach) = match dims {
            [_] if name.ends_with(".bias") => (0.0, 0.02),
            [_] => (1.0, 0.1),
            // Norms of the VAE are `[channels, 1, ..]`.
            _ if fan_in == 1 => (1.0, 0.1),
            // Uniform values up to sqrt(3) have the variance 1.
            _ => (0.0, (3.0 / fan_in as f32).sqrt()),
        };
        let wanted_bytes = shape.count() * DType::Bf16.size_bytes();
        if let Some(ledger) = &self.ledger {
            let storage = Storage::Counted(ledger.hold(wanted_bytes));
            return Ok(Tensor::from_storage(device, storage, DType::Bf16, shape)?);
        }
        let mut buffer = AlignedBuffer::zeroed(wanted_bytes)
            .ok_or_else(|| Error::OutOfMemory { device: device.name(), wanted_bytes })?;
        for to in buffer.as_mut_slice().as_chunks_mut::<2>().0 {
            *to = bf16::from_f32(middle + reach * self.uniform()).to_le_bytes();
        }
        Ok(Tensor::from_storage(device, Storage::Owned(buffer), DType::Bf16, shape)?)
    }

    /// Uniform in -1..1 (xorshift).
    fn uniform(&mut self) -> f32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let [.., low, high] = self.state.to_le_bytes();
        f32::from(i16::from_le_bytes([low, high])) / 32768.0
    }
}

#[cfg(test)]
mod tests;
