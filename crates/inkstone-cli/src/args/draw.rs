//! Flags that say what to draw and how.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use inkstone::request::{Aspect, MAX_COUNT, MAX_STEPS, Size};

use super::{
    Bytes, Device, Dtype, Format, InitArg, LoraArg, MetadataPlace, Offload, Quantize, Seed, Threads, Tiling,
    values,
};
use crate::failure::{Failure, Result};

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
