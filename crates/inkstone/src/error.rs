//! What can go wrong, with a stable code, an exit code and a cure for each.

mod model;

use std::path::PathBuf;

pub use model::{HeaderProblem, TensorReport, WrongTensor};

/// The result of an Inkstone call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed call. Each variant is something its reader can act on; see [`Error::code`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter of the request is outside of what is allowed.
    #[error("{param} is {got}; allowed is {allowed}")]
    InvalidParam {
        /// The parameter's name, as on the command line without dashes.
        param: &'static str,
        /// What was given.
        got: String,
        /// What is allowed, in words.
        allowed: String,
    },
    /// The run was interrupted by its user.
    #[error("interrupted")]
    Interrupted,
    /// The numbers went wrong: a NaN or an infinity appeared.
    #[error("step {step} gave values that are not finite")]
    NotFinite {
        /// The step, from 1.
        step: usize,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A model's file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    ModelRead {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A safetensors file breaks the rules of its format.
    #[error("{} is not a sound safetensors file: {problem}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Which rule.
        problem: HeaderProblem,
    },
    /// The weights of a component are not those that its config describes.
    #[error("the {component} does not fit its config: {report}")]
    Tensors {
        /// The component: transformer, text encoder, VAE.
        component: String,
        /// Every tensor that is missing, misshapen or left over.
        report: Box<TensorReport>,
    },
    /// A model's configuration has a value that the engine cannot run.
    #[error("configuration of the {component}: {field} is {got}; allowed is {allowed}")]
    ModelConfig {
        /// The component's folder.
        component: &'static str,
        /// The field.
        field: String,
        /// What the file says.
        got: String,
        /// What is allowed, in words.
        allowed: String,
    },
    /// An operation of the tensor engine failed: a fault of ours, or no memory.
    #[error(transparent)]
    Tensor(#[from] inkstone_tensor::Error),
}

impl Error {
    /// The stable code, `INK-0xxx`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidParam { .. } => "INK-0201",
            Self::Interrupted => "INK-0130",
            Self::NotFinite { .. } => "INK-0501",
            Self::Io { .. } => "INK-0401",
            Self::ModelRead { .. } => "INK-0301",
            Self::Safetensors { .. } => "INK-0305",
            Self::Tensors { .. } => "INK-0307",
            Self::ModelConfig { .. } => "INK-0320",
            Self::Tensor(_) => "INK-0502",
        }
    }
}
