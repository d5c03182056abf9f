//! The vocabulary of a tokenizer, without a memory of the words that it met.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokenizers::models::bpe::{BPE, BpeBuilder, BpeTrainer, Vocab};
use tokenizers::{Model, Token};

/// Byte pair encoding as the crate has it. Its memory of words belongs to the thread and outlives the tokenizer, so a
/// program that opens models again and again would grow without end; prompts are short enough to do without. What the
/// crate reads from a file always has that memory, so the file is read here and the model built.
#[derive(Clone, Debug)]
pub(super) struct Words(BPE);

/// The `model` of a tokenizer.json, less what [`crate::weights::ModelFiles::tokenizer`] lets no file set.
#[derive(Deserialize)]
struct Fields {
    vocab: Vocab,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

/// A merge as new files have it, and as old ones do: `"a b"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    fn pair(self) -> Option<(String, String)> {
        match self {
            Self::Pair(a, b) => Some((a, b)),
            Self::Line(line) => line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let merges: Option<_> = fields.merges.into_iter().map(Merge::pair).collect();
        let merges: Vec<(String, String)> =
            merges.ok_or_else(|| D::Error::custom("a merge is not a pair of tokens"))?;
        // The crate joins them in room for the longest token, and panics where they have no place in it.
        let mut joined = String::new();
        let gives_none = |(a, b): &(String, String)| {
            joined.clear();
            joined.extend([a.as_str(), b.as_str()]);
            !fields.vocab.contains_key(&joined)
        };
        if let Some(merge) = merges.iter().position(gives_none) {
            let line = merge + 1;
            return Err(D::Error::custom(format!("what line {line} of its merges gives is no token")));
        }
        let mut builder = BpeBuilder::new()
            .cache_capacity(0)
            .vocab_and_merges(fields.vocab, merges)
            .fuse_unk(fields.fuse_unk.unwrap_or(false))
            .byte_fallback(fields.byte_fallback.unwrap_or(false))
            .ignore_merges(fields.ignore_merges.unwrap_or(false));
        if let Some(token) = fields.unk_token {
            builder = builder.unk_token(token);
        }
        builder.build().map(Self).map_err(D::Error::custom)
    }
}

impl Model for Words {
    type Trainer = BpeTrainer;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        self.0.tokenize(sequence)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.0.get_vocab()
    }

    fn get_vocab_size(&self) -> usize {
        self.0.get_vocab_size()
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        self.0.save(folder, prefix)
    }

    fn get_trainer(&self) -> BpeTrainer {
        self.0.get_trainer()
    }
}
