//! From a seed to latents: noise, the schedule of noise levels, the steps between them.

pub mod euler;
pub mod guidance;
pub mod latents;
pub mod noise;
pub mod schedule;

#[cfg(test)]
mod tests;
