//! What products of bytes may cost: gates on blocks with outlier channels and on whole pictures.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here, in functions beside the tests too")]

#[path = "int8/blocks.rs"]
mod blocks;
#[path = "support/drawing.rs"]
mod drawing;
#[path = "int8/embedded.rs"]
mod embedded;
#[path = "int8/pictures.rs"]
mod pictures;
#[path = "int8/similarity.rs"]
mod similarity;
#[path = "int8/vae.rs"]
mod vae;
