//! From a prompt to token ids.

pub mod template;
mod tokenizer;

pub use tokenizer::{PromptTokenizer, Tokens};
