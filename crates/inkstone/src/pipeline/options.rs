//! How a model is opened.

use inkstone_tensor::{DType, Device};

use super::VaeTiling;
use crate::memory::Offload;
use crate::weights::lora::LoraSource;
use crate::weights::{Quantization, ReadOptions};

/// How to run a model.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Number of threads; `None` for one a core.
    pub threads: Option<usize>,
    /// The arithmetic.
    pub precision: Precision,
    /// A smaller format that linear layers are brought into while they are loaded; `None` keeps them as stored.
    pub quantization: Option<Quantization>,
    /// How the model's files are read.
    pub read: ReadOptions,
    /// How many bytes the process may take at most, mapped weights included; what the system allows is a limit in any
    /// case.
    pub max_memory_bytes: Option<u64>,
    /// Whether the VAE takes a picture in strips.
    pub vae_tiling: VaeTiling,
    /// LoRAs to draw with; their effects add up.
    pub loras: Vec<LoraSource>,
    /// What leaves memory while a picture is drawn.
    pub offload: Offload,
}

/// The type in which activations are multiplied. Sums are kept in f32 in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where the device multiplies it faster than f32, else f32.
    #[default]
    Auto,
    /// f32: the reference's results to 60 dB and more.
    F32,
    /// bf16: half the memory traffic and, on processors that have it, twice the speed.
    Bf16,
}

impl Precision {
    /// The type of activations on this device.
    #[must_use]
    pub fn activations(self, device: &Device) -> DType {
        match self {
            Self::Auto if device.multiplies_bf16() => DType::Bf16,
            Self::Auto | Self::F32 => DType::F32,
            Self::Bf16 => DType::Bf16,
        }
    }
}
