//! Says what a file or folder is that is not a Qwen-Image model.

use std::io::Read;
use std::path::Path;

use inkstone_tensor::{Shape, regular};
use serde_json::Value;

use super::folder::Folder;
use super::json;
use super::shards::Shards;
use super::{Component, gguf, safetensors};
use crate::error::{FileFormat, Found};
use crate::{Error, Result};

/// The pipelines this engine draws with.
const SUPPORTED: [&str; 2] = ["QwenImagePipeline", "QwenImageImg2ImgPipeline"];

/// Names of models by how their pipelines' classes begin; the first that fits counts.
const FAMILIES: [(&str, &str); 14] = [
    ("QwenImageEditPlus", "Qwen-Image-Edit 2509 or later"),
    ("QwenImageEdit", "Qwen-Image-Edit"),
    ("QwenImageLayered", "Qwen-Image-Layered"),
    ("QwenImage21", "Qwen-Image 2.1"),
    ("QwenImageControlNet", "Qwen-Image with a ControlNet"),
    ("QwenImageInpaint", "Qwen-Image inpainting"),
    ("Flux2", "FLUX.2"),
    ("Flux", "FLUX.1"),
    ("StableDiffusionXL", "Stable Diffusion XL"),
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("StableDiffusion", "Stable Diffusion, a UNet"),
    ("ZImage", "Z-Image"),
    ("Sana", "Sana"),
    ("PixArt", "PixArt"),
];

/// The classes of a supported pipeline's parts.
const PARTS: [(&str, &str); 4] = [
    ("scheduler", "FlowMatchEulerDiscreteScheduler"),
    ("text_encoder", "Qwen2_5_VLForConditionalGeneration"),
    ("transformer", "QwenImageTransformer2DModel"),
    ("vae", "AutoencoderKLQwenImage"),
];

/// What a file with names of a LoRA holds.
pub(crate) const A_LORA: &str = "a LoRA";

/// What a lone file's tensors are, by a part of one's name; the first that fits counts.
const TENSORS: [(&str, &str); 15] = [
    ("lora_", A_LORA),
    (".lokr_w", A_LORA),
    (".hada_w", A_LORA),
    (".lora", A_LORA),
    ("txt_mod.1.weight", TRANSFORMER),
    ("txt_mod_linear.weight", TRANSFORMER),
    ("double_stream_modulation_img", "the transformer of FLUX.2"),
    ("double_blocks.0.", "the transformer of FLUX.1"),
    ("single_transformer_blocks.0.", "the transformer of FLUX.1"),
    ("joint_blocks.0.", "Stable Diffusion 3"),
    ("conditioner.embedders.1.", "Stable Diffusion XL"),
    ("diffusion_model.input_blocks.", "Stable Diffusion, a UNet"),
    ("layers.0.self_attn", LANGUAGE_MODEL),
    ("blk.0.attn_q.", LANGUAGE_MODEL),
    ("time_conv.", VAE),
];

const UNKNOWN: &str = "tensors of another model";
const TRANSFORMER: &str = "the transformer of Qwen-Image";
const LANGUAGE_MODEL: &str = "a language model";
const VAE: &str = "the VAE of Qwen-Image or Wan";

/// What can be given in place of a part of a model.
const ALONE: [(&str, Component); 3] =
    [(TRANSFORMER, Component::Transformer), (LANGUAGE_MODEL, Component::TextEncoder), (VAE, Component::Vae)];

/// Names of a folder's entries that a message shows.
const ENTRIES_SHOWN: usize = 5;

/// Checks that `model_index.json` describes a pipeline this engine draws with.
pub(super) fn check_index(path: &Path, index: &Value) -> Result<()> {
    let unsupported = |found| Error::UnsupportedModel { path: path.to_owned(), found };
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    if !SUPPORTED.contains(&class) {
        let family = FAMILIES.iter().find(|(start, _)| class.starts_with(start)).map(|(_, family)| *family);
        return Err(unsupported(Found::Pipeline { class: json::shown(class), family }));
    }
    for (component, want) in PARTS {
        let class =
            index.get(component).and_then(|pair| pair.get(1)).and_then(Value::as_str).unwrap_or_default();
        if class != want {
            return Err(unsupported(Found::Part { component, class: json::shown(class), want }));
        }
    }
    Ok(())
}

/// The error for a folder without `model_index.json`.
pub(super) fn folder_without_index(path: &Path, folder: &Folder) -> Error {
    let mut entries = folder.list("");
    let config = folder.find("config.json").ok().flatten();
    let class = config.and_then(|config| class_of(&config));
    let found = match class {
        _ if entries.is_empty() => Found::EmptyFolder,
        Some(class) => Found::Component { class },
        None => {
            if entries.len() > ENTRIES_SHOWN {
                let more = entries.len() - ENTRIES_SHOWN;
                entries.truncate(ENTRIES_SHOWN);
                entries.push(format!("{more} more"));
            }
            Found::NoIndex { entries }
        }
    };
    Error::UnsupportedModel { path: path.to_owned(), found }
}

