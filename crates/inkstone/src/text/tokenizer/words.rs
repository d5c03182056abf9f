//! The vocabulary of a tokenizer, without a memory of the words that it met.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{Model, Token};

/// Byte pair encoding as the crate has it. Its memory of words belongs to the thread and outlives the tokenizer, so a
/// program that opens models again and again would grow without end; prompts are short enough to do without.
#[derive(Clone, Debug)]
pub(super) struct Words(BPE);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut model = BPE::deserialize(deserializer)?;
        model.resize_cache(0);
        Ok(Self(model))
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
