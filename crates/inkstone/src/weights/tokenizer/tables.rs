//! The tokenizer in a GGUF file's head, as llama.cpp writes it.
//!
//! # Source
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, `tokenizer.ggml.*`; the types of tokens are llama.cpp's
//! `llama_token_type`.

use std::path::Path;

use serde_json::{Value as Json, json as object};

use super::{ADDED_LIMIT, TOKENS_LIMIT, text};
use crate::error::TokenizerProblem;
use crate::weights::gguf::{Header, Value};
use crate::weights::json;
use crate::{Error, Result};

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";
/// The kind of the model, and that of Qwen: byte-level BPE.
const MODEL: (&str, &str) = ("tokenizer.ggml.model", "gpt2");
/// How text is split into words, and how Qwen2 does it.
const SPLIT: (&str, &str) = ("tokenizer.ggml.pre", "qwen2");

/// Tokens that llama.cpp calls control tokens by their looks; in Qwen's own files they are not special
/// (`added_tokens_decoder`, tokenizer_config.json), so a text may hold them.
const NOT_SPECIAL: [&str; 6] =
    ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"];

/// Types of tokens.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
}

/// Bytes of the tables; 0 where there are none.
pub(in crate::weights) fn bytes(header: &Header<'_>) -> usize {
    let list = |name: &str| header.values.get(name).map_or(0, Value::list_bytes);
    list(TOKENS) + list(MERGES)
}

/// The tables of a file as the text of a tokenizer.json; `None` where there are none.
///
/// # Errors
/// [`Error::Tokenizer`] for tables of another kind, or that do not fit each other.
pub(in crate::weights) fn assemble(path: &Path, header: &Header<'_>) -> Result<Option<Vec<u8>>> {
    let value = |name: &str| header.values.get(name);
    let (Some(tokens), Some(merges)) = (value(TOKENS), value(MERGES)) else { return Ok(None) };
    let built = check_kind(header).and_then(|()| build(tokens, merges, value(TYPES)));
    built.map(Some).map_err(|problem| Error::Tokenizer { path: path.to_owned(), problem })
}

fn check_kind(header: &Header<'_>) -> Result<(), TokenizerProblem> {
    for (part, (name, want)) in [("model", MODEL), ("pre-tokenizer", SPLIT)] {
        let got = header.values.get(name).map(|value| value.text().unwrap_or("no text"));
        if let Some(got) = got.filter(|got| *got != want) {
            return Err(TokenizerProblem::NotQwen { part, got: json::shown(got), want });
        }
    }
    Ok(())
}

fn build(
    tokens: &Value<'_>,
    merges: &Value<'_>,
    types: Option<&Value<'_>>,
) -> Result<Vec<u8>, TokenizerProblem> {
    let mut types =
        types.map(|types| types.i32s().ok_or_else(|| refused("its types are no list of i32"))).transpose()?;
    let mut vocab = String::from("{");
    let mut added = Vec::new();
    for (id, token) in texts(tokens, "tokens")?.enumerate() {
        let token = std::str::from_utf8(token).map_err(|_| refused("a token is not UTF-8"))?;
        let kind = match &mut types {
            None => kind::NORMAL,
            Some(types) => types.next().ok_or_else(|| refused("it has fewer types than tokens"))?,
        };
        // What fills the table up to the embeddings' rows.
        if kind == kind::UNUSED || kind == kind::USER_DEFINED && token == format!("[PAD{id}]") {
            continue;
        }
        if kind == kind::CONTROL || kind == kind::USER_DEFINED {
            added.push(added_token(id, token, kind == kind::CONTROL && !NOT_SPECIAL.contains(&token)));
        }
        // An added token that the vocabulary lacks would get the next free number, whatever it says.
        push(&mut vocab, &[&Json::from(token).to_string(), ":", &id.to_string()]);
        if added.len() > ADDED_LIMIT {
            return Err(TokenizerProblem::TooMany { what: "added tokens", limit: ADDED_LIMIT });
        }
    }
    vocab.push('}');
    let mut pairs = String::from("[");
    for (i, pair) in texts(merges, "merges")?.enumerate() {
        let pair = std::str::from_utf8(pair).map_err(|_| TokenizerProblem::BadMerge { line: i + 1 })?;
        push(&mut pairs, &[&Json::from(pair).to_string()]);
    }
    pairs.push(']');
    Ok(text(&added, vocab.as_bytes(), &pairs))
}

/// The texts of a list.
fn texts<'a>(
    list: &Value<'a>,
    what: &'static str,
) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, TokenizerProblem> {
    match list.texts() {
        Some((count, _)) if count > TOKENS_LIMIT as u64 => {
            Err(TokenizerProblem::TooMany { what, limit: TOKENS_LIMIT })
        }
        Some((_, texts)) => Ok(texts),
        None => Err(refused("its tables are no lists of texts")),
    }
}

fn refused(reason: &str) -> TokenizerProblem {
    TokenizerProblem::Refused { reason: reason.into() }
}

/// Adds an entry to a list or an object.
fn push(list: &mut String, entry: &[&str]) {
    if list.len() > 1 {
        list.push(',');
    }
    list.extend(entry.iter().copied());
}

/// As tokenizer.json lists it: found in a text before it is split into words.
fn added_token(id: usize, token: &str, special: bool) -> Json {
    object!({
        "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    })
}