fn class_of(config: &Path) -> Option<String> {
    let bytes = json::read_file(config, json::CONFIG_LIMIT_BYTES).ok()?;
    let config = json::parse(config, &bytes).ok()?;
    let class = config.get("_class_name").or_else(|| config.get("architectures")?.get(0));
    class.or_else(|| config.get("model_type")).and_then(Value::as_str).map(json::shown)
}

/// The parts of a Qwen-Image model that a file holds; at least one.
///
/// # Errors
/// [`Error::UnsupportedModel`] for a file that holds none; what is wrong with it.
pub(super) fn parts_of(path: &Path) -> Result<Vec<Component>> {
    let unsupported = |found| Error::UnsupportedModel { path: path.to_owned(), found };
    // What belongs together is looked at together: the first may hold no tensor, or those of no part alone.
    let files = Shards::named(path)?.files;
    let names = match files.iter().map(|file| names(file)).collect::<Result<Vec<_>>>() {
        Ok(names) => names.concat(),
        // A file that calls itself safetensors is told what is wrong with it.
        Err(error @ (Error::Gguf { .. } | Error::ForeignFormat { .. } | Error::ModelRead { .. })) => {
            return Err(error);
        }
        Err(error) if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) => {
            return Err(error);
        }
        Err(_) => return Err(unsupported(Found::OtherFile)),
    };
    let first = holds(&names);
    let parts = ALONE.iter().filter(|(what, _)| {
        let marks = TENSORS.iter().filter(|(_, of)| of == what).map(|(mark, _)| *mark);
        marks.into_iter().any(|mark| names.iter().any(|name| name.contains(mark)))
    });
    // What a LoRA or another model's parts are called may be called so in a part of ours too.
    match ALONE.iter().any(|(what, _)| *what == first) {
        true => Ok(parts.map(|(_, part)| *part).collect()),
        false => Err(unsupported(Found::LoneFile { holds: first })),
    }
}

/// Refuses a file that was named for a part and is known to be something else.
///
/// # Errors
/// [`Error::UnsupportedModel`]. What is wrong with a file is told by who opens it.
pub(super) fn check_part(path: &Path, wanted: Component) -> Result<()> {
    let other = |holds| {
        let found = Found::NoPart { wanted, holds };
        Err(Error::UnsupportedModel { path: path.to_owned(), found })
    };
    match parts_of(path) {
        Ok(parts) if !parts.contains(&wanted) => match ALONE.iter().find(|(_, part)| parts.contains(part)) {
            Some((holds, _)) => other(holds),
            None => Ok(()),
        },
        Err(Error::UnsupportedModel { found: Found::LoneFile { holds }, .. }) if holds != UNKNOWN => {
            other(holds)
        }
        Err(Error::UnsupportedModel { found: Found::OtherFile, .. }) => other("no weights"),
        _ => Ok(()),
    }
}

fn names(path: &Path) -> Result<Vec<String>> {
    Ok(shapes(path)?.into_iter().map(|(name, _)| name).collect())
}

/// The names and shapes of the tensors of a file of weights.
///
/// # Errors
/// A format that is not read, an unsound head.
pub(super) fn shapes(path: &Path) -> Result<Vec<(String, Shape)>> {
    check_format(path)?;
    if is_gguf(path) { gguf::shapes(path) } else { safetensors::shapes(path) }
}

/// Whether a file begins as GGUF files do.
pub(super) fn is_gguf(path: &Path) -> bool {
    let mut start = [0; gguf::MAGIC.len()];
    regular::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == gguf::MAGIC
}

/// What tensors of these names are.
pub(super) fn holds(names: &[String]) -> &'static str {
    if names.is_empty() {
        return "no tensors";
    }
    let known = |part: &str| names.iter().any(|name| name.contains(part));
    TENSORS.iter().find(|(part, _)| known(part)).map_or(UNKNOWN, |(_, what)| what)
}

/// Looks at the first bytes of a file of weights, whatever its name.
///
/// # Errors
/// [`Error::ForeignFormat`] for a format that is known and not read; [`Error::ModelRead`].
pub(super) fn check_format(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    let read = regular::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    read.map_err(|source| Error::ModelRead { path: path.to_owned(), source })?;
    match format(&start) {
        Some(format) => Err(Error::ForeignFormat { path: path.to_owned(), format }),
        None => Ok(()),
    }
}

/// The format that these first bytes of a file tell; `None` for safetensors and for what is not known.
fn format(start: &[u8]) -> Option<FileFormat> {
    /// Pickle protocols 2 to 5 begin with this byte and their number.
    const PICKLE_PROTOCOL: u8 = 0x80;
    // The length of a safetensors header may have any bytes; its JSON begins with a brace.
    if start.get(8) == Some(&b'{') {
        return None;
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Some(FileFormat::Pickle);
    }
    if let [PICKLE_PROTOCOL, 2..=5, ..] = start {
        return Some(FileFormat::Pickle);
    }
    if start.starts_with(b"version https://git-lfs") {
        return Some(FileFormat::LfsPointer);
    }
    let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    (text.starts_with("<!doctype") || text.starts_with("<html")).then_some(FileFormat::Html)
}
