//! Byte pair encoding: a word to tokens.
//!
//! The crate's own reads 300,000 texts into strings of their own and keeps three tables of them, which takes four times as long as
//! reading the file. It also keeps a memory of words that belongs to the thread and outlives the tokenizer, and panics
//! over merges that make no token. The tokens are the same.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{Model, Token};

use super::merges::{Merges, Pairs};
use crate::text::vocabulary::{TOKENS_LIMIT, Vocabulary};

#[cfg(test)]
mod tests;

/// The `model` of a tokenizer.json.
#[derive(Clone, Debug)]
pub(super) struct Words {
    vocabulary: Vocabulary<u32>,
    merges: Merges,
    /// Stands for what no token is for; without it that is left out.
    unknown: Option<String>,
    /// Whether unknown characters that follow each other are one token.
    fuse_unknown: bool,
    /// Whether an unknown character becomes tokens for its bytes, if there are such.
    byte_fallback: bool,
    /// Whether a word that is a token stays whole, whatever its merges say.
    ignore_merges: bool,
}

/// Its fields, less what [`crate::weights::ModelFiles::tokenizer`] lets no file set.
#[derive(Deserialize)]
struct Fields {
    vocab: Vocabulary<u32>,
    merges: Pairs,
    unk_token: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        if fields.vocab.len() > TOKENS_LIMIT {
            return Err(D::Error::custom(format_args!("more than {TOKENS_LIMIT} tokens")));
        }
        let merges = Merges::new(&fields.merges, &fields.vocab);
        let merges = merges.map_err(|bad| {
            D::Error::custom(format_args!("line {} of its merges {}", bad.line, bad.problem))
        })?;
        Ok(Self {
            vocabulary: fields.vocab,
            merges,
            unknown: fields.unk_token,
            fuse_unknown: fields.fuse_unk.unwrap_or(false),
            byte_fallback: fields.byte_fallback.unwrap_or(false),
            ignore_merges: fields.ignore_merges.unwrap_or(false),
        })
    }
}

/// A piece of a word on the way to tokens.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// The token's place.
    token: u32,
    /// Of the word.
    len_bytes: usize,
    /// The pieces before and behind.
    before: Option<usize>,
    behind: Option<usize>,
    /// Whether it became a part of the one before.
    is_joined: bool,
}

/// The pieces of a word, in order.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn push(&mut self, token: u32, len_bytes: usize) {
        let at = self.0.len();
        let before = at.checked_sub(1);
        if let Some(before) = before {
            self.0[before].behind = Some(at);
        }
        self.0.push(Piece { token, len_bytes, before, behind: None, is_joined: false });
    }

    /// The two tokens at a place and behind it.
    fn pair(&self, at: usize) -> Option<[u32; 2]> {
        let piece = self.0[at];
        Some([piece.token, self.0[piece.behind.filter(|_| !piece.is_joined)?].token])
    }

    /// Joins pairs, the one of the lowest rank first and of these the leftmost, until none is left.
    fn join(&mut self, merges: &Merges) {
        let due = |pieces: &Self, at| {
            let merge = merges.get(pieces.pair(at)?)?;
            Some(Reverse((merge.rank, at)))
        };
        let mut queue: BinaryHeap<_> = (0..self.0.len()).filter_map(|at| due(self, at)).collect();
        while let Some(Reverse((rank, at))) = queue.pop() {
            let merge = self.pair(at).and_then(|pair| merges.get(pair));
            // One of both may have become a part of something else.
            let Some(merge) = merge.filter(|merge| merge.rank == rank) else { continue };
            let Some(behind) = self.0[at].behind else { continue };
            let joined = self.0[behind];
            self.0[behind].is_joined = true;
            let piece = &mut self.0[at];
            (piece.token, piece.behind) = (merge.token, joined.behind);
            piece.len_bytes += joined.len_bytes;
            let before = piece.before;
            if let Some(behind) = joined.behind {
                self.0[behind].before = Some(at);
            }
            queue.extend([before, Some(at)].into_iter().flatten().filter_map(|at| due(self, at)));
        }
        self.0.retain(|piece| !piece.is_joined);
    }
}

impl Words {
    fn place(&self, token: &str) -> Option<u32> {
        self.vocabulary.place(token).and_then(|place| u32::try_from(place).ok())
    }

    /// A piece for each character of a word.
    fn characters(&self, word: &str) -> tokenizers::Result<Pieces> {
        let mut pieces = Pieces(Vec::with_capacity(word.len()));
        // Unknown characters that wait for the next known one, as the reference has it.
        let mut waiting: Option<(u32, usize)> = None;
        for (start, character) in word.char_indices() {
            let text = &word[start..start + character.len_utf8()];
            if let Some(token) = self.place(text) {
                if let Some((unknown, len_bytes)) = waiting.take() {
                    pieces.push(unknown, len_bytes);
                }
                pieces.push(token, text.len());
                continue;
            }
            if let Some(bytes) = self.byte_fallback.then(|| self.bytes(text)).flatten() {
                bytes.into_iter().for_each(|token| pieces.push(token, 1));
                continue;
            }
            let Some(name) = &self.unknown else { continue };
            let unknown = self.place(name).ok_or_else(|| format!("its unk_token {name:?} is no token"))?;
            waiting = match waiting {
                Some((unknown, len_bytes)) if self.fuse_unknown => Some((unknown, len_bytes + text.len())),
                Some((unknown, len_bytes)) => {
                    pieces.push(unknown, len_bytes);
                    Some((unknown, text.len()))
                }
                None => Some((unknown, text.len())),
            };
        }
        if let Some((unknown, len_bytes)) = waiting {
            pieces.push(unknown, len_bytes);
        }
        Ok(pieces)
    }

    /// The tokens for the bytes of a character, if there is one for each.
    fn bytes(&self, text: &str) -> Option<Vec<u32>> {
        text.bytes().map(|byte| self.place(&format!("<{byte:#04X}>"))).collect()
    }

    fn token(&self, place: u32, start: usize, len_bytes: usize) -> Token {
        let place = place as usize;
        let text = self.vocabulary.token(place).to_owned();
        Token::new(self.vocabulary.id(place), text, (start, start + len_bytes))
    }
}

impl Model for Words {
    type Trainer = BpeTrainer;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        if let Some(whole) = (self.ignore_merges && !word.is_empty()).then(|| self.place(word)).flatten() {
            return Ok(vec![self.token(whole, 0, word.len())]);
        }
        let mut pieces = self.characters(word)?;
        pieces.join(&self.merges);
        let mut end = 0;
        let token = |piece: Piece| {
            let start = end;
            end += piece.len_bytes;
            self.token(piece.token, start, piece.len_bytes)
        };
        Ok(pieces.0.into_iter().map(token).collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.place(token).map(|place| self.vocabulary.id(place))
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary.iter().find(|(_, other)| *other == id).map(|(token, _)| token.to_owned())
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.vocabulary.iter().map(|(token, id)| (token.to_owned(), id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn save(&self, _folder: &Path, _prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("a tokenizer that was read to encode is not written".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}
