//! Model files: from a folder on disk (or the embedded one) to tensors by name.

pub mod loader;
pub mod safetensors;

pub use loader::{Loader, Strictness};
pub use safetensors::{Residence, SafeTensors};

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder in the diffusers layout.
    Folder(std::path::PathBuf),
    /// The small model inside the program.
    Embedded,
}
