//! What to draw, and what may be asked for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// The shortest side of a picture.
pub const MIN_SIDE_PX: usize = 64;
/// The longest side of a picture.
pub const MAX_SIDE_PX: usize = 4096;
/// Sides are multiples of this: the VAE shrinks by 8 and the transformer reads patches of 2.
pub const SIDE_STEP_PX: usize = 16;
/// The most denoising steps; the models are made for 4 to 50.
pub const MAX_STEPS: usize = 200;
/// The strongest guidance; pictures burn out long before.
pub const MAX_GUIDANCE: f32 = 100.0;
/// The longest prompt; the models read about 4,000 characters of it (1,024 tokens).
pub const MAX_PROMPT_CHARS: usize = 32_000;
/// The most pictures of one call.
pub const MAX_COUNT: usize = 10;
/// How far to leave a picture to start from, unless said otherwise.
///
/// # Source
/// diffusers 0.42.1, `QwenImageImg2ImgPipeline.__call__(strength=0.6)`.
pub const DEFAULT_STRENGTH: f32 = 0.6;

/// One picture to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the picture shows. It is text and nothing else: no tag or special token in it means anything.
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
    /// The picture; it is resized to the request's size. Requests that start from the same one share it.
    pub pixels: Arc<crate::Pixels>,
    /// 0 keeps it, 1 ignores it.
    pub strength: f32,
}

impl Request {
    /// Whether every value is one that a model can be asked for.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for the first value that is not.
    pub fn validate(&self) -> Result<()> {
        check_prompt(&self.prompt)?;
        if let Some(negative) = &self.negative_prompt {
            check_text("negative-prompt", negative)?;
        }
        check_side("width", self.width_px)?;
        check_side("height", self.height_px)?;
        if !(1..=MAX_STEPS).contains(&self.steps) {
            return refuse("steps", self.steps, format!("1 to {MAX_STEPS}"));
        }
        check_real("true-cfg-scale", self.true_cfg_scale, MAX_GUIDANCE)?;
        self.init.as_ref().map_or(Ok(()), InitImage::validate)
    }
}

impl InitImage {
    /// # Errors
    /// [`Error::InvalidParam`] for a strength out of range and for a picture without pixels.
    fn validate(&self) -> Result<()> {
        check_real("strength", self.strength, 1.0)?;
        let (width_px, height_px) = (self.pixels.width_px, self.pixels.height_px);
        if width_px == 0 || height_px == 0 {
            return refuse("image", format!("{width_px}x{height_px}"), "a picture with at least one pixel");
        }
        Ok(())
    }
}

/// Whether a text can be a prompt.
///
/// # Errors
/// [`Error::InvalidParam`] if it is longer than [`MAX_PROMPT_CHARS`] or holds a NUL.
pub fn check_prompt(text: &str) -> Result<()> {
    check_text("prompt", text)
}

/// How many pictures to draw for one prompt.
///
/// # Errors
/// [`Error::InvalidParam`] unless it is 1 to [`MAX_COUNT`].
pub fn check_count(count: usize) -> Result<()> {
    if (1..=MAX_COUNT).contains(&count) {
        Ok(())
    } else {
        refuse("count", count, format!("1 to {MAX_COUNT}"))
    }
}

/// A picture's width and height, written `512x768`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
}

impl FromStr for Size {
    type Err = Error;

    /// Reads `WxH` in ASCII digits; nothing before, between or after.
    fn from_str(text: &str) -> Result<Self> {
        let sides = text.split_once('x').and_then(|(w, h)| Some((whole(w)?, whole(h)?)));
        let Some((width_px, height_px)) = sides else {
            return refuse("size", quoted(text), "width x height in pixels, such as 512x768");
        };
        for side in [width_px, height_px] {
            if !is_side(side) {
                return refuse("size", text, side_rule());
            }
        }
        Ok(Self { width_px, height_px })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width_px, self.height_px)
    }
}

/// A picture's proportions, written `16:9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aspect {
    width: usize,
    height: usize,
}

/// Longer terms than this are no proportion that anybody means.
const MAX_ASPECT_TERM: usize = MAX_SIDE_PX;

impl FromStr for Aspect {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let terms = text.split_once(':').and_then(|(w, h)| Some((whole(w)?, whole(h)?)));
        match terms {
            Some((width @ 1..=MAX_ASPECT_TERM, height @ 1..=MAX_ASPECT_TERM)) => Ok(Self { width, height }),
            _ => refuse("aspect", quoted(text), "width:height, such as 16:9"),
        }
    }
}

impl Aspect {
    /// The size of these proportions with about as many pixels as `native`, on allowed sides.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "sides are at most 4096")]
    pub fn size(self, native: Size) -> Size {
        let area = (native.width_px * native.height_px) as f64;
        let ratio = self.width as f64 / self.height as f64;
        let least = MIN_SIDE_PX as f64;
        // The short side is allowed to be longer than its share, never shorter than the minimum.
        let height = (area / ratio).sqrt().max(least).max(least / ratio);
        Size { width_px: nearest_side(height * ratio), height_px: nearest_side(height) }
    }
}

/// The allowed side nearest to a length.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of a side")]
fn nearest_side(px: f64) -> usize {
    let steps = (px / SIDE_STEP_PX as f64).round() as usize;
    (steps * SIDE_STEP_PX).clamp(MIN_SIDE_PX, MAX_SIDE_PX)
}

fn whole(digits: &str) -> Option<usize> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn is_side(px: usize) -> bool {
    (MIN_SIDE_PX..=MAX_SIDE_PX).contains(&px) && px.is_multiple_of(SIDE_STEP_PX)
}

fn side_rule() -> String {
    format!("{MIN_SIDE_PX} to {MAX_SIDE_PX} px in multiples of {SIDE_STEP_PX}")
}

fn check_side(param: &'static str, px: usize) -> Result<()> {
    if is_side(px) { Ok(()) } else { refuse(param, px, side_rule()) }
}

fn check_real(param: &'static str, value: f32, most: f32) -> Result<()> {
    // A NaN is in no range.
    if (0.0..=most).contains(&value) { Ok(()) } else { refuse(param, value, format!("0 to {most}")) }
}

fn check_text(param: &'static str, text: &str) -> Result<()> {
    let chars = text.chars().count();
    if chars > MAX_PROMPT_CHARS {
        return refuse(param, format!("{chars} characters"), format!("at most {MAX_PROMPT_CHARS}"));
    }
    match text.find('\0') {
        Some(at) => refuse(param, format!("text with a NUL at byte {at}"), "text without NUL"),
        None => Ok(()),
    }
}

/// What was typed, short enough for a message.
fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 40;
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() { format!("{shown:?}...") } else { format!("{shown:?}") }
}

fn refuse<T>(param: &'static str, got: impl fmt::Display, allowed: impl Into<String>) -> Result<T> {
    Err(Error::InvalidParam { param, got: got.to_string(), allowed: allowed.into() })
}
