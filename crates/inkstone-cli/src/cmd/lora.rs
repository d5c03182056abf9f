//! `lora inspect`: what a LoRA file is.

use std::collections::BTreeMap;
use std::fmt::Display;

use inkstone::Error;
use inkstone::weights::lora::{Lora, Summary};

use super::Session;
use crate::args::LoraCommand;
use crate::failure::{Failure, Result, more_memory, printable};

pub(super) fn run(command: &LoraCommand, session: &Session) -> Result<()> {
    let LoraCommand::Inspect { file } = command;
    let summary = Lora::inspect(file).map_err(|error| match error {
        Error::Lora { .. } => Failure::from(error).with_cure("give the safetensors file of a LoRA"),
        Error::InsufficientMemory { shortage, .. } => {
            let what = format!("the LoRA {} does not fit into memory", file.display());
            Failure::from(error).with_what(what).with_cure(more_memory(shortage.limit.of))
        }
        _ => error.into(),
    })?;
    if session.terminal.json() {
        return session.terminal.event(&summary);
    }
    session.terminal.print(&describe(&summary))
}

/// A line for each thing that is known; what strangers wrote is made safe to show.
fn describe(summary: &Summary) -> String {
    let mut lines = vec![
        ("name", summary.name.clone()),
        ("made for", summary.family.unwrap_or("not known").to_owned()),
        ("kind", counted(&summary.adapters)),
        ("dialect", summary.dialect.clone()),
        ("size", format!("{:.1} MB", summary.bytes as f64 / 1e6)),
        ("sha256", summary.sha256.clone()),
        ("layers", format!("{}: {}", summary.layers, counted(&summary.kinds))),
        (
            "rank",
            if summary.ranks.is_empty() { "none: whole matrices".into() } else { counted(&summary.ranks) },
        ),
        ("alpha", alphas(summary)),
        ("type", counted(&summary.dtypes)),
    ];
    if !summary.blocks.is_empty() {
        lines.push(("blocks", counted(&summary.blocks)));
    }
    if let Some(steps) = summary.lightning_steps {
        lines.push(("lightning", format!("{steps} steps without guidance, with a schedule of its own")));
    }
    lines.extend(summary.triggers.iter().map(|(name, value)| (name.as_str(), value.clone())));
    lines.iter().map(|(name, value)| format!("{name}: {}\n", printable(value))).collect()
}

/// What there is of alphas; a LoKr of whole matrices has no use for one.
fn alphas(summary: &Summary) -> String {
    match (summary.alphas.is_empty(), summary.ranks.is_empty()) {
        (false, _) => counted(&summary.alphas),
        (true, false) => "none: the rank".into(),
        (true, true) => "none".into(),
    }
}

/// `16` if all are alike, else `16 (800), 32 (40)`.
fn counted<K: Display>(counts: &BTreeMap<K, usize>) -> String {
    match counts.len() {
        1 => counts.keys().map(ToString::to_string).collect(),
        _ => counts.iter().map(|(key, n)| format!("{key} ({n})")).collect::<Vec<_>>().join(", "),
    }
}
