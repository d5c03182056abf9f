//! Flags of the commands that do not draw something new.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use inkstone::request::{MAX_STEPS, Size};

use super::{Bytes, Clock, Dtype, How, LoraArg, Parts, Quantize, Threads, values};

/// `inkstone info`.
#[derive(Clone, Debug, Args, PartialEq)]
pub(crate) struct Info {
    /// The picture, or the .json beside it
    #[arg(value_name = "IMAGE")]
    pub(crate) picture: PathBuf,
    /// Draw it again: the same pixels to the byte, on the same version and machine
    #[arg(long)]
    pub(crate) replay: bool,
    #[command(flatten)]
    pub(crate) how: How,
}

/// `inkstone plan`.
#[derive(Clone, Debug, Args, PartialEq)]
pub(crate) struct Plan {
    /// A model's folder, or a file with its weights [default: the small model inside this program]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) parts: Parts,
    /// Sizes of pictures, by comma: 512x512,1024x768 [default: half to twice the model's own]
    #[arg(long, value_name = "WxH", value_delimiter = ',', allow_hyphen_values = true)]
    pub(crate) size: Vec<Size>,
    #[arg(long, value_name = "N", value_parser = values::steps, allow_negative_numbers = true)]
    #[arg(help = format!("Denoising steps, 1 to {MAX_STEPS}"))]
    pub(crate) steps: Option<usize>,
    /// Memory that the program may take at most, such as 12G [default: what is free]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) max_memory: Option<Bytes>,
    /// Threads [default: one a core]
    #[arg(short_alias = 't', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) threads: Option<Threads>,
    /// cpu foretells processor time, summed over threads: with --threads 1 what a machine without other work would take
    #[arg(long, value_name = "CLOCK", default_value = "wall")]
    pub(crate) clock: Clock,
    /// Print only the flags of the best setting for the first size, or the model's own
    #[arg(long)]
    pub(crate) optimal: bool,
}

/// `inkstone convert`.
#[derive(Clone, Debug, Args, PartialEq)]
pub(crate) struct Convert {
    /// The model's folder, a file with its weights, or tiny, the small model inside this program
    #[arg(value_name = "MODEL", required_unless_present_any = ["transformer", "text_encoder", "vae"])]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) parts: Parts,
    /// The format of the new weights; may be left out with --lora
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) quantize: Option<Quantize>,
    /// A LoRA to put into the weights and its strength, -10 to 10, 1 unless said; several add up
    #[arg(long, value_name = "PATH[=SCALE]", value_parser = OsStringValueParser::new().try_map(LoraArg::try_from))]
    pub(crate) lora: Vec<LoraArg>,
    /// The folder to make
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
    /// Replace a model's folder that exists
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Memory that the program may take at most, such as 12G [default: what is free]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) max_memory: Option<Bytes>,
    /// Threads [default: one a core]
    #[arg(short_alias = 't', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) threads: Option<Threads>,
}

/// `inkstone bench`.
#[derive(Clone, Debug, Args, PartialEq)]
pub(crate) struct Bench {
    /// kernels, stages, pictures, or cases such as block/512 and linear/1088x3072x12288; - reads cases from standard
    /// input, one a line, and runs each once [default: kernels stages]
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// Runs of each case; the median counts
    #[arg(long, value_name = "N", default_value = "7", value_parser = values::up_to::<1000>, allow_negative_numbers = true)]
    pub(crate) runs: u16,
    /// Side of pictures, and of the stages that depend on it
    #[arg(long, value_name = "PX", default_value = "256", value_parser = values::exact_side, allow_negative_numbers = true)]
    pub(crate) size: usize,
    /// Blocks of the transformer; it has 60, of 0.7 GB each
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::up_to::<60>, allow_negative_numbers = true)]
    pub(crate) blocks: u16,
    /// Layers of the text encoder; it has 28, of 0.5 GB each
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::up_to::<28>, allow_negative_numbers = true)]
    pub(crate) layers: u16,
    /// Show ratios to what an earlier --json wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) compare: Option<PathBuf>,
    /// cpu counts processor time, summed over threads: for --threads 1 on a busy machine
    #[arg(long, value_name = "CLOCK", default_value = "wall")]
    pub(crate) clock: Clock,
    /// Instruction sets, by comma; all for each that the processor has [default: the best]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) isa: Vec<String>,
    /// Threads [default: one a core]
    #[arg(short_alias = 't', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) threads: Option<Threads>,
    /// Arithmetic [default: bf16 and f32 for kernels, else what drawing takes]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<Dtype>,
    /// Weights in a smaller format only [default: kernels also with int8]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) quantize: Option<Quantize>,
}
