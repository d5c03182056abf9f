//! The networks, one file each.

pub mod fields;

pub mod qwen_vae;
