//! From a prompt to token ids.

pub mod template;
mod tokenizer;
pub(crate) mod vocabulary;

pub use tokenizer::{PromptTokenizer, Tokens};
