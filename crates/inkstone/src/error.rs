//! What can go wrong, with a stable code, an exit code and a cure for each: docs/errors.md lists them.

mod facts;
mod found;
mod gguf;
mod lora;
mod model;
mod note;
mod picture;
mod place;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use crate::memory::{Alternative, Shortage, gibibytes};
use crate::weights::Component;

pub use facts::Facts;
pub use found::Found;
pub use gguf::GgufProblem;
pub(crate) use lora::FOLDER_FILES;
pub use lora::LoraProblem;
pub use model::{
    FileFormat, HeaderProblem, JsonProblem, ShardProblem, TensorReport, TokenizerProblem, WrongTensor,
};
pub use note::NoteProblem;
pub use picture::PictureProblem;
pub use place::PlaceProblem;

/// The result of an Inkstone call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call. Each variant is something its reader can act on: [`Error::facts`] tells how.
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
    /// The drawing does not fit into memory; found before a weight is touched.
    #[error("the drawing {shortage}")]
    InsufficientMemory {
        /// What it needs, and what there is.
        shortage: Shortage,
        /// Changes that fit, the least painful first.
        alternatives: Vec<Alternative>,
    },
    /// A model's file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    ModelRead {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is nothing at the model's path.
    #[error("there is no model at {}", path.display())]
    ModelNotFound {
        /// The path.
        path: PathBuf,
    },
    /// There is something else than a Qwen-Image folder.
    #[error("{} is {found}", path.display())]
    UnsupportedModel {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: Found,
    },
    /// The model's folder lacks a file.
    #[error("the model has no {}", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file of weights has a format that is not read.
    #[error("{} is {format}", path.display())]
    ForeignFormat {
        /// The file.
        path: PathBuf,
        /// The format.
        format: FileFormat,
    },
    /// A link in the model's folder leads out of it.
    #[error("{} leads to {}, outside of {}", path.display(), target.display(), boundary.display())]
    OutsideModel {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// What it must not leave: the model's folder, or the cache it lies in.
        boundary: PathBuf,
    },
    /// A JSON file of the model is refused.
    #[error("{} is refused: {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        problem: JsonProblem,
    },
    /// The files that hold a component are not those of their list, or not all.
    #[error("the shards of {} cannot be read: {problem}", path.display())]
    Shards {
        /// The list, or one of the files.
        path: PathBuf,
        /// What is wrong.
        #[source]
        problem: ShardProblem,
    },
    /// The tokenizer is not one that this model can have.
    #[error("{} is not a Qwen tokenizer: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        problem: TokenizerProblem,
    },
    /// Weights that are NaN or infinite.
    #[error("the {component} has values that are not finite in {count} tensors: {}", first.join(", "))]
    WeightsNotFinite {
        /// The component.
        component: String,
        /// How many tensors.
        count: usize,
        /// The first of them.
        first: Vec<String>,
    },
    /// A file of weights changed while it was in use.
    #[error("{} changed while it was in use: {}", path.display(), change(*was_bytes, *is_bytes))]
    ModelChanged {
        /// The file.
        path: PathBuf,
        /// Its size when it was opened.
        was_bytes: u64,
        /// Its size now; the same if only its time tells that something wrote to it.
        is_bytes: u64,
    },
    /// A safetensors file breaks the rules of its format.
    #[error("{} is not a sound safetensors file: {problem}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Which rule.
        #[source]
        problem: HeaderProblem,
    },
    /// A GGUF file breaks the rules of its format.
    #[error("{} is not a sound GGUF file: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Which rule.
        #[source]
        problem: Box<GgufProblem>,
    },
    /// The weights of a component are not those that its config describes.
    #[error("the {component} does not fit its config: {report}")]
    Tensors {
        /// The component: transformer, text encoder, VAE.
        component: String,
        /// Every tensor that is missing, misshapen or left over.
        #[source]
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
    /// A LoRA cannot be used.
    #[error("the LoRA {} cannot be used: {problem}", path.display())]
    Lora {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        problem: Box<LoraProblem>,
    },
    /// A weight that another program quantized in a way that is not read, or whose parts do not fit each other.
    #[error("the {component}'s layer {layer} cannot be used: {problem}")]
    Note {
        /// The component.
        component: &'static str,
        /// The layer.
        layer: String,
        /// Why.
        #[source]
        problem: NoteProblem,
    },
    /// Weights without a folder around them, and without others that a drawing needs.
    #[error("the model has no {}", named(missing))]
    MissingParts {
        /// What is missing.
        missing: Vec<Component>,
    },
    /// Weights without a folder around them, and no tokenizer in the text encoder's file.
    #[error("there is no tokenizer: {} holds none", path.display())]
    MissingTokenizer {
        /// The text encoder's file.
        path: PathBuf,
    },
    /// Weights that should be quantized, but are already.
    #[error("the {component} is quantized already: {layer} is stored as {format}")]
    AlreadyQuantized {
        /// The component.
        component: String,
        /// The first such layer.
        layer: String,
        /// Its format.
        format: String,
    },
    /// A model without a layer that could be quantized.
    #[error("{} has no layer that could be quantized", path.display())]
    NothingToQuantize {
        /// The model's folder.
        path: PathBuf,
    },
    /// A converted model cannot be put where it should go.
    #[error("cannot make {}: {problem}", path.display())]
    ConvertPlace {
        /// The place.
        path: PathBuf,
        /// Why.
        #[source]
        problem: PlaceProblem,
    },
    /// There is not enough room on the disk.
    #[error("{} has no room for it: {}", path.display(), room(*needed_bytes, *free_bytes))]
    DiskFull {
        /// The folder.
        path: PathBuf,
        /// What is needed at most.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// The system refuses to write.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A picture cannot be read.
    #[error("the picture cannot be used: {0}")]
    Picture(#[from] PictureProblem),
    /// An operation of the tensor engine failed: a fault of ours, or no memory.
    #[error(transparent)]
    Tensor(#[from] inkstone_tensor::Error),
}

/// What of a file tells that it changed.
fn change(was_bytes: u64, is_bytes: u64) -> String {
    if was_bytes == is_bytes {
        return format!("something wrote to it, at its {is_bytes} bytes");
    }
    format!("it had {was_bytes} bytes and has {is_bytes}")
}

/// What is needed of a disk and what is free, to a tenth of a GiB where that tells them apart.
fn room(needed_bytes: u64, free_bytes: u64) -> String {
    let (needed, free) = (gibibytes(needed_bytes), gibibytes(free_bytes));
    if needed == free {
        return format!(
            "{needed} are needed, {} bytes less are free",
            needed_bytes.saturating_sub(free_bytes)
        );
    }
    format!("{needed} are needed, {free} are free")
}

/// Parts as a message names them.
fn named(parts: &[Component]) -> String {
    parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(" and no ")
}
