//! From a seed to latents: noise, the schedule of noise levels, the steps between them.

pub mod latents;
pub mod noise;
