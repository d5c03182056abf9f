//! LoRA files: paths around the linear layers of a transformer, in the dialects that people share.
//!
//! A layer `W` with factors `A [rank, n_in]` and `B [n_out, rank]` becomes `W + scale * alpha / rank * B A`. A LoKr's is
//! `W + scale * kron(W1, W2)`, its matrices whole or products of two, and then with `alpha / rank` too; a LoHa's
//! `W + scale * alpha / rank * W1 * W2`, element by element, both products of two. A difference of a whole weight has no alpha;
//! those of biases and norms are added to them while they are loaded. The weight is never touched: [`crate::nn::linear`] adds `(x A^T) B^T` to its sum, or sums of groups of inputs times `W2`, so that all go with any weight
//! format. [`crate::convert`] puts them into the weights of a new model where that is asked for.

mod adapter;
mod apply;
mod family;
mod file;
mod found;
mod hadamard;
mod keys;
mod layers;
mod merge;
mod numbers;
mod summary;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inkstone_tensor::Device;

use crate::memory::Limits;
use crate::{Error, Result};

pub(crate) use apply::Pending;
pub use apply::SidePath;
pub(crate) use family::QWEN_IMAGE;
pub use file::Lora;
pub use keys::Dialect;
pub(crate) use merge::merged;
pub use summary::Summary;

/// The largest magnitude of a LoRA's scale; useful ones are below 2.
pub const MAX_SCALE: f32 = 10.0;
/// The most LoRAs of a drawing.
pub const MAX_LORAS: usize = 8;

/// A LoRA to draw with, and how strongly.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The file.
    pub lora: Arc<Lora>,
    /// Its factor: 1 is what it was made for, 0 has no effect, negative ones turn it round.
    pub scale: f32,
}

/// A LoRA file to open, and how strongly it acts.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSource {
    /// The file.
    pub path: PathBuf,
    /// Its factor.
    pub scale: f32,
}

/// Checks what a caller asks for and reads the heads of the files, each once.
///
/// # Errors
/// As [`check`] and [`Lora::open_head`].
pub(crate) fn open_heads(sources: &[LoraSource], device: &Device) -> Result<Vec<Applied>> {
    check(sources)?;
    let mut all: Vec<Applied> = Vec::new();
    for source in sources {
        let lora = match sources.iter().zip(&all).find(|(before, _)| before.path == source.path) {
            Some((_, open)) => open.lora.clone(),
            None => Arc::new(Lora::open_head(&source.path, device)?),
        };
        all.push(Applied { lora, scale: source.scale });
    }
    Ok(all)
}

/// Reads the files whole, as long as they fit into memory.
///
/// # Errors
/// As [`open_heads`] and [`Lora::read`]; [`Error::InsufficientMemory`].
pub(crate) fn open_all(sources: &[LoraSource], device: &Device, limits: &Limits) -> Result<Vec<Applied>> {
    let all = open_heads(sources, device)?;
    limits.check(memory_bytes(&all))?;
    all.iter().try_for_each(|applied| applied.lora.read(device))?;
    Ok(all)
}

/// What LoRAs take in memory once they are read, each file once.
pub(crate) fn memory_bytes(loras: &[Applied]) -> u64 {
    let is_first = |(i, applied): &(usize, &Applied)| {
        loras[..*i].iter().all(|other| !Arc::ptr_eq(&other.lora, &applied.lora))
    };
    loras.iter().enumerate().filter(is_first).map(|(_, applied)| applied.lora.memory_bytes()).sum()
}

/// The steps that a LoRA among these was distilled for, if one was and has an effect: the first one's.
pub(crate) fn distilled_steps(loras: &[Applied]) -> Option<usize> {
    let all = loras.iter().filter(|applied| applied.scale != 0.0);
    let mut steps = all.filter_map(|applied| applied.lora.lightning_steps());
    let first = steps.next()?;
    if let Some(other) = steps.find(|other| *other != first) {
        tracing::warn!("LoRAs for {first} and for {other} steps are given: it is drawn in {first}");
    }
    Some(first)
}

/// Whether one that has an effect was distilled: it draws without guidance.
pub(crate) fn is_distilled(loras: &[Applied]) -> bool {
    loras.iter().any(|applied| applied.scale != 0.0 && applied.lora.lightning_steps().is_some())
}

/// Checks what a caller asks for.
///
/// # Errors
/// [`Error::InvalidParam`] for more than [`MAX_LORAS`] and for a scale that is no number from -10 to 10.
pub fn check(sources: &[LoraSource]) -> Result<()> {
    let refuse = |got: String, allowed: String| Err(Error::InvalidParam { param: "lora", got, allowed });
    if sources.len() > MAX_LORAS {
        return refuse(format!("{} files", sources.len()), format!("at most {MAX_LORAS}"));
    }
    // A NaN is in no range.
    match sources.iter().find(|source| !(-MAX_SCALE..=MAX_SCALE).contains(&source.scale)) {
        Some(source) => refuse(
            format!("{} with the scale {}", name_of(&source.path), source.scale),
            format!("a scale from -{MAX_SCALE} to {MAX_SCALE}"),
        ),
        None => Ok(()),
    }
}

/// A file's name without its folders.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
