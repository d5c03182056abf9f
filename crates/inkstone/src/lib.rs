//! Inkstone draws pictures from text with the Qwen-Image family, on the machine its user already has.
//!
//! Start at [`Pipeline`]: open a model, give it a [`Request`], get a [`Picture`].
#![forbid(unsafe_code)]

pub mod bench;
pub mod codec;
pub mod convert;
pub mod error;
#[cfg(test)]
mod golden;
pub mod image;
pub mod memory;
pub mod models;
pub mod nn;
pub mod pipeline;
pub mod progress;
pub mod request;
pub mod sample;
pub mod text;
pub mod weights;

pub use error::{Error, Result};
pub use image::Pixels;
pub use memory::Offload;
pub use pipeline::{OpenOptions, Picture, Pipeline, Precision};
pub use progress::{Observer, Stage};
pub use request::{InitImage, Request};
