//! The models against the reference, tap by tap, on whichever table `INKSTONE_CPU` selects.

// Clippy's leave for tests ends at functions that tests call.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "golden/taps.rs"]
mod taps;

#[path = "golden/formats.rs"]
mod formats;
#[path = "golden/loading.rs"]
mod loading;
#[path = "golden/lora.rs"]
mod lora;
#[path = "golden/padding.rs"]
mod padding;
#[path = "golden/pipelines.rs"]
mod pipelines;
#[path = "golden/small.rs"]
mod small;
#[path = "golden/text_encoder.rs"]
mod text_encoder;
#[path = "golden/transformer.rs"]
mod transformer;
#[path = "golden/vae.rs"]
mod vae;
