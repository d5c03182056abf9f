//! What ComfyUI notes beside quantized weights, and the weights of signed bytes that only the note explains.
//!
//! # Source
//! - ComfyUI `comfy/ops.py` and `comfy/quant_ops.py`: `LAYER.comfy_quant`, u8, is JSON with the name of a `format`; the
//!   same objects by layer are in `_quantization_metadata` of the file's header. `int8_tensorwise`: `LAYER.weight` i8 with
//!   `LAYER.weight_scale` f32, one, `[n_out]` or `[n_out, 1]`; `convrot` with `convrot_groupsize`, 256 unless it says
//!   otherwise, or both inside of `params`.
//! - 8-bit floats need no note; `loader/packed.rs` reads them.

use std::collections::BTreeMap;

use inkstone_tensor::{ConvRot, DType, Error as TensorError, Quantized, Shape, Tensor, ops};
use serde::Deserialize;

use super::{Component, SafeTensors, json};
use crate::error::NoteProblem;
use crate::{Error, Result};

#[cfg(test)]
mod tests;

const NOTE: &str = ".comfy_quant";
const WEIGHT: &str = ".weight";
const SCALE: &str = ".weight_scale";
/// Factors on the inputs, which some recipes add; they would have to be applied before the rotation.
const INPUT_FACTORS: &str = ".pre_quant_scale";
/// Notes of all layers in the file's header.
const NOTES: &str = "_quantization_metadata";
/// Longest note; real ones have some hundred bytes.
const NOTE_LIMIT_BYTES: usize = 16_384;
/// Group of the rotation unless the note says otherwise.
const GROUP: u64 = 256;
/// The format of signed bytes.
const INT8: &str = "int8_tensorwise";
/// Formats that explain themselves.
const FLOATS: [&str; 2] = ["float8_e4m3fn", "float8_e5m2"];

/// What of a note is looked at.
#[derive(Debug, Default, Deserialize)]
struct Note {
    format: Option<String>,
    convrot: Option<bool>,
    convrot_groupsize: Option<u64>,
    #[serde(default)]
    params: Rotation,
}

#[derive(Debug, Default, Deserialize)]
struct Rotation {
    convrot: Option<bool>,
    convrot_groupsize: Option<u64>,
}

#[derive(Deserialize)]
struct Notes {
    layers: BTreeMap<String, Note>,
}

impl Note {
    /// Inputs that were rotated together; 1 where none were.
    fn group(&self) -> u64 {
        if !self.convrot.or(self.params.convrot).unwrap_or(false) {
            return 1;
        }
        self.convrot_groupsize.or(self.params.convrot_groupsize).unwrap_or(GROUP)
    }
}

/// Makes matrices of the signed bytes among a component's tensors; the names are still the file's.
///
/// # Errors
/// [`Error::Note`]: a note that is none, a format that is not read, parts that do not fit each other.
pub(super) fn join(component: Component, file: &mut SafeTensors) -> Result<()> {
    for (layer, note) in notes(component, file)? {
        let wrong = |problem| Error::Note { component: component.name(), layer: layer.clone(), problem };
        let format = note.format.as_deref().ok_or_else(|| wrong(NoteProblem::NoFormat))?;
        if format == INT8 {
            let matrix = int8(&layer, &note, file).map_err(|problem| match problem {
                Broken::Note(problem) => wrong(problem),
                Broken::Tensor(error) => error.into(),
            })?;
            file.quantized.insert(format!("{layer}{WEIGHT}"), matrix);
        } else if !FLOATS.contains(&format) {
            return Err(wrong(NoteProblem::Format { format: json::shown(format) }));
        }
    }
    let bytes = |(_, tensor): &(&String, &Tensor)| tensor.dtype() == DType::I8;
    match file.tensors.iter().find(bytes).and_then(|(name, _)| name.strip_suffix(WEIGHT)) {
        None => Ok(()),
        Some(layer) => Err(Error::Note {
            component: component.name(),
            layer: layer.to_owned(),
            problem: NoteProblem::Missing,
        }),
    }
}

