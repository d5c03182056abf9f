//! Model files: from a folder on disk (or the embedded one) to tensors by name.
//!
//! Files come from strangers. Every length, name, link and number in them is checked against a limit before it is
//! used; what is wrong is an error that names the file and says what is allowed.

mod comfy;
mod derive;
mod embedded;
mod files;
mod folder;
mod gguf;
pub(crate) mod hash;
mod identify;
mod json;
pub mod loader;
pub mod lora;
mod model_source;
mod names;
mod quantize;
mod random;
pub mod safetensors;
pub(crate) mod scan;
mod shards;
mod source;
mod tokenizer;

pub(crate) use files::WeightFile;
pub use files::{MODEL_INDEX, ModelFiles, ReadOptions, SCHEDULER, Scan};
pub use loader::{ConvShape, Kernel, Loader, Strictness};
pub(crate) use loader::{Order, Stored, already_quantized, in_f32, is_unused, scaled_layer, tap_major};
pub use model_source::{ModelSource, Parts};
pub use quantize::{AffineRule, Format, Int8Rule, LayerFormat, Quantization, Rule};
pub use random::RandomModel;
pub use safetensors::{Residence, SafeTensors};
pub(crate) use shards::is_index_name;

/// Whether a text may name a tensor: not empty, nothing that a terminal could mistake, never a path out of a folder.
fn is_tensor_name(name: &str) -> bool {
    let leaves_folder = name.split(['/', '\\']).any(|part| part == "..") || name.starts_with(['/', '\\']);
    !name.is_empty() && !name.chars().any(char::is_control) && !leaves_folder
}

/// A part of a model that has weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Prompt to embedding.
    TextEncoder,
    /// Latents and embedding to velocity.
    Transformer,
    /// Latents to pixels and back.
    Vae,
}

impl Component {
    /// All of them, in the order in which a drawing uses them.
    pub const ALL: [Self; 3] = [Self::TextEncoder, Self::Transformer, Self::Vae];

    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text encoder",
            Self::Transformer => "transformer",
            Self::Vae => "VAE",
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::Transformer => "transformer",
            Self::Vae => "vae",
        }
    }

    /// Its config's name in the model's folder.
    #[must_use]
    pub const fn config_name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder/config.json",
            Self::Transformer => "transformer/config.json",
            Self::Vae => "vae/config.json",
        }
    }

    /// The name of its file of weights in a model's folder, if they are in one.
    pub(crate) fn weights_name(self) -> String {
        format!("{}/{}.safetensors", self.folder(), self.weights_stem())
    }

    /// How its files of weights begin: transformers and diffusers call them differently.
    const fn weights_stem(self) -> &'static str {
        match self {
            Self::TextEncoder => "model",
            Self::Transformer | Self::Vae => "diffusion_pytorch_model",
        }
    }
}
