//! The networks, one file each.

pub mod fields;
pub mod qwen25_vl;
pub mod qwen_image;
pub mod qwen_vae;
