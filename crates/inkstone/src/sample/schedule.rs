//! The noise levels that a drawing steps through.
//!
//! # Source
//! `FlowMatchEulerDiscreteScheduler` and `calculate_shift` of diffusers 0.42. Levels are computed in f32, the shift
//! `mu` in f64, as numpy does there, so that they agree to the bit.

mod config;

pub use config::{SchedulerConfig, TimeShift};

use crate::{Error, Result};

/// Most steps of a schedule: the levels that the models were trained with.
pub const MAX_STEPS: usize = 1000;
/// How far above 1 the formulas' rounding takes the first level.
const ROUNDING: f32 = 4.0 * f32::EPSILON;

/// Noise levels, from noise to picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// One level before each step and, last, 0. 1 is all noise.
    pub sigmas: Vec<f32>,
    /// The level of each step as the reference's transformer input, usually `1000 * sigma`.
    pub timesteps: Vec<f32>,
}

impl Schedule {
    /// The levels of `steps` steps for a picture of `image_seq_len` tokens (reference pictures do not count).
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for a number of steps outside of 1 to [`MAX_STEPS`], [`Error::ModelConfig`] if the
    /// configuration gives levels that are not between 0 and 1.
    pub fn new(config: &SchedulerConfig, steps: usize, image_seq_len: usize) -> Result<Self> {
        check_steps(steps)?;
        Self::with_sigmas(config, &evenly_spaced(steps), image_seq_len)
    }

    /// The same for given levels, highest first and without the final 0. They are shifted like any others.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_sigmas(config: &SchedulerConfig, sigmas: &[f32], image_seq_len: usize) -> Result<Self> {
        check_steps(sigmas.len())?;
        let mut sigmas = sigmas.to_vec();
        config.shift(&mut sigmas, image_seq_len)?;
        config.stretch_to_terminal(&mut sigmas);
        if sigmas.iter().any(|s| !(0.0..=1.0 + ROUNDING).contains(s)) {
            return Err(config.refuse(
                "shift",
                format!("{sigmas:?}"),
                "a shift that keeps levels from 0 to 1",
            ));
        }
        let timesteps = sigmas.iter().map(|s| s * config.train_timesteps()).collect();
        sigmas.push(0.0);
        Ok(Self { sigmas, timesteps })
    }

    /// The part of the schedule for a drawing that starts from a picture: 1 keeps all steps, 0 none.
    ///
    /// # Source
    /// `get_timesteps` of diffusers' image-to-image pipelines.
    #[must_use]
    pub fn for_strength(&self, strength: f32) -> Self {
        let steps = self.steps();
        // Python multiplies the decimal number that the user wrote, as f64: 5 * 0.6 is 3 there, 5 * 0.6_f32 is more.
        let strength: f64 = strength.to_string().parse().unwrap_or(1.0);
        let kept = (steps as f64 * strength).min(steps as f64);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to the number of steps
        let first = ((steps as f64 - kept).max(0.0) as usize).min(steps);
        Self { sigmas: self.sigmas[first..].to_vec(), timesteps: self.timesteps[first..].to_vec() }
    }

    /// Number of steps; 0 only where [`Self::for_strength`] left none.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }
}

fn check_steps(steps: usize) -> Result<()> {
    if (1..=MAX_STEPS).contains(&steps) {
        return Ok(());
    }
    Err(Error::InvalidParam { param: "steps", got: steps.to_string(), allowed: format!("1 to {MAX_STEPS}") })
}

/// `numpy.linspace(1, 1 / n, n)` in f64, rounded.
fn evenly_spaced(n: usize) -> Vec<f32> {
    let last = 1.0 / n as f64;
    let step = (last - 1.0) / (n.max(2) - 1) as f64;
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is meant
    (0..n).map(|i| if i > 0 && i == n - 1 { last as f32 } else { (i as f64 * step + 1.0) as f32 }).collect()
}

#[cfg(test)]
mod tests;
