//! What each error means to a program and to its user.

use inkstone_tensor::Error as TensorError;
use inkstone_tensor::regular::NotRegular;

use super::{Error, FileFormat, Found, GgufProblem, LoraProblem, PlaceProblem, ShardProblem};
use crate::memory::LimitOf;
use crate::weights::lora::QWEN_IMAGE;

/// What an error means to a program and to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Stable: `INK-02xx` usage, `03xx` model files, `04xx` memory and disk, `05xx` drawing, `06xx` network.
    pub code: &'static str,
    /// What the command ends with.
    pub exit_code: u8,
    /// What the server answers with.
    pub http_status: u16,
    /// One short line that tells what to do.
    pub cure: &'static str,
}

/// Exit codes.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const MODEL: u8 = 3;
    pub(super) const RESOURCES: u8 = 4;
    pub(super) const INTERRUPTED: u8 = 130;
}

/// HTTP statuses.
mod http {
    pub(super) const BAD_REQUEST: u16 = 400;
    /// nginx's own: the client went away.
    pub(super) const CLIENT_CLOSED: u16 = 499;
    pub(super) const SERVER_ERROR: u16 = 500;
    pub(super) const UNAVAILABLE: u16 = 503;
}

const REGULAR: &str = "give a file on a disk; pipes and devices have no length to check";
const DOWNLOAD_AGAIN: &str = "download the model again; the file is damaged or cut short";

impl Error {
    /// The stable code, `INK-0xxx`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.facts().code
    }

    /// What the command ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.facts().exit_code
    }

    /// What the server answers with.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.facts().http_status
    }

    /// One short line that tells what to do.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        self.facts().cure
    }

    /// All of these together.
    #[must_use]
    pub fn facts(&self) -> Facts {
        match self {
            Self::InvalidParam { .. } => usage("INK-0201", "give a value that is allowed"),
            Self::Picture(_) => usage("INK-0210", "give a PNG, JPEG or WebP picture that is whole"),
            Self::Lora { problem, .. } => usage("INK-0211", lora(problem)),
            Self::InsufficientMemory { shortage, .. } => Facts {
                http_status: http::BAD_REQUEST,
                ..resources("INK-0401", no_alternative(shortage.limit.of))
            },
            Self::ModelRead { source, .. } if NotRegular::of(source).is_some() => model("INK-0301", REGULAR),
            Self::ModelRead { .. } => {
                model("INK-0301", "check that the file is there and that you may read it")
            }
            Self::ModelNotFound { .. } => {
                model("INK-0302", "give a folder that is there, or leave out --model")
            }
            Self::UnsupportedModel { found, .. } => model("INK-0303", unsupported(found)),
            Self::MissingFile { .. } => {
                model("INK-0304", "download the model again, with all of its folders")
            }
            Self::Safetensors { .. } => model("INK-0305", DOWNLOAD_AGAIN),
            Self::Gguf { problem, .. } => model("INK-0311", gguf(problem)),
            Self::ForeignFormat { format, .. } => model("INK-0306", foreign(*format)),
            Self::Tensors { report, .. } if report.is_of_types() => model(
                "INK-0307",
                "get it in another format: f32, bf16, f16, fp8, MLX, or GGUF with q4_0 to q8_0 or q2_K to q6_K",
            ),
            Self::Tensors { .. } => model("INK-0307", "use a config.json and weights that belong together"),
            Self::Shards { problem, .. } => model("INK-0308", shards(problem)),
            Self::OutsideModel { .. } => model("INK-0309", "copy the file into the model's folder"),
            Self::Json { .. } => model("INK-0310", "download the file again, or mend it"),
            Self::ModelChanged { .. } => {
                model("INK-0312", "draw again when nothing writes to the model any more")
            }
            Self::Tokenizer { .. } => model("INK-0313", "use the tokenizer that came with Qwen-Image"),
            Self::WeightsNotFinite { .. } => model("INK-0314", DOWNLOAD_AGAIN),
            Self::Note { .. } => {
                model("INK-0317", "use a file in bf16, fp8, int8_tensorwise or GGUF, as its program wrote it")
            }
            Self::MissingParts { .. } => model(
                "INK-0318",
                "add what is missing with --transformer, --text-encoder, --vae, or --model FOLDER",
            ),
            Self::MissingTokenizer { .. } => {
                model("INK-0319", "add --tokenizer FILE, the tokenizer.json of Qwen-Image or Qwen2.5-VL")
            }
            Self::AlreadyQuantized { format, .. } => model("INK-0315", already_quantized(format)),
            Self::NothingToQuantize { .. } => {
                model("INK-0316", "use it as it is; its layers have too few inputs for groups of 64")
            }
            Self::ConvertPlace { problem, .. } => usage("INK-0203", place(*problem)),
            Self::DiskFull { .. } => resources("INK-0410", "make room, or choose a place on another disk"),
            Self::Write { .. } => resources("INK-0411", "make room, or choose a place that you may write to"),
            Self::ModelConfig { .. } => model("INK-0320", "use the config.json that came with the model"),
            Self::NotFinite { .. } => {
                failed("INK-0501", "draw with --dtype f32; if it happens again the weights are damaged")
            }
            Self::Interrupted => Facts {
                exit_code: exit::INTERRUPTED,
                http_status: http::CLIENT_CLOSED,
                ..failed("INK-0503", "run it again; pictures that were finished are there, whole")
            },
            Self::Tensor(error) => tensor(error),
        }
    }
}

