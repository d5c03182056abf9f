//! The settings that a picture carries, as written by this program and as read from it and from others.

use serde::{Deserialize, Serialize};

use super::{a1111, exif, png};
use crate::error::PictureProblem;
use crate::weights::lora::Applied;
use crate::{Request, Result};

/// What a picture was made from. Nothing else is taken from a file, and no value is checked here: they become a
/// [`Request`], which is validated like any other.
///
/// Fields are in alphabetical order, which makes [`Metadata::to_json`] canonical.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Metadata {
    /// The arithmetic: `bf16` or `f32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Rows.
    #[serde(rename = "height", skip_serializing_if = "Option::is_none")]
    pub height_px: Option<usize>,
    /// The picture it started from, as it was named. A stranger's file may name any: ask before opening it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The LoRAs that it was drawn with, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraRecord>,
    /// The model's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What the picture should not show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// What the picture shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The smaller format that weights were brought into: `int8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<String>,
    /// Seed of the noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Denoising steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// How far the picture it started from was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f32>,
    /// Classifier-free guidance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_cfg_scale: Option<f32>,
    /// The version of this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Columns.
    #[serde(rename = "width", skip_serializing_if = "Option::is_none")]
    pub width_px: Option<usize>,
}

/// A LoRA that a picture was drawn with. Its name is to be shown and never to be opened.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct LoraRecord {
    /// The file's name without its folders.
    pub name: String,
    /// How strongly it acted.
    pub scale: f32,
    /// SHA-256 of the file, which tells whether another one is the same.
    pub sha256: String,
}

impl LoraRecord {
    /// What a picture records of a LoRA.
    ///
    /// # Errors
    /// As [`crate::weights::lora::Lora::sha256`].
    pub fn of(applied: &Applied) -> Result<Self> {
        let lora = &applied.lora;
        Ok(Self { name: lora.name(), scale: applied.scale, sha256: lora.sha256()? })
    }
}

/// Whose way of storing settings a picture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This program: the whole request, which can be drawn again.
    Inkstone,
    /// The text of AUTOMATIC1111's web UI, which many programs write.
    A1111,
    /// mflux.
    Mflux,
}

/// Most JSON that is read: far more than a prompt of 32,000 characters takes.
pub(super) const MAX_JSON_BYTES: usize = 1 << 20;

impl Metadata {
    /// The settings of a request. The picture it starts from has no name there; the caller may set
    /// [`Self::image`].
    #[must_use]
    pub fn of(request: &Request, model: &str) -> Self {
        Self {
            dtype: None,
            height_px: Some(request.height_px),
            image: None,
            loras: Vec::new(),
            model: Some(model.to_owned()),
            negative_prompt: request.negative_prompt.clone(),
            prompt: Some(request.prompt.clone()),
            quantize: None,
            seed: Some(request.seed),
            steps: Some(request.steps),
            strength: request.init.as_ref().map(|init| init.strength),
            true_cfg_scale: Some(request.true_cfg_scale),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            width_px: Some(request.width_px),
        }
    }

    /// One line of JSON: keys sorted, no spaces, fields without a value left out.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Text, numbers and options of them: nothing in here can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] writes. Unknown fields are ignored.
    ///
    /// # Errors
    /// [`crate::Error::Picture`]: more than 1 MiB, no JSON, a field of another type or there twice.
    pub fn from_json(json: &str) -> Result<Self> {
        Ok(parse(json)?)
    }

    /// The settings stored in a PNG and who wrote them; `None` if there are none.
    ///
    /// # Errors
    /// [`crate::Error::Picture`] if the file is not a sound PNG, or its settings are too large or damaged.
    pub fn read_png(file: &[u8]) -> Result<Option<(Self, Origin)>> {
        let chunks = png::chunks(file)?;
        if let Some(json) = chunks.inkstone {
            return Ok(Some((parse(&json)?, Origin::Inkstone)));
        }
        if let Some(text) = chunks.parameters {
            return Ok(Some((a1111::parse(&text), Origin::A1111)));
        }
        let Some(comment) = chunks.exif.as_deref().and_then(exif::user_comment) else { return Ok(None) };
        Ok(mflux(&comment)?.map(|metadata| (metadata, Origin::Mflux)))
    }
}

fn parse<T: for<'a> Deserialize<'a>>(json: &str) -> Result<T, PictureProblem> {
    if json.len() > MAX_JSON_BYTES {
        return Err(PictureProblem::Metadata { reason: format!("{} bytes of JSON", json.len()) });
    }
    if !json.trim_start().starts_with('{') {
        return Err(PictureProblem::Metadata { reason: "not a JSON object".into() });
    }
    serde_json::from_str(json).map_err(|e| PictureProblem::Metadata { reason: e.to_string() })
}

/// The fields of mflux's JSON that mean the same here. Its `image_strength` runs the other way and is left out.
#[derive(Deserialize)]
struct MfluxJson {
    mflux_version: Option<String>,
    prompt: Option<String>,
    negative_prompt: Option<String>,
    model: Option<String>,
    seed: Option<u64>,
    steps: Option<usize>,
    guidance: Option<f32>,
    width: Option<usize>,
    height: Option<usize>,
}

/// mflux's settings; `None` for a comment of another program.
fn mflux(comment: &str) -> Result<Option<Metadata>, PictureProblem> {
    if !comment.contains("\"mflux_version\"") {
        return Ok(None);
    }
    let read: MfluxJson = parse(comment)?;
    Ok(read.mflux_version.is_some().then_some(Metadata {
        height_px: read.height,
        model: read.model,
        negative_prompt: read.negative_prompt,
        prompt: read.prompt,
        seed: read.seed,
        steps: read.steps,
        true_cfg_scale: read.guidance,
        width_px: read.width,
        ..Metadata::default()
    }))
}

#[cfg(test)]
mod tests;
