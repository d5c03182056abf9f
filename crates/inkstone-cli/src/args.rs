//! The command line: every flag, said once. Help, completions and the manual page are made from it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use inkstone::request::{Aspect, MAX_COUNT, MAX_STEPS, Size};
use inkstone::weights::Quantization;
use serde::Deserialize;

use crate::failure::{Failure, Result};

pub(crate) mod peers;
mod values;

pub(crate) use values::{Bytes, InitArg, LoraArg, Seed, Threads, Tiling};

/// Draws pictures from text on the machine you have.
#[derive(Debug, Parser)]
#[command(name = "inkstone", version, max_term_width = 110, args_override_self = true)]
#[command(override_usage = "inkstone [FLAGS] PROMPT\n       inkstone COMMAND [FLAGS]")]
#[command(after_help = AFTER_HELP, subcommand_help_heading = "Commands")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) draw: Draw,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// clap takes `{n}` in a help text for a line break, so the declaration says `{#}`.
pub(crate) fn with_fields(help: &str) -> String {
    help.replace("{#}", "{n}")
}

const AFTER_HELP: &str = "\
Without arguments, on a terminal: an interactive prompt.
A flag wins over INKSTONE_<FLAG> in the environment, then ./inkstone.toml, the user's config.toml, the model's default.
Exit codes: 0 done, 1 failed, 2 wrong use, 3 model files, 4 memory or disk, 130 interrupted.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Draw a picture from text, or from a picture and text with -i
    #[command(visible_alias = "gen", args_override_self = true)]
    Generate(Box<Draw>),
    /// Print the request inside a picture; --replay draws it again
    #[command(args_override_self = true)]
    Info(Box<Info>),
    /// Save a model with its weights in a smaller format, or with LoRAs in them
    #[command(args_override_self = true)]
    Convert(Box<Convert>),
    /// Look into LoRA files
    #[command(subcommand, arg_required_else_help = false)]
    Lora(LoraCommand),
    /// Measure this machine on Qwen-Image's sizes with random weights; needs no model
    #[command(args_override_self = true)]
    Bench(Box<Bench>),
    /// Print what this machine can run: memory and time of each precision, offload and size
    #[command(args_override_self = true)]
    Plan(Box<Plan>),
    /// Show the settings and where they come from
    #[command(subcommand, arg_required_else_help = false)]
    Config(Config),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LoraCommand {
    /// Print what a LoRA file is: model, dialect, ranks, layers, trigger words
    Inspect {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the settings in force
    Show {
        /// Also say where each comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print where config files are looked for
    Path,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args, PartialEq)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Common {
    /// Events on standard output, one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Errors only
    #[arg(short = 'Q', long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Seconds and peak memory of each stage
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Colour in messages
    #[arg(long, global = true, value_name = "WHEN")]
    pub(crate) color: Option<Color>,
    /// Read this file instead of ./inkstone.toml and the user's config.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Read no config file
    #[arg(long, global = true, conflicts_with = "config")]
    pub(crate) no_config: bool,
    /// Accepted: this version never opens a connection
    #[arg(long, global = true)]
    pub(crate) offline: bool,
}

/// What to draw and how.
#[derive(Clone, Debug, Default, Args, PartialEq)]
pub(crate) struct Draw {
    /// What the picture shows
    #[arg(value_name = "PROMPT", conflicts_with_all = ["prompt", "prompt_file", "prompts_file"])]
    pub(crate) words: Option<String>,
    #[command(flatten, next_help_heading = "What to draw")]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) how: How,
    /// Take what is not said here from a picture or a .json beside one
    #[arg(short_alias = 'C', long, value_name = "FILE", help_heading = "What to draw")]
    pub(crate) config_from_metadata: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Args, PartialEq)]
#[command(next_help_heading = "What to draw")]
pub(crate) struct What {
    /// What the picture shows, for prompts that look like a command; several draw several pictures
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["prompt_file", "prompts_file"])]
    pub(crate) prompt: Vec<String>,
    /// Read the prompt from a file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompts_file")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Read several prompts from a file, one a line; - is standard input
    #[arg(long, alias = "batch-prompts-file", value_name = "FILE")]
    pub(crate) prompts_file: Option<PathBuf>,
    /// What it should not show; guidance needs one [default: one space]
    #[arg(long, alias = "negative_prompt", value_name = "TEXT")]
    pub(crate) negative_prompt: Option<String>,
    /// Width in pixels, a multiple of 16
    #[arg(short = 'W', long, value_name = "PX", value_parser = values::side, allow_negative_numbers = true)]
    pub(crate) width: Option<usize>,
    /// Height in pixels, a multiple of 16
    #[arg(short = 'H', long, value_name = "PX", value_parser = values::side, allow_negative_numbers = true)]
    pub(crate) height: Option<usize>,
    /// Both: 512x768
    #[arg(long, value_name = "WxH", conflicts_with_all = ["width", "height", "aspect"], allow_hyphen_values = true)]
    pub(crate) size: Option<Size>,
    /// Proportions, such as 16:9, at the model's native area
    #[arg(long, value_name = "W:H", conflicts_with_all = ["width", "height"], allow_hyphen_values = true)]
    pub(crate) aspect: Option<Aspect>,
    #[arg(long, aliases = ["num-inference-steps", "num_inference_steps"], value_name = "N")]
    #[arg(value_parser = values::steps, allow_negative_numbers = true, help = format!("Denoising steps, 1 to {MAX_STEPS}"))]
    pub(crate) steps: Option<usize>,
    /// Seed of the noise, -1 for a random one; several draw several pictures of each prompt
    #[arg(short_alias = 'S', long, value_name = "N", allow_negative_numbers = true, value_delimiter = ',')]
    pub(crate) seed: Vec<Seed>,
    #[arg(short_alias = 'b', long, aliases = ["batch-count", "num-images-per-prompt", "num_images_per_prompt"])]
    #[arg(value_name = "N", value_parser = values::count, allow_negative_numbers = true)]
    #[arg(help = format!("Pictures to draw of each prompt, 1 to {MAX_COUNT}, from consecutive seeds"))]
    pub(crate) count: Option<usize>,
    /// Strength of the prompt, 0 to 100; 1 and less is no guidance
    #[arg(long, visible_alias = "cfg-scale", aliases = ["true_cfg_scale", "cfg_scale"], value_name = "SCALE")]
    #[arg(value_parser = values::scale, allow_negative_numbers = true)]
    pub(crate) true_cfg_scale: Option<f32>,
    /// The same, under the name that distilled models have for it
    #[arg(short_alias = 'g', long, aliases = ["guidance-scale", "guidance_scale"], value_name = "SCALE")]
    #[arg(value_parser = values::scale, allow_negative_numbers = true, conflicts_with = "true_cfg_scale")]
    pub(crate) guidance: Option<f32>,
}