fn gguf(problem: &GgufProblem) -> &'static str {
    match problem {
        GgufProblem::Split { .. } => {
            "name the parts as llama-gguf-split does, or join them: llama-gguf-split --merge"
        }
        _ => DOWNLOAD_AGAIN,
    }
}

fn shards(problem: &ShardProblem) -> &'static str {
    match problem {
        ShardProblem::Alone { .. } => {
            "put all of these files into one folder, under the names that they came with"
        }
        _ => "download the model again, with the index and every shard",
    }
}

fn already_quantized(format: &str) -> &'static str {
    // Floats of 8 bits are only refused where a LoRA's sum would have to be rounded to them again.
    match format.starts_with("f8_") {
        true => "merge and quantize at once: add --quantize q8, q4 or int8",
        false => "draw with it without --quantize; convert and merge into the model as it was published",
    }
}

fn lora(problem: &LoraProblem) -> &'static str {
    match problem {
        LoraProblem::Misfit { .. } => "give a LoRA that was made for this model, or leave out --lora",
        LoraProblem::NotSafetensors => "give a LoRA as a safetensors file",
        LoraProblem::Folder => "name the file, or leave out --lora",
        LoraProblem::LeftOver { family: Some(QWEN_IMAGE), .. }
        | LoraProblem::OtherKind { family: Some(QWEN_IMAGE), .. } => {
            "give a LoRA, LoKr or LoHa of linear layers of the transformer alone, or leave out --lora"
        }
        _ => "give a LoRA of Qwen-Image, or leave out --lora",
    }
}

/// What to do where no change of the request fits.
fn no_alternative(limit: LimitOf) -> &'static str {
    match limit {
        LimitOf::MaxMemory => "allow more with --max-memory, on a machine that has more free",
        LimitOf::Free => "close other programs, or take a machine with more memory",
        LimitOf::ControlGroup => "give the container more memory",
        LimitOf::AddressSpace => "raise ulimit -v: mapped weights count in full, whatever leaves memory",
        LimitOf::Data => "raise ulimit -d",
    }
}

fn unsupported(found: &Found) -> &'static str {
    match found {
        Found::NoPart { holds: "a LoRA", .. } => "draw with it as a LoRA: --lora FILE",
        Found::NoWeights { .. } => "name the file itself, or the folder that has it",
        Found::OtherPart { .. } | Found::NoPart { .. } => {
            "give each flag the file of its own part, or leave it out"
        }
        Found::NamedTwice => "leave out --model, or the flag of the part that this file is for",
        Found::Component { .. } | Found::OtherFile => {
            "give the folder of a whole Qwen-Image model, the one with model_index.json in it"
        }
        _ => "give a folder of Qwen-Image (QwenImagePipeline or QwenImageImg2ImgPipeline)",
    }
}

fn foreign(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Pickle => "get the model as safetensors, or convert it with diffusers' save_pretrained",
        FileFormat::LfsPointer => "run `git lfs pull` in the model's folder",
        FileFormat::Html => "download the file again; the site may want you to log in",
    }
}

fn place(problem: PlaceProblem) -> &'static str {
    match problem {
        PlaceProblem::Exists => "choose another --output, or replace it with --overwrite",
        PlaceProblem::Link => "name the folder itself that the link leads to, or choose another --output",
        _ => "choose another --output",
    }
}

fn resources(code: &'static str, cure: &'static str) -> Facts {
    Facts { code, exit_code: exit::RESOURCES, http_status: http::UNAVAILABLE, cure }
}

/// Errors of the tensor engine: memory, a device that was asked for, or a fault of ours.
fn tensor(error: &TensorError) -> Facts {
    match error {
        TensorError::OutOfMemory { .. } => Facts {
            code: "INK-0402",
            exit_code: exit::RESOURCES,
            http_status: http::UNAVAILABLE,
            cure: "draw a smaller picture, or close other programs",
        },
        TensorError::Device { .. } => {
            usage("INK-0202", "choose another device, or leave out --device and INKSTONE_CPU")
        }
        _ => failed(
            "INK-0502",
            "this is a fault of Inkstone: please report it with the command that led to it",
        ),
    }
}

fn model(code: &'static str, cure: &'static str) -> Facts {
    Facts { code, exit_code: exit::MODEL, http_status: http::SERVER_ERROR, cure }
}

fn usage(code: &'static str, cure: &'static str) -> Facts {
    Facts { code, exit_code: exit::USAGE, http_status: http::BAD_REQUEST, cure }
}

fn failed(code: &'static str, cure: &'static str) -> Facts {
    Facts { code, exit_code: exit::FAILED, http_status: http::SERVER_ERROR, cure }
}
