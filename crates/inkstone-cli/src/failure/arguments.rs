//! Wrong arguments, as clap finds them.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use inkstone::Error;

use super::{Failure, nearest};
use crate::args::peers;

impl Failure {
    /// What is wrong with the arguments of a command; `None` is drawing without a command's name.
    pub(crate) fn arguments(error: &clap::Error, command: Option<&str>) -> Self {
        let arg = context(error, ContextKind::InvalidArg);
        let flag = arg.split(' ').next().unwrap_or_default();
        // An argument without a flag is in angle brackets.
        let name = flag.trim_start_matches('-').trim_matches(['<', '>']).to_lowercase();
        let value = context(error, ContextKind::InvalidValue);
        let help = match command {
            Some(command) => format!("inkstone {command} --help lists the flags"),
            None => "inkstone --help lists the flags".to_owned(),
        };
        let draws = command.is_none_or(|command| ["generate", "gen"].contains(&command));
        match error.kind() {
            ErrorKind::UnknownArgument if flag.starts_with('-') => unknown_flag(error, flag, &help),
            ErrorKind::UnknownArgument if draws => several_words(&arg),
            ErrorKind::UnknownArgument => one_too_many(&arg, error, help),
            ErrorKind::MissingRequiredArgument => missing(&arg, error, help),
            ErrorKind::MissingSubcommand | ErrorKind::InvalidSubcommand => subcommand(error, help),
            ErrorKind::ValueValidation => match error.source().and_then(|s| s.downcast_ref::<Error>()) {
                Some(Error::InvalidParam { got, allowed, .. }) => {
                    let cure = nearest::flag(&name, got).unwrap_or(help);
                    Self::usage(format!("{name} is {got}"), format!("allowed is {allowed}"), cure)
                }
                _ => {
                    let allowed = error.source().map(ToString::to_string).unwrap_or_default();
                    let cure = nearest::number_flag(&name, &value).unwrap_or(help);
                    Self::usage(format!("{name} is {value:?}"), format!("allowed is {allowed}"), cure)
                }
            },
            ErrorKind::InvalidValue if value.is_empty() => {
                Self::usage(format!("{flag} lacks its value"), allowed_values(error), help)
            }
            ErrorKind::InvalidValue => {
                Self::usage(format!("{name} is {value:?}"), allowed_values(error), help)
            }
            ErrorKind::TooManyValues => {
                Self::usage(format!("{flag} takes no value"), format!("{value:?} is behind it"), help)
            }
            ErrorKind::ArgumentConflict => {
                let other = context(error, ContextKind::PriorArg);
                let why = if other.is_empty() {
                    "they exclude each other".into()
                } else {
                    format!("{other} is there too")
                };
                Self::usage(format!("{arg} cannot be used here"), why, "leave one of them out")
            }
            ErrorKind::InvalidUtf8 => {
                Self::usage("an argument is not UTF-8", "text is UTF-8; only paths may be other bytes", help)
            }
            _ => Self::usage(first_line(error), "the arguments do not fit together", help),
        }
    }
}

fn several_words(word: &str) -> Failure {
    let why = format!("{word:?} follows it: the prompt is one argument");
    Failure::usage("the prompt has several words without quotes", why, "inkstone \"a red apple\"")
}

fn one_too_many(word: &str, error: &clap::Error, help: String) -> Failure {
    Failure::usage(format!("{word:?} is one word too many"), "the command takes no more", usage(error, help))
}

fn missing(args: &str, error: &clap::Error, help: String) -> Failure {
    let (is, it) = if args.contains(", ") { ("are", "them") } else { ("is", "it") };
    Failure::usage(format!("{args} {is} missing"), format!("the command needs {it}"), usage(error, help))
}

/// A command that needs another one behind it, or has another one there.
fn subcommand(error: &clap::Error, help: String) -> Failure {
    let given = context(error, ContextKind::InvalidSubcommand);
    // Help on help is no help.
    let known = context(error, ContextKind::ValidSubcommand);
    let known = known.split(", ").filter(|name| *name != "help").collect::<Vec<_>>().join(", ");
    if error.kind() == ErrorKind::MissingSubcommand {
        let first = known.split(", ").next().unwrap_or_default();
        let cure = format!("{given} {first} --help");
        return Failure::usage(
            format!("{given} needs a word behind it"),
            format!("allowed is {known}"),
            cure,
        );
    }
    let near = context(error, ContextKind::SuggestedSubcommand);
    let why = if near.is_empty() {
        "no command of this name is known".into()
    } else {
        format!("a similar one is {near}")
    };
    Failure::usage(format!("there is no command {given}"), why, help)
}

fn unknown_flag(error: &clap::Error, flag: &str, help: &str) -> Failure {
    let what = format!("there is no {flag}");
    if let Some(cure) = peers::cure(flag) {
        return Failure::usage(what, "other programs have it, or later versions", cure);
    }
    let near = context(error, ContextKind::SuggestedArg);
    let why = if near.is_empty() {
        "no flag of this name is known".into()
    } else {
        format!("a similar flag is {near}")
    };
    Failure::usage(what, why, format!("{help}; text that begins with - goes behind --"))
}

fn allowed_values(error: &clap::Error) -> String {
    let list = context(error, ContextKind::ValidValue);
    if list.is_empty() { "a value belongs to it".into() } else { format!("allowed is {list}") }
}

/// How the command is written, as a line to follow.
fn usage(error: &clap::Error, help: String) -> String {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return help };
    let usage = usage.to_string();
    let line = usage.trim_start_matches("Usage:").trim().lines().next().unwrap_or_default();
    if line.is_empty() { help } else { line.replace("[OPTIONS]", "[FLAGS]") }
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(list)) => list.join(", "),
        _ => String::new(),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
