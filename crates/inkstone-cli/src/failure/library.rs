//! Errors of the library, as what went wrong and why.

use std::error::Error as _;

use inkstone::Error;
use inkstone::memory::{Alternative, LimitOf};
use inkstone_tensor::Error as TensorError;

/// The first two of the three lines.
pub(super) fn what_and_why(error: &Error) -> (String, String) {
    match error {
        Error::InvalidParam { param, got, allowed } => {
            (format!("{param} is {got}"), format!("allowed is {allowed}"))
        }
        Error::Interrupted => ("interrupted".into(), "it was asked to stop".into()),
        Error::NotFinite { .. } => (error.to_string(), "a NaN or an infinity cannot become a picture".into()),
        Error::InsufficientMemory { shortage, .. } => {
            ("the drawing does not fit into memory".into(), format!("it {shortage}"))
        }
        Error::Tensor(error) => tensor(error),
        _ => model(error).unwrap_or_else(|| split_source(error)),
    }
}

/// What fits instead, if anything was found.
pub(crate) fn alternatives(alternatives: &[Alternative]) -> Option<String> {
    let (last, first) = alternatives.split_last()?;
    let first: Vec<String> = first.iter().map(ToString::to_string).collect();
    let or = if first.is_empty() { "" } else { " or " };
    Some(format!("{}{or}{last}", first.join(", ")))
}

/// What makes room for a file, whatever is drawn with it.
pub(crate) const fn more_memory(limit: LimitOf) -> &'static str {
    match limit {
        LimitOf::MaxMemory => "allow more with --max-memory",
        LimitOf::Free => "close other programs",
        LimitOf::ControlGroup => "give the container more memory",
        LimitOf::AddressSpace => "raise ulimit -v",
        LimitOf::Data => "raise ulimit -d",
    }
}

/// Errors about a model's files whose message is one sentence.
fn model(error: &Error) -> Option<(String, String)> {
    Some(match error {
        Error::ModelNotFound { .. } => (error.to_string(), "nothing has this name".into()),
        Error::UnsupportedModel { path, found } => {
            (format!("{} is no Qwen-Image model", path.display()), format!("it is {found}"))
        }
        Error::MissingFile { .. } => {
            (error.to_string(), "each part that model_index.json names needs its files".into())
        }
        Error::ForeignFormat { path, format } => {
            (format!("{} cannot be used", path.display()), format!("it is {format}"))
        }
        Error::Lora { path, problem } => {
            (format!("the LoRA {} cannot be used", path.display()), problem.to_string())
        }
        Error::OutsideModel { path, target, boundary } => {
            let why = format!("it leads to {}, outside of {}", target.display(), boundary.display());
            (format!("{} is refused", path.display()), why)
        }
        Error::WeightsNotFinite { component, count, first } => {
            let why = format!("{count} tensors have some: {}", first.join(", "));
            (format!("the {component} has values that are not finite"), why)
        }
        Error::ModelChanged { path, .. } => before_colon(error, &path.display()),
        Error::ModelConfig { component, field, got, allowed } => {
            (format!("{field} of the {component} is {got}"), format!("allowed is {allowed}"))
        }
        Error::AlreadyQuantized { component, layer, format } => {
            let what = format!("the {component} is quantized already");
            (what, format!("{layer} is stored as {format}, and rounding twice loses more"))
        }
        Error::MissingParts { .. } => {
            (error.to_string(), "a drawing needs a text encoder, a transformer and a VAE".into())
        }
        Error::MissingTokenizer { path } => {
            ("there is no tokenizer".into(), format!("{} holds none", path.display()))
        }
        Error::NothingToQuantize { .. } => (error.to_string(), "its groups are of 64 values".into()),
        Error::DiskFull { path, .. } => before_colon(error, &path.display()),
        _ => return None,
    })
}

/// What a message says before its own colon, behind the path that it begins with, and after it.
fn before_colon(error: &Error, path: &dyn std::fmt::Display) -> (String, String) {
    let (path, whole) = (path.to_string(), error.to_string());
    let said = whole.strip_prefix(&path).and_then(|said| said.split_once(": "));
    said.map_or((whole.clone(), String::new()), |(what, why)| (format!("{path}{what}"), why.to_owned()))
}

fn tensor(error: &TensorError) -> (String, String) {
    match error {
        TensorError::OutOfMemory { device, wanted_bytes } => {
            ("out of memory".into(), format!("{device} has no {wanted_bytes} bytes left in one piece"))
        }
        TensorError::Device { device, reason } => {
            (format!("the device {device} cannot be used"), reason.clone())
        }
        _ => ("an operation was used wrongly".into(), error.to_string()),
    }
}

/// An error's cause, or what its message says behind a colon.
fn split_source(error: &Error) -> (String, String) {
    let whole = error.to_string();
    let cause = error.source().map(ToString::to_string);
    let what = cause.as_deref().and_then(|cause| whole.strip_suffix(cause)?.strip_suffix(": "));
    match (what, cause, whole.split_once(": ")) {
        (Some(what), Some(cause), _) => (what.to_owned(), cause),
        (None, Some(cause), _) => (whole, cause),
        (_, None, Some((what, why))) => (what.to_owned(), why.to_owned()),
        (_, None, None) => (whole, "nothing more is known".to_owned()),
    }
}
