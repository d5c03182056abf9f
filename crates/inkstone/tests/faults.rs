//! Rows 1 to 22 of the table of faults: weights, models, configs and tokenizers that are hostile or broken. A test
//! is named after its row.
#![allow(clippy::unwrap_used)] // as in tests

#[path = "faults/config.rs"]
mod config;
#[path = "faults/dir.rs"]
mod dir;
#[path = "faults/drawing.rs"]
mod drawing;
#[path = "faults/gguf.rs"]
mod gguf;
#[path = "faults/model.rs"]
mod model;
#[path = "faults/mutations.rs"]
mod mutations;
#[path = "faults/packed.rs"]
mod packed;
#[path = "faults/safetensors.rs"]
mod safetensors;
#[path = "faults/shards.rs"]
mod shards;
#[path = "faults/tokenizer.rs"]
mod tokenizer;
