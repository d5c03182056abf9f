//! What to draw.

/// One picture to draw. Fields that are `None` take the model's default.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the picture shows.
    pub prompt: String,
    /// What it should not show. Guidance runs only with a negative prompt and a scale above 1, as in the reference.
    pub negative_prompt: Option<String>,
    /// A multiple of 16.
    pub width_px: usize,
    /// A multiple of 16.
    pub height_px: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Seed of the noise, torch's CPU generator.
    pub seed: u64,
    /// Classifier-free guidance.
    pub true_cfg_scale: f32,
    /// A picture to start from.
    pub init: Option<InitImage>,
}

/// A picture to start from, and how far to leave it.
#[derive(Clone, Debug, PartialEq)]
pub struct InitImage {
    /// The picture; it is resized to the request's size.
    pub pixels: crate::Pixels,
    /// 0 keeps it, 1 ignores it.
    pub strength: f32,
}
