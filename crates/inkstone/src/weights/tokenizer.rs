//! Checks a tokenizer before it is built, and puts one together from the older files.
//!
//! The engine reads one kind: byte-level BPE under NFC, split by Qwen2's pattern. Anything else would give other
//! tokens, and a pattern from a stranger could backtrack without end.

mod few;
pub(super) mod tables;

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json as object};

use super::json;
use crate::error::{JsonProblem, TokenizerProblem};
use crate::{Error, Result};
use few::Few;

/// Largest tokenizer.json; Qwen2's has 11 MB.
pub(super) const LIMIT_BYTES: u64 = 64_000_000;
/// Most tokens, and most merges; Qwen2 has 151,643 and 151,387.
const TOKENS_LIMIT: usize = 300_000;
/// Most added tokens; Qwen2 has 22.
const ADDED_LIMIT: usize = 10_000;
/// Most pre-tokenizers; Qwen2 has 2.
const PARTS_LIMIT: usize = 8;
/// How Qwen2 splits text into words.
///
/// # Source
/// transformers 5.23, models/qwen2/tokenization_qwen2.py, `PRETOKENIZE_REGEX`.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Checks the text of a tokenizer.json for a text encoder with so many rows of embeddings.
pub(super) fn check(path: &Path, bytes: &[u8], vocab_size: u64) -> Result<()> {
    let file: TokenizerFile<'_> = json::parse_with(path, bytes, std::marker::PhantomData)?;
    let problem = problem_of(&file, vocab_size);
    problem.map_or(Ok(()), |problem| Err(Error::Tokenizer { path: path.to_owned(), problem }))
}

fn problem_of(file: &TokenizerFile<'_>, vocab_size: u64) -> Option<TokenizerProblem> {
    let model = &file.model;
    let not_qwen =
        |part, got: &str, want| Some(TokenizerProblem::NotQwen { part, got: json::shown(got), want });
    if model.kind != "BPE" {
        return not_qwen("model", &model.kind, "BPE");
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return not_qwen("dropout", "set", "none");
    }
    for (part, mark) in [
        ("prefix of parts", &model.continuing_subword_prefix),
        ("suffix of words", &model.end_of_word_suffix),
    ] {
        if let Some(mark) = mark.as_ref().filter(|mark| !mark.is_empty()) {
            return not_qwen(part, mark, "none");
        }
    }
    if let Some(normalizer) = file.normalizer.as_ref().filter(|normalizer| normalizer.kind != "NFC") {
        return not_qwen("normalizer", &normalizer.kind, "NFC");
    }
    if let Some(decoder) = file.decoder.as_ref().filter(|decoder| decoder.kind != "ByteLevel") {
        return not_qwen("decoder", &decoder.kind, "ByteLevel");
    }
    if let Err(got) = file.post_processor.as_ref().map_or(Ok(()), PostProcessor::check) {
        return not_qwen("post-processor", &got, "ByteLevel, or a template that adds nothing");
    }
    if let Err(got) = file.pre_tokenizer.as_ref().map_or(Err("none".into()), PreTokenizer::check) {
        return not_qwen("pre-tokenizer", &got, "Split by the Qwen2 pattern, then ByteLevel");
    }
    if let Some(line) = model.merges.bad_line {
        return Some(TokenizerProblem::BadMerge { line });
    }
    for (what, count, limit) in [
        ("tokens", model.vocab.ids.len(), TOKENS_LIMIT),
        ("merges", model.merges.count, TOKENS_LIMIT),
        ("added tokens", file.added_tokens.0.len(), ADDED_LIMIT),
    ] {
        if count > limit {
            return Some(TokenizerProblem::TooMany { what, limit });
        }
    }
    ids_problem(file, vocab_size)
}

fn ids_problem(file: &TokenizerFile<'_>, vocab_size: u64) -> Option<TokenizerProblem> {
    let vocab = &file.model.vocab.ids;
    let added = file.added_tokens.0.iter().map(|token| (&token.content, token.id));
    // A token of the vocabulary may be added once more under its own number.
    let added = added.filter(|(token, id)| vocab.get(token.as_str()) != Some(id));
    let mut seen = vec![false; usize::try_from(vocab_size).unwrap_or(0)];
    let added = added.map(|(token, id)| (token.as_str(), id));
    for (token, id) in vocab.iter().map(|(token, id)| (token.0.as_ref(), *id)).chain(added) {
        match usize::try_from(id).ok().and_then(|id| seen.get_mut(id)) {
            None => {
                return Some(TokenizerProblem::IdOutOfRange { token: json::shown(token), id, vocab_size });
            }
            Some(true) => return Some(TokenizerProblem::DuplicateId { id }),
            Some(seen) => *seen = true,
        }
    }
    None
}