/// The notes by layer, taken out of the tensors.
fn notes(component: Component, file: &mut SafeTensors) -> Result<BTreeMap<String, Note>> {
    let wrong = |layer: &str, reason: String| Error::Note {
        component: component.name(),
        layer: layer.to_owned(),
        problem: NoteProblem::Unreadable { reason },
    };
    let mut notes = BTreeMap::new();
    if let Some(text) = file.metadata.get(NOTES) {
        let listed: Notes = serde_json::from_str(text).map_err(|e| wrong(NOTES, e.to_string()))?;
        for (layer, note) in listed.layers {
            // Some writers leave the component's prefix out.
            let prefixes = super::names::prefixes(component).iter().copied();
            let mut names = std::iter::once("").chain(prefixes).map(|prefix| format!("{prefix}{layer}"));
            let layer = names.find(|name| file.tensors.contains_key(&format!("{name}{WEIGHT}")));
            notes.extend(layer.map(|layer| (layer, note)));
        }
    }
    let names: Vec<String> = file.tensors.keys().filter(|name| name.ends_with(NOTE)).cloned().collect();
    for name in names {
        let layer = name.trim_end_matches(NOTE);
        let Some(tensor) = file.tensors.remove(&name) else { continue };
        if tensor.dtype() != DType::U8 || tensor.shape().count() > NOTE_LIMIT_BYTES {
            let reason = format!("it is {} in {}", tensor.shape(), tensor.dtype());
            return Err(wrong(layer, reason));
        }
        let note = serde_json::from_slice(&tensor.to_bytes()).map_err(|e| wrong(layer, e.to_string()))?;
        notes.insert(layer.to_owned(), note);
    }
    Ok(notes)
}

/// Why there is no matrix.
enum Broken {
    Note(NoteProblem),
    Tensor(TensorError),
}

impl From<NoteProblem> for Broken {
    fn from(problem: NoteProblem) -> Self {
        Self::Note(problem)
    }
}

impl From<TensorError> for Broken {
    fn from(error: TensorError) -> Self {
        Self::Tensor(error)
    }
}

/// The matrix of a layer of signed bytes, taken out of the tensors.
fn int8(layer: &str, note: &Note, file: &mut SafeTensors) -> Result<Quantized, Broken> {
    let parts = |what: String| Broken::Note(NoteProblem::Parts { what });
    let mut take = |end: &str| file.tensors.remove(&format!("{layer}{end}"));
    let values = take(WEIGHT).ok_or_else(|| parts(format!("{WEIGHT} is not there")))?;
    let scales = take(SCALE).ok_or_else(|| parts(format!("{SCALE} is not there")))?;
    if take(INPUT_FACTORS).is_some() {
        return Err(parts(format!("{INPUT_FACTORS} is there, which is not read")));
    }
    if values.dtype() != DType::I8 || values.shape().dims().len() != 2 {
        return Err(parts(format!(
            "{WEIGHT} is {} in {}, not a matrix of i8",
            values.shape(),
            values.dtype()
        )));
    }
    let (rows, cols) = (values.rows(), values.cols());
    let fits = match *scales.shape().dims() {
        [] | [1] => true,
        [n] | [n, 1] => n == rows,
        _ => false,
    };
    if !scales.dtype().is_float() || !fits {
        let have = format!("{} in {}", scales.shape(), scales.dtype());
        return Err(parts(format!("{SCALE} is {have}, not one float or one for each of {rows} rows")));
    }
    if !scales.is_finite() {
        return Err(parts(format!("{SCALE} has values that are not finite")));
    }
    let group = note.group();
    let known = usize::try_from(group).ok().filter(|group| ConvRot::GROUPS.contains(group));
    let Some(group) = known.filter(|group| cols.is_multiple_of(*group)) else {
        return Err(NoteProblem::Group { group, n_in: cols }.into());
    };
    let count = scales.shape().count();
    let scales = scales.reshape(Shape::vector(count))?;
    let scales = if scales.dtype() == DType::F32 { scales } else { ops::convert(&scales, DType::F32)? };
    Ok(Quantized::ConvRot(ConvRot::new(values, scales, group)?))
}
