//! What `lora inspect` tells of a file.

use std::collections::BTreeMap;
use std::path::Path;

use inkstone_tensor::{Device, cpu};
use serde::Serialize;

use super::family;
use super::file::Lora;
use super::layers::Delta;
use crate::Result;
use crate::memory::Limits;

/// Metadata that names words to write into the prompt, or counts those of the captions.
const TRIGGERS: [&str; 4] = ["modelspec.trigger_phrase", "trigger_words", "trigger_word", "ss_tag_frequency"];
/// Characters of a piece of metadata that are shown.
const SHOWN_CHARS: usize = 200;

/// What is in a LoRA file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The file's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// How its tensors are named.
    pub dialect: String,
    /// The model that it was made for, as far as its names tell.
    pub family: Option<&'static str>,
    /// Layers.
    pub layers: usize,
    /// How many layers are of each kind of adapter: `LoRA`, `LoKr`, `LoHa`; `difference` of a whole weight, a norm or a bias.
    pub adapters: BTreeMap<&'static str, usize>,
    /// How many layers of LoKrs have each pair of sizes, such as `8x8 of 384x384`.
    pub blocks: BTreeMap<String, usize>,
    /// How many layers have each rank; those of a LoKr with whole matrices have none.
    pub ranks: BTreeMap<usize, usize>,
    /// How many layers have each alpha that counts; empty if there is none, which is as if it were the rank.
    pub alphas: BTreeMap<String, usize>,
    /// How many layers have each type.
    pub dtypes: BTreeMap<String, usize>,
    /// How many layers of each kind there are: their names without block.
    pub kinds: BTreeMap<String, usize>,
    /// Steps that it was distilled for, if it is a Lightning LoRA.
    pub lightning_steps: Option<usize>,
    /// What its writer noted of trigger words, shortened.
    pub triggers: BTreeMap<String, String>,
}

impl Lora {
    /// Reads a file that fits into memory and tells what is in it.
    ///
    /// # Errors
    /// As [`Lora::open`]; [`crate::Error::InsufficientMemory`].
    pub fn inspect(path: &Path) -> Result<Summary> {
        let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None })?;
        Self::open_within(path, &device, &Limits::now(None))?.summary()
    }

    /// What is in the file.
    ///
    /// # Errors
    /// As [`Self::sha256`].
    pub fn summary(&self) -> Result<Summary> {
        let layers = self.layers();
        let mut summary = Summary {
            name: self.name(),
            bytes: self.file_bytes(),
            sha256: self.sha256()?,
            dialect: layers.dialect.to_string(),
            family: family::of(layers.by_name.values().map(|layer| layer.name.as_str())),
            layers: layers.by_name.len(),
            adapters: BTreeMap::new(),
            blocks: BTreeMap::new(),
            ranks: BTreeMap::new(),
            alphas: BTreeMap::new(),
            dtypes: BTreeMap::new(),
            kinds: BTreeMap::new(),
            lightning_steps: self.lightning_steps(),
            triggers: BTreeMap::new(),
        };
        for layer in layers.by_name.values() {
            let adapter = match &layer.delta {
                Delta::LowRank(_) => "LoRA",
                Delta::Hadamard(..) => "LoHa",
                Delta::Whole(_) => "difference",
                Delta::Kronecker(left, right) => {
                    let ([high, wide], [outs, ins]) = (left.size(), right.size());
                    let blocks = format!("{high}x{wide} of {outs}x{ins}");
                    *summary.blocks.entry(blocks).or_default() += 1;
                    "LoKr"
                }
            };
            *summary.adapters.entry(adapter).or_default() += 1;
            if let Some(rank) = layer.rank() {
                *summary.ranks.entry(rank).or_default() += 1;
            }
            if let Some(alpha) = layer.alpha.filter(|_| layers.has_alphas) {
                *summary.alphas.entry(alpha.to_string()).or_default() += 1;
            }
            *summary.dtypes.entry(layer.stored.to_string()).or_default() += 1;
            *summary.kinds.entry(kind(&layer.name)).or_default() += 1;
        }
        for key in TRIGGERS {
            if let Some(value) = self.metadata.get(key) {
                summary.triggers.insert(key.to_owned(), value.chars().take(SHOWN_CHARS).collect());
            }
        }
        Ok(summary)
    }
}

/// A layer's name without its block: `transformer_blocks.7.attn.to_q` is `attn.to_q`.
fn kind(layer: &str) -> String {
    let number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty();
    let split = if layer.contains('.') { '.' } else { '_' };
    let parts: Vec<&str> = layer.split(split).collect();
    match parts.iter().position(number) {
        Some(at) if at > 0 && at + 1 < parts.len() && layer.contains("blocks") => {
            parts[at + 1..].join(&split.to_string())
        }
        _ => layer.to_owned(),
    }
}