#[derive(Clone, Debug, Default, Args, PartialEq)]
#[command(next_help_heading = "How to draw")]
pub(crate) struct How {
    /// A model's folder, or a file with its weights [default: the small model inside this program]
    #[arg(short, long, short_alias = 'd', alias = "dir", value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) parts: Parts,
    /// A LoRA and its strength, -10 to 10, 1 unless said; several add up
    #[arg(long, value_name = "PATH[=SCALE]", value_parser = OsStringValueParser::new().try_map(LoraArg::try_from))]
    pub(crate) lora: Vec<LoraArg>,
    /// A picture to start from; STRENGTH 0 keeps it, 1 ignores it [default: 0.6]
    #[arg(short, long, aliases = ["image-path", "init-img", "input"], value_name = "PATH[=STRENGTH]")]
    #[arg(value_parser = OsStringValueParser::new().try_map(InitArg::try_from))]
    pub(crate) image: Vec<InitArg>,
    /// File to write, may hold {seed} {#} {model} {date} [default: inkstone-{seed}.png]
    #[arg(short, long, value_name = "TEMPLATE", help_heading = "Where to")]
    pub(crate) output: Option<OsString>,
    /// Replace files that exist; without it the new one gets a number
    #[arg(long, help_heading = "Where to")]
    pub(crate) overwrite: bool,
    /// File format
    #[arg(long, value_name = "FORMAT", help_heading = "Where to")]
    pub(crate) format: Option<Format>,
    /// Where the request is kept: in the picture, in a .json beside it, nowhere
    #[arg(long, value_name = "WHERE", help_heading = "Where to")]
    pub(crate) metadata: Option<MetadataPlace>,
    /// What draws
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<Device>,
    /// Threads [default: one a core]
    #[arg(short_alias = 't', long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) threads: Option<Threads>,
    /// Arithmetic: f32 is closest to the reference, bf16 is faster where the processor has it
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<Dtype>,
    /// Decode large pictures in strips, to the same byte: auto as memory asks, off, or the lines of a strip
    #[arg(long, value_name = "auto|off|PX", allow_hyphen_values = true)]
    pub(crate) vae_tiling: Option<Tiling>,
    /// Bring the weights into a smaller format while they are loaded: int8 is about twice as fast as bf16 and takes half
    /// the memory, q8 loses least, q4 is smallest
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) quantize: Option<Quantize>,
    /// Memory that the program may take at most, such as 12G [default: what is free]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) max_memory: Option<Bytes>,
    /// What leaves memory while a picture is drawn: auto is as little as fits; the pictures are the same
    #[arg(long, value_name = "WHAT")]
    pub(crate) offload: Option<Offload>,
    /// Print what would be drawn, with the memory that it takes, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Weights in place of the model's own.
