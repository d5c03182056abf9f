//! The tokenizer of a model folder, with the prompt's template around it.

mod words;

use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use self::words::Words;
use super::template::{
    ASSISTANT, BETWEEN, MAX_TOKENS, MESSAGE_END, MESSAGE_START, TEXT_TO_IMAGE_DROP, TEXT_TO_IMAGE_SYSTEM,
    USER,
};
use crate::error::TokenizerProblem;
use crate::{Error, Result};

/// The ids of a prompt in its template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// All ids, the template's too.
    pub ids: Vec<u32>,
    /// How many of them, from the start, are not shown to the transformer.
    pub drop: usize,
    /// How many tokens the limit of [`MAX_TOKENS`] cut off, if it did. They are cut from the end, the template's end
    /// first, as in the reference.
    pub truncated: Option<usize>,
}

/// The crate's `Tokenizer`, which takes a model of any kind, keeps the whole file as values in between: three times the
/// time for a full vocabulary.
type Tokenizer =
    TokenizerImpl<Words, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Turns prompts into ids, with the tokenizer that comes with the model.
#[derive(Clone, Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    /// The template up to the user's message.
    before: Vec<u32>,
    /// The template from the end of the user's message.
    after: Vec<u32>,
    /// Tokens before the prompt in this vocabulary.
    prefix_len: usize,
}

impl PromptTokenizer {
    /// Reads a `tokenizer.json`. What it may contain is checked by [`crate::weights::ModelFiles::tokenizer`], which
    /// also makes one of the older files.
    ///
    /// # Errors
    /// [`Error::Tokenizer`]: damaged, or without the template's special tokens.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut tokenizer: Tokenizer = serde_json::from_slice(json).map_err(refused)?;
        tokenizer.set_encode_special_tokens(true);
        // What a tokenizer was last called with is saved with it; the next call sets its own.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(refused)?;
        let special = |token| {
            let problem = TokenizerProblem::MissingToken { token };
            tokenizer.token_to_id(token).ok_or_else(|| unusable(problem))
        };
        let (start, end) = (special(MESSAGE_START)?, special(MESSAGE_END)?);

        let mut before = vec![start];
        before.extend(ids(&tokenizer, TEXT_TO_IMAGE_SYSTEM)?);
        before.push(end);
        before.extend(ids(&tokenizer, BETWEEN)?);
        before.push(start);
        let mut after = vec![end];
        after.extend(ids(&tokenizer, BETWEEN)?);
        after.push(start);
        after.extend(ids(&tokenizer, ASSISTANT)?);

        let prefix_len = before.len() + ids(&tokenizer, USER)?.len();
        if prefix_len != TEXT_TO_IMAGE_DROP {
            // The reference drops 34 whatever the vocabulary; so does a model that was trained with it.
            tracing::warn!(
                "the template takes {prefix_len} tokens of this vocabulary, not {TEXT_TO_IMAGE_DROP}"
            );
        }
        Ok(Self { tokenizer, before, after, prefix_len })
    }

    /// The ids of a prompt in the text-to-image template.
    ///
    /// The prompt is plain text: names of special tokens in it are spelled out and cannot end the user's message.
    /// Any other text has the ids that the reference gives it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the vocabulary cannot express the text.
    pub fn encode(&self, prompt: &str) -> Result<Tokens> {
        // Together with what precedes it: line feeds at the start of a prompt join the template's.
        let message = ids(&self.tokenizer, &[USER, prompt].concat())?;
        let mut all = [&self.before[..], &message, &self.after].concat();
        let limit = MAX_TOKENS + TEXT_TO_IMAGE_DROP;
        let truncated = all.len().checked_sub(limit).filter(|cut| *cut > 0);
        all.truncate(limit);
        Ok(Tokens { ids: all, drop: TEXT_TO_IMAGE_DROP, truncated })
    }

    /// Tokens before the prompt in this vocabulary. It is 34 in that of Qwen2.5; [`Tokens::drop`] is 34 in any.
    #[must_use]
    pub fn prefix_len(&self) -> usize {
        self.prefix_len
    }
}

/// The ids of a text without special tokens.
fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false).map_err(refused)?;
    Ok(encoding.get_ids().to_vec())
}

#[allow(clippy::needless_pass_by_value)] // the shape that map_err wants
fn refused(error: impl ToString) -> Error {
    unusable(TokenizerProblem::Refused { reason: error.to_string() })
}

fn unusable(problem: TokenizerProblem) -> Error {
    Error::Tokenizer { path: "tokenizer/tokenizer.json".into(), problem }
}

#[cfg(test)]
mod tests;
