//! The step from one noise level to the next.

use inkstone_tensor::{Tensor, ops};

use crate::Result;

/// `latents + (next - sigma) * velocity`: one step along the predicted direction.
///
/// # Errors
/// Shapes that differ, no memory.
pub fn step(latents: Tensor, velocity: &Tensor, sigma: f32, next: f32) -> Result<Tensor> {
    Ok(ops::scaled_add(latents, velocity, next - sigma)?)
}

/// `sigma * noise + (1 - sigma) * clean`: a picture's latents at a noise level, where image to image starts.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn at_level(clean: &[f32], noise: &[f32], sigma: f32) -> Vec<f32> {
    assert_eq!(clean.len(), noise.len(), "latents and their noise");
    clean.iter().zip(noise).map(|(clean, noise)| sigma * noise + (1.0 - sigma) * clean).collect()
}

#[cfg(test)]
mod tests {
    use super::at_level;

    #[test]
    fn a_level_mixes_picture_and_noise() {
        assert_eq!(at_level(&[2.0, -4.0], &[1.0, 8.0], 0.25), [1.75, -1.0]);
        assert_eq!(at_level(&[2.0], &[1.0], 1.0), [1.0]);
        assert_eq!(at_level(&[2.0], &[1.0], 0.0), [2.0]);
    }
}
