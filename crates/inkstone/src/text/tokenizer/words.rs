//! The vocabulary of a tokenizer, without a memory of the words that it met.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Error as _, IgnoredAny, SeqAccess, Visitor};
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

/// A merge as new files have it, `["a", "b"]`, and as old ones do: `"a b"`.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

/// An untagged enum would keep each of 150,000 merges as a value first.
struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of tokens")
    }

    fn visit_str<E: de::Error>(self, line: &str) -> Result<Merge, E> {
        let (a, b) = line.split_once(' ').ok_or_else(|| E::custom("a merge is not a pair of tokens"))?;
        Ok(Merge(a.to_owned(), b.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
        match (seq.next_element()?, seq.next_element()?, seq.next_element::<IgnoredAny>()?) {
            (Some(a), Some(b), None) => Ok(Merge(a, b)),
            _ => Err(A::Error::custom("a merge is not a pair of tokens")),
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let merges: Vec<(String, String)> = fields.merges.into_iter().map(|Merge(a, b)| (a, b)).collect();
        // The crate joins them in room for the longest token, and panics where they have no place in it. Shorter ones that are
        // no token it names itself.
        let longest = fields.vocab.keys().map(String::len).max().unwrap_or(0);
        if let Some(merge) = merges.iter().position(|(a, b)| a.len() + b.len() > longest) {
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
