//! The request that a picture carries, and how it is read back: from a stranger's file, so only known fields, checked.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;

use inkstone::pipeline::ModelInfo;
use inkstone::{Pixels, Request};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result, printable};

/// Pictures to start from and pictures with requests are at most this large.
const MAX_PICTURE_BYTES: u64 = 50 << 20;

/// A request as it is kept. A field that is not there takes the default again.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Record {
    pub(crate) model: Option<String>,
    pub(crate) prompt: Option<String>,
    pub(crate) negative_prompt: Option<String>,
    pub(crate) width: Option<usize>,
    pub(crate) height: Option<usize>,
    pub(crate) steps: Option<usize>,
    pub(crate) seed: Option<u64>,
    pub(crate) true_cfg_scale: Option<f32>,
    pub(crate) strength: Option<f32>,
}

/// The bytes of a file that was named as an argument, within the limit for pictures.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PICTURE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(Failure::read(path, &error)),
        Ok(_) if bytes.len() as u64 > MAX_PICTURE_BYTES => {
            let why = format!("it is larger than {} MiB", MAX_PICTURE_BYTES >> 20);
            Err(Failure::usage(format!("{} is too large", path.display()), why, "give a smaller file"))
        }
        Ok(_) => Ok(bytes),
    }
}

/// The text chunk of a PNG that holds a request.
const KEYWORD: &str = "inkstone";

impl Record {
    /// What is kept of a request.
    pub(crate) fn of(request: &Request, model: &ModelInfo) -> Self {
        Self {
            model: Some(model.name.clone()),
            prompt: Some(request.prompt.clone()),
            negative_prompt: request.negative_prompt.clone(),
            width: Some(request.width_px),
            height: Some(request.height_px),
            steps: Some(request.steps),
            seed: Some(request.seed),
            true_cfg_scale: Some(request.true_cfg_scale),
            strength: request.init.as_ref().map(|init| init.strength),
        }
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Failure::write("the request".as_ref(), &error.into()))
    }

    /// The request in a picture, or in the JSON file beside one.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path)?;
        let json = if bytes.starts_with(b"{") { Some(bytes) } else { chunk(&bytes).map(String::into_bytes) };
        let Some(json) = json else {
            return Err(Failure::no_request(path, "nothing in it says how it was drawn"));
        };
        serde_json::from_slice(&json).map_err(|error| Failure::no_request(path, error.to_string()))
    }

    /// What is known, a line each.
    pub(crate) fn describe(&self) -> String {
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else { return String::new() };
        let known = fields.iter().filter(|(_, value)| !value.is_null());
        known.map(|(name, value)| format!("{name}: {}\n", printable(&value.to_string()))).collect()
    }
}

fn chunk(bytes: &[u8]) -> Option<String> {
    let reader = png::Decoder::new(Cursor::new(bytes)).read_info().ok()?;
    let chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD)?;
    chunk.get_text().ok()
}

/// A picture as PNG, with its request.
pub(crate) fn encode(pixels: &Pixels, record: Option<&Record>) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| Failure::write("the picture".as_ref(), &error.into());
    let side = |px: usize| u32::try_from(px).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(pixels.width_px), side(pixels.height_px));
    encoder.set_color(png::ColorType::Rgb);
    if let Some(record) = record {
        let json = String::from_utf8_lossy(&record.to_json()?).into_owned();
        encoder.add_itxt_chunk(KEYWORD.into(), json).map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels.rgb).and_then(|()| writer.finish()).map_err(failed)?;
    Ok(bytes)
}

/// The pixels of a picture file.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Pixels> {
    let refuse = |why: String| Failure::usage(format!("{} is no picture", path.display()), why, "give a PNG");
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().map_err(|e| refuse(e.to_string()))?;
    let info = reader.info();
    let (width_px, height_px) = (info.width as usize, info.height as usize);
    if (info.color_type, info.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
        return Err(refuse("it is not 8-bit RGB".into()));
    }
    let mut rgb = vec![0; reader.output_buffer_size().unwrap_or(0)];
    reader.next_frame(&mut rgb).map_err(|e| refuse(e.to_string()))?;
    Ok(Pixels { width_px, height_px, rgb })
}