/// The text of a tokenizer.json from vocab.json, merges.txt and tokenizer_config.json, each with its path.
pub(super) fn assemble(
    vocab: (&Path, &[u8]),
    merges: (&Path, &[u8]),
    config: (&Path, &[u8]),
) -> Result<Vec<u8>> {
    let invalid = |path: &Path, reason: String| Error::Json {
        path: path.to_owned(),
        problem: JsonProblem::Invalid { reason },
    };
    json::parse_with(vocab.0, vocab.1, std::marker::PhantomData::<IgnoredAny>)?;
    let pairs = std::str::from_utf8(merges.1).map_err(|e| invalid(merges.0, e.to_string()))?;
    let pairs = merge_pairs(pairs).map_err(|line| Error::Tokenizer {
        path: merges.0.to_owned(),
        problem: TokenizerProblem::BadMerge { line },
    })?;
    let config_value = json::parse(config.0, config.1)?;
    let added = added_tokens(&config_value)
        .ok_or_else(|| invalid(config.0, "added_tokens_decoder is not as it should be".into()))?;
    // Written as they are: 150,000 of them as values take longer than reading both files.
    let pairs = serde_json::to_string(&pairs).map_err(|e| invalid(merges.0, e.to_string()))?;
    Ok(text(&added, vocab.1, &pairs))
}

/// The text of a tokenizer.json of Qwen2's kind around added tokens, an object of tokens and a list of merges.
fn text(added: &[Value], vocab: &[u8], merges: &str) -> Vec<u8> {
    let byte_level =
        object!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let split =
        object!({"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false});
    let frame = object!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": null, "decoder": byte_level,
    });
    // The vocabulary goes in as it is, one sound JSON value: an object of it would take many times its size.
    let mut text = frame.to_string().into_bytes();
    text.pop();
    text.extend_from_slice(br#","model":{"type":"BPE","dropout":null,"vocab":"#);
    text.extend_from_slice(vocab);
    text.extend_from_slice(br#","merges":"#);
    text.extend_from_slice(merges.as_bytes());
    text.extend_from_slice(b"}}");
    text
}

/// The pairs of a merges.txt, or the line that is none.
fn merge_pairs(text: &str) -> Result<Vec<(&str, &str)>, usize> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(i, line)| !(line.is_empty() || *i == 0 && line.starts_with("#version")));
    let pair = |line: &'_ str| line.split_once(' ').is_some_and(|(a, b)| is_pair(a, b));
    lines.map(|(i, line)| if pair(line) { line.split_once(' ').ok_or(i + 1) } else { Err(i + 1) }).collect()
}

fn is_pair(a: &str, b: &str) -> bool {
    !a.is_empty() && !b.is_empty() && !b.contains(' ')
}

