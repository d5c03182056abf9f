//! What a model says of itself.

use crate::Result;
use crate::models::fields::{self, Fields};
use crate::request::{MAX_SIDE_PX, MIN_SIDE_PX, SIDE_STEP_PX};

/// What is known of a model without touching its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// A short name: the folder's, or `inkstone-tiny`.
    pub name: String,
    /// What a request takes where it says nothing.
    pub defaults: Defaults,
}

/// A model's own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Native width.
    pub width_px: usize,
    /// Native height.
    pub height_px: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance scale.
    pub true_cfg_scale: f32,
    /// Without a negative prompt there is no guidance; the models are made for `" "`.
    pub negative_prompt: String,
}

impl Defaults {
    /// What the model card of Qwen-Image recommends, with the steps of the `balanced` preset.
    pub(super) fn for_side(side_px: usize) -> Self {
        Self {
            width_px: side_px,
            height_px: side_px,
            steps: 20,
            true_cfg_scale: 4.0,
            negative_prompt: " ".into(),
        }
    }
}

/// Side of the pictures that Qwen-Image draws unless told otherwise (`default_sample_size * vae_scale_factor`,
/// pipeline_qwenimage.py).
const NATIVE_SIDE_PX: usize = 1024;
/// Where model_index.json says otherwise. Only our models do; diffusers passes over names with an underscore.
const NATIVE_SIDE_FIELD: &str = "_native_side_px";

/// What model_index.json says of the size that the model was trained on.
pub(super) fn native_side_px(model_index: &str) -> Result<usize> {
    const COMPONENT: &str = "model_index";
    let index = fields::parse(COMPONENT, model_index)?;
    let allowed = MIN_SIDE_PX..=MAX_SIDE_PX;
    let index = Fields::of(COMPONENT, &index)?;
    let side = index.integer(NATIVE_SIDE_FIELD, Some(NATIVE_SIDE_PX), allowed)?;
    if side.is_multiple_of(SIDE_STEP_PX) {
        return Ok(side);
    }
    Err(index.refuse(NATIVE_SIDE_FIELD, side.to_string(), &format!("a multiple of {SIDE_STEP_PX}")))
}
