//! `scheduler_config.json`.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The scheduler's settings that this engine knows; other fields of the file are ignored.
///
/// Absent fields have the defaults of the reference's class.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    class_name: String,
    num_train_timesteps: u32,
    shift: f64,
    use_dynamic_shifting: bool,
    base_shift: Option<f64>,
    max_shift: Option<f64>,
    base_image_seq_len: u32,
    max_image_seq_len: u32,
    shift_terminal: Option<f64>,
    time_shift_type: TimeShift,
    invert_sigmas: bool,
    use_karras_sigmas: Option<bool>,
    use_exponential_sigmas: Option<bool>,
    use_beta_sigmas: Option<bool>,
    stochastic_sampling: bool,
}

/// The formula that moves levels towards noise for larger pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeShift {
    /// By `exp(mu)`.
    Exponential,
    /// By `mu`.
    Linear,
}

/// The one class of schedulers that is implemented.
const CLASS: &str = "FlowMatchEulerDiscreteScheduler";
/// Largest number that a shift may be: far beyond any model's, and its exponential is finite in f32.
const MAX_SHIFT: f64 = 80.0;
const MAX_TRAIN_TIMESTEPS: u32 = 1_000_000;

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: CLASS.to_owned(),
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: Some(0.5),
            max_shift: Some(1.15),
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            shift_terminal: None,
            time_shift_type: TimeShift::Exponential,
            invert_sigmas: false,
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            stochastic_sampling: false,
        }
    }
}

impl SchedulerConfig {
    /// Reads and checks the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`Error::ModelConfig`]: no JSON, a value out of range, a kind of schedule that is not implemented.
    pub fn from_json(json: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(json).map_err(|e| {
            Self::default().refuse("scheduler_config.json", e.to_string(), "a scheduler's settings")
        })?;
        config.check()?;
        Ok(config)
    }

    /// The schedule that Lightning LoRAs were distilled with, whatever the model's own: one shift for all sizes, and no
    /// stretching.
    ///
    /// # Source
    /// Qwen-Image-Lightning's `scheduler_config`: `base_shift` and `max_shift` are ln 3, `shift_terminal` is absent.
    #[must_use]
    pub fn lightning(self) -> Self {
        let shift = Some(3f64.ln());
        Self {
            use_dynamic_shifting: true,
            base_shift: shift,
            max_shift: shift,
            shift_terminal: None,
            time_shift_type: TimeShift::Exponential,
            base_image_seq_len: 256,
            max_image_seq_len: 8192,
            ..self
        }
    }

    fn check(&self) -> Result<()> {
        if self.class_name != CLASS {
            return Err(self.refuse("_class_name", self.class_name.clone(), CLASS));
        }
        for (field, on) in [
            ("use_karras_sigmas", self.use_karras_sigmas == Some(true)),
            ("use_exponential_sigmas", self.use_exponential_sigmas == Some(true)),
            ("use_beta_sigmas", self.use_beta_sigmas == Some(true)),
            ("invert_sigmas", self.invert_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
        ] {
            if on {
                return Err(self.refuse(field, "true".into(), "false; such schedules are not implemented"));
            }
        }
        if !(1..=MAX_TRAIN_TIMESTEPS).contains(&self.num_train_timesteps) {
            let allowed = "1 to 1000000";
            return Err(self.refuse("num_train_timesteps", self.num_train_timesteps.to_string(), allowed));
        }
        if !(self.shift > 0.0 && self.shift <= MAX_SHIFT) {
            return Err(self.refuse("shift", self.shift.to_string(), "above 0, at most 80"));
        }
        if let Some(terminal) = self.shift_terminal
            && !(0.0..1.0).contains(&terminal)
        {
            return Err(self.refuse("shift_terminal", terminal.to_string(), "from 0 to below 1"));
        }
        if self.use_dynamic_shifting { self.check_dynamic() } else { Ok(()) }
    }

    fn check_dynamic(&self) -> Result<()> {
        for (field, value) in [("base_shift", self.base_shift), ("max_shift", self.max_shift)] {
            if !value.is_some_and(|v| (-MAX_SHIFT..=MAX_SHIFT).contains(&v)) {
                let got = value.map_or("null".into(), |v| v.to_string());
                return Err(self.refuse(field, got, "-80 to 80"));
            }
        }
        if self.base_image_seq_len >= self.max_image_seq_len {
            let got = self.max_image_seq_len.to_string();
            return Err(self.refuse("max_image_seq_len", got, "more than base_image_seq_len"));
        }
        Ok(())
    }

    pub(super) fn refuse(&self, field: &str, got: String, allowed: &str) -> Error {
        let (field, allowed) = (field.to_owned(), allowed.to_owned());
        Error::ModelConfig { component: "scheduler", field, got, allowed }
    }

    pub(super) fn train_timesteps(&self) -> f32 {
        self.num_train_timesteps as f32
    }

    /// Moves the levels towards noise: by a fixed shift, or by one that grows with the picture.
    pub(super) fn shift(&self, sigmas: &mut [f32], image_seq_len: usize) -> Result<()> {
        if !self.use_dynamic_shifting {
            let (shift, less_one) = (round(self.shift), round(self.shift - 1.0));
            sigmas.iter_mut().for_each(|s| *s = shift * *s / (1.0 + less_one * *s));
            return Ok(());
        }
        let mu = self.mu(image_seq_len);
        let factor = match self.time_shift_type {
            TimeShift::Exponential => round(mu.exp()),
            TimeShift::Linear => round(mu),
        };
        if !(factor.is_finite() && factor > 0.0) {
            let got = format!("{mu} for {image_seq_len} tokens");
            return Err(self.refuse("max_shift", got, "a shift whose factor is finite and above 0"));
        }
        sigmas.iter_mut().for_each(|s| *s = factor / (factor + (1.0 / *s - 1.0)));
        Ok(())
    }

    /// The shift for a picture: linear in its number of tokens, beyond both ends too.
    pub(super) fn mu(&self, image_seq_len: usize) -> f64 {
        let (base, max) = (self.base_shift.unwrap_or(0.0), self.max_shift.unwrap_or(0.0));
        let (short, long) = (f64::from(self.base_image_seq_len), f64::from(self.max_image_seq_len));
        let slope = (max - base) / (long - short);
        image_seq_len as f64 * slope + (base - slope * short)
    }

    /// Stretches the levels so that the last one is `shift_terminal`. A single level stays: the reference divides 0
    /// by 0 there.
    pub(super) fn stretch_to_terminal(&self, sigmas: &mut [f32]) {
        let terminal = self.shift_terminal.unwrap_or(0.0);
        let [_, .., last] = *sigmas else { return };
        if terminal > 0.0 {
            let scale = (1.0 - last) / round(1.0 - terminal);
            sigmas.iter_mut().for_each(|s| *s = 1.0 - (1.0 - *s) / scale);
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // numpy rounds Python's numbers to the array's type
fn round(value: f64) -> f32 {
    value as f32
}