/// The added tokens of a tokenizer_config.json, as tokenizer.json lists them; they are keyed by number there.
fn added_tokens(config: &Value) -> Option<Vec<Value>> {
    let mut tokens = Vec::new();
    for (id, token) in config.get("added_tokens_decoder")?.as_object()? {
        let mut token = token.as_object()?.clone();
        let id: u64 = id.parse().ok()?;
        token.insert("id".into(), id.into());
        tokens.push((id, Value::Object(token)));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Some(tokens.into_iter().map(|(_, token)| token).collect())
}

/// What of a tokenizer.json is looked at.
#[derive(Deserialize)]
struct TokenizerFile<'a> {
    #[serde(default)]
    added_tokens: Few<AddedToken, ADDED_LIMIT>,
    normalizer: Option<Kind>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<PostProcessor>,
    decoder: Option<Kind>,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u64,
    content: String,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct PreTokenizer {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pretokenizers: Few<Splitter, PARTS_LIMIT>,
}

#[derive(Deserialize)]
struct Splitter {
    #[serde(rename = "type")]
    kind: String,
    pattern: Option<Pattern>,
    behavior: Option<String>,
    invert: Option<bool>,
    add_prefix_space: Option<bool>,
    use_regex: Option<bool>,
}

#[derive(Deserialize)]
struct Pattern {
    #[serde(rename = "Regex")]
    regex: Option<String>,
}

impl PreTokenizer {
    /// Whether it is Qwen2's; if not, what it is.
    fn check(&self) -> Result<(), String> {
        let [split, bytes] = self.pretokenizers.0.as_slice() else {
            return Err(format!("{} of {}", self.kind, self.pretokenizers.0.len()));
        };
        if split.kind != "Split" || bytes.kind != "ByteLevel" {
            return Err(format!("{} and {}", split.kind, bytes.kind));
        }
        let pattern = split.pattern.as_ref().and_then(|pattern| pattern.regex.as_deref()).unwrap_or_default();
        let as_is = split.behavior.as_deref() == Some("Isolated") && split.invert != Some(true);
        let plain = bytes.add_prefix_space == Some(false) && bytes.use_regex == Some(false);
        if pattern != PATTERN || !as_is || !plain {
            return Err(format!("Split by {}", json::shown(pattern)));
        }
        Ok(())
    }
}

/// What becomes of the ids of a text.
#[derive(Deserialize)]
struct PostProcessor {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    single: Few<Piece, PARTS_LIMIT>,
    /// For two texts, which are never given.
    #[serde(default, rename = "pair")]
    _pair: Few<IgnoredAny, PARTS_LIMIT>,
    #[serde(default)]
    special_tokens: Few<IgnoredAny, PARTS_LIMIT>,
}

/// A text, or a token that is added.
#[derive(Deserialize)]
struct Piece {
    #[serde(rename = "Sequence")]
    sequence: Option<Sequence>,
}

#[derive(Deserialize)]
struct Sequence {
    id: String,
}

impl PostProcessor {
    /// Whether it leaves the ids of a text as they are; if not, what it is. transformers 5 writes a template of the text
    /// alone, where Qwen's own files have `ByteLevel`.
    fn check(&self) -> Result<(), String> {
        match self.kind.as_str() {
            "ByteLevel" => return Ok(()),
            "TemplateProcessing" => {}
            kind => return Err(kind.to_owned()),
        }
        let is_text = |piece: &Piece| piece.sequence.as_ref().is_some_and(|text| text.id == "A");
        match self.single.0.as_slice() {
            [piece] if is_text(piece) && self.special_tokens.0.is_empty() => Ok(()),
            _ => Err("TemplateProcessing that adds tokens".to_owned()),
        }
    }
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: String,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(borrow)]
    vocab: Vocab<'a>,
    merges: Merges,
}

/// A text that stays in the file, where it has no escapes: a full vocabulary has 300,000 of them.
#[derive(PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

struct Vocab<'a> {
    ids: HashMap<Text<'a>, u64>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VocabVisitor;
        impl<'de> Visitor<'de> for VocabVisitor {
            type Value = Vocab<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number for each token")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut ids = HashMap::new();
                while let Some((token, id)) = map.next_entry::<Text<'de>, u64>()? {
                    if ids.len() > TOKENS_LIMIT {
                        continue; // one more than the limit shows that it is exceeded
                    }
                    match ids.entry(token) {
                        Entry::Vacant(entry) => entry.insert(id),
                        Entry::Occupied(entry) => return Err(json::twice(&entry.key().0)),
                    };
                }
                Ok(Vocab { ids })
            }
        }
        deserializer.deserialize_map(VocabVisitor)
    }
}

/// Merges are counted and looked at, not kept.
struct Merges {
    count: usize,
    bad_line: Option<usize>,
}

/// Whether a merge is a pair of tokens, written `"a b"` or `["a", "b"]`.
struct IsPair(bool);

impl<'de> Deserialize<'de> for IsPair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairVisitor;
        impl<'de> Visitor<'de> for PairVisitor {
            type Value = IsPair;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair of tokens")
            }
            fn visit_str<E>(self, text: &str) -> Result<IsPair, E> {
                Ok(IsPair(text.split_once(' ').is_some_and(|(a, b)| is_pair(a, b))))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<IsPair, A::Error> {
                let (a, b) = (seq.next_element::<Text<'de>>()?, seq.next_element::<Text<'de>>()?);
                let more = seq.next_element::<IgnoredAny>()?.is_some();
                Ok(IsPair(!more && a.zip(b).is_some_and(|(a, b)| is_pair(&a.0, &b.0))))
            }
        }
        deserializer.deserialize_any(PairVisitor)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergesVisitor;
        impl<'de> Visitor<'de> for MergesVisitor {
            type Value = Merges;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pairs of tokens")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut merges = Merges { count: 0, bad_line: None };
                while let Some(IsPair(is_pair)) = seq.next_element()? {
                    merges.count += 1;
                    if !is_pair {
                        merges.bad_line.get_or_insert(merges.count);
                    }
                }
                Ok(merges)
            }
        }
        deserializer.deserialize_seq(MergesVisitor)
    }
}
