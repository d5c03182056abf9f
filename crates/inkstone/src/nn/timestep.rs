//! The timestep as a vector: sines and cosines of it, then two linear layers.

use inkstone_tensor::ops::{self, Activation};
use inkstone_tensor::{DType, Device, Shape, Tensor};

use super::linear::Linear;
use crate::Result;
use crate::weights::Loader;

/// Half of the sinusoids are cosines, half sines (`Timesteps(num_channels=256)`, transformer_qwenimage.py).
const CHANNELS: usize = 256;
/// Sigma in 0..1 is spread over the range the embedding was made for (`scale=1000`).
const SCALE: f32 = 1000.0;
/// Longest period of the sinusoids (embeddings.py, `max_period`).
const MAX_PERIOD: f32 = 10_000.0;

/// Turns timesteps into vectors.
#[derive(Clone, Debug)]
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    activations: DType,
    device: Device,
}

impl TimestepEmbedding {
    /// `NAME.linear_1` and `NAME.linear_2`.
    pub fn load(loader: &mut Loader, name: &str, dim: usize) -> Self {
        Self {
            linear_1: Linear::load(loader, &format!("{name}.linear_1"), CHANNELS, dim),
            linear_2: Linear::load(loader, &format!("{name}.linear_2"), dim, dim),
            activations: loader.activations(),
            device: loader.device().clone(),
        }
    }

    /// One f32 row for each timestep (a sigma in 0..1).
    ///
    /// A bf16 run of the reference rounds the timestep itself to bf16; we keep it in f32 in every precision, so that
    /// bf16 stays close to the f32 result.
    ///
    /// # Shapes
    /// Result `[timesteps.len(), dim]`.
    ///
    /// # Errors
    /// No memory.
    pub fn forward(&self, timesteps: &[f32]) -> Result<Tensor> {
        let waves: Vec<f32> = timesteps.iter().flat_map(|&t| sinusoids(t)).collect();
        let waves = Tensor::from_f32(&self.device, &waves, Shape::matrix(timesteps.len(), CHANNELS))?;
        let waves = ops::convert(&waves, self.activations)?;
        let hidden = self.linear_1.forward_activated(&waves, Activation::Silu)?;
        self.linear_2.forward_f32(&hidden)
    }
}

/// Cosines, then sines, of the timestep at falling frequencies. Products are rounded to f32 where the reference
/// rounds them: the angles reach 1000, where one unit in the last place is visible.
#[allow(clippy::cast_possible_truncation)] // f64 results go to f32 on purpose
fn sinusoids(t: f32) -> impl Iterator<Item = f32> {
    const HALF: usize = CHANNELS / 2;
    let angle = move |i: usize| {
        let exponent = -MAX_PERIOD.ln() * i as f32 / HALF as f32;
        let frequency = f64::from(exponent).exp() as f32;
        f64::from(SCALE * (t * frequency))
    };
    let cosines = (0..HALF).map(move |i| angle(i).cos() as f32);
    cosines.chain((0..HALF).map(move |i| angle(i).sin() as f32))
}

#[cfg(test)]
mod tests;