#[derive(Clone, Debug, Default, Args, PartialEq)]
#[command(next_help_heading = "How to draw")]
pub(crate) struct Parts {
    /// The transformer's weights in place of the model's: a GGUF or safetensors file, or a folder of shards
    #[arg(long, alias = "diffusion-model", value_name = "FILE")]
    pub(crate) transformer: Option<PathBuf>,
    /// The text encoder's weights in place of the model's
    #[arg(long, aliases = ["llm", "qwen2vl"], value_name = "FILE")]
    pub(crate) text_encoder: Option<PathBuf>,
    /// The VAE's weights in place of the model's
    #[arg(long, value_name = "FILE")]
    pub(crate) vae: Option<PathBuf>,
    /// The tokenizer in place of the model's: a tokenizer.json, or its folder
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
}

impl Parts {
    /// What the library calls them.
    pub(crate) fn weights(&self) -> inkstone::weights::Parts {
        let Self { transformer, text_encoder, vae, tokenizer } = self.clone();
        inkstone::weights::Parts { text_encoder, transformer, vae, tokenizer }
    }
}

impl How {
    /// The picture to start from. Models that take several are not here yet.
    pub(crate) fn start(&self) -> Result<Option<&InitArg>> {
        match self.image.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => {
                let why = format!("{} are given with --image; this version starts from one", several.len());
                Err(Failure::usage("there are several pictures to start from", why, "leave one --image"))
            }
        }
    }
}

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
    /// Print only the flags of the best setting for the first size, or the model's own
    #[arg(long)]
    pub(crate) optimal: bool,
}

/// `inkstone convert`.
#[derive(Clone, Debug, Args, PartialEq)]
pub(crate) struct Convert {
    /// The model's folder
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
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
    #[arg(long, value_name = "PX", default_value = "256", value_parser = values::side, allow_negative_numbers = true)]
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clock {
    #[default]
    Wall,
    Cpu,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Device {
    #[default]
    Auto,
    Cpu,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    #[default]
    Auto,
    Bf16,
    F32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Quantize {
    /// 8 bits for weights and activations; layers that would lose too much stay as they are
    Int8,
    /// 8 bits for weights: half of bf16's memory, nearly the same pictures
    #[value(alias = "8")]
    Q8,
    /// 4 bits for most weights: a third of bf16's memory
    #[value(alias = "4")]
    Q4,
}

impl Quantize {
    /// The library's name for it.
    pub(crate) const fn quantization(self) -> Quantization {
        match self {
            Self::Int8 => Quantization::Int8,
            Self::Q8 => Quantization::Q8,
            Self::Q4 => Quantization::Q4,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Offload {
    #[default]
    Auto,
    /// Nothing
    None,
    /// The text encoder after use
    Encoder,
    /// Also each block, the next read meanwhile
    Stream,
}

impl From<Offload> for inkstone::Offload {
    fn from(offload: Offload) -> Self {
        match offload {
            Offload::Auto => Self::Auto,
            Offload::None => Self::None,
            Offload::Encoder => Self::Encoder,
            Offload::Stream => Self::Stream,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Png,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MetadataPlace {
    #[default]
    Png,
    Sidecar,
    None,
}

#[cfg(test)]
mod tests;
