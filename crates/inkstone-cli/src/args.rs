//! The command line: every flag, said once. Help, completions and the manual page are made from it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod choices;
mod commands;
mod draw;
pub(crate) mod peers;
mod values;

pub(crate) use choices::{Clock, Color, Device, Dtype, Format, MetadataPlace, Offload, Quantize};
pub(crate) use commands::{Bench, Convert, Info, Plan};
pub(crate) use draw::{Draw, How, Parts, What};
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

#[cfg(test)]
mod tests;
