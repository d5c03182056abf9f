//! Reads pictures that people give: bounded, upright, RGB.

use std::io::Cursor;

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageError, Limits, RgbImage};

use crate::error::PictureProblem;
use crate::{Pixels, Result};

/// Longest side that is read.
pub const MAX_SIDE_PX: u32 = 16_384;
/// Most pixels that are read.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Most memory for what is not pixels, such as a compressed colour profile.
const MAX_EXTRA_BYTES: u64 = 32 << 20;

/// The pixels of a PNG, JPEG or WebP file.
///
/// The picture is turned upright as its EXIF orientation says. Colour stays as stored and an alpha channel is left
/// out, as diffusers' `load_image` does it. Of samples with 16 bits the upper 8 are taken. Of an animation the first
/// frame is read.
///
/// # Errors
/// [`crate::Error::Picture`]: another kind of file, a damaged one, or more than 64 Mpixel or 16,384 px a side.
///
/// # Memory
/// Sizes are checked before pixels are decoded.
pub fn read_image(file: &[u8]) -> Result<Pixels> {
    let input = Cursor::new(file);
    Ok(match file {
        [0x89, b'P', b'N', b'G', ..] => {
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(MAX_EXTRA_BYTES);
            decode(PngDecoder::with_limits(input, limits).map_err(problem)?)?
        }
        [0xff, 0xd8, 0xff, ..] => {
            if !has_end(file) {
                return Err(PictureProblem::Damaged { reason: "the end is missing".into() }.into());
            }
            decode(JpegDecoder::new(input).map_err(problem)?)?
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            decode(WebPDecoder::new(input).map_err(problem)?)?
        }
        other => return Err(PictureProblem::NotAPicture { what: guess(other) }.into()),
    })
}

fn decode(mut decoder: impl ImageDecoder) -> Result<Pixels, PictureProblem> {
    let (width_px, height_px) = decoder.dimensions();
    if width_px == 0 || height_px == 0 {
        return Err(PictureProblem::Damaged { reason: "it has no pixels".into() });
    }
    let pixels = u64::from(width_px) * u64::from(height_px);
    if width_px.max(height_px) > MAX_SIDE_PX || pixels > MAX_PIXELS {
        return Err(PictureProblem::TooLarge { width_px, height_px });
    }
    // Orientation that cannot be read is none, as in the reference.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image = DynamicImage::ImageRgb8(to_rgb(DynamicImage::from_decoder(decoder).map_err(problem)?));
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    Ok(Pixels { width_px: image.width() as usize, height_px: image.height() as usize, rgb: image.into_raw() })
}

fn to_rgb(image: DynamicImage) -> RgbImage {
    let (w, h) = (image.width(), image.height());
    let eight = match image {
        DynamicImage::ImageLuma16(p) => {
            ImageBuffer::from_raw(w, h, upper(p.into_raw())).map(DynamicImage::ImageLuma8)
        }
        DynamicImage::ImageLumaA16(p) => {
            ImageBuffer::from_raw(w, h, upper(p.into_raw())).map(DynamicImage::ImageLumaA8)
        }
        DynamicImage::ImageRgb16(p) => {
            ImageBuffer::from_raw(w, h, upper(p.into_raw())).map(DynamicImage::ImageRgb8)
        }
        DynamicImage::ImageRgba16(p) => {
            ImageBuffer::from_raw(w, h, upper(p.into_raw())).map(DynamicImage::ImageRgba8)
        }
        other => Some(other),
    };
    // The buffers above have the lengths they had with 16 bits.
    eight.unwrap_or_default().into_rgb8()
}

/// The upper bytes, which is what Pillow takes of RGB with 16 bits.
#[allow(clippy::cast_possible_truncation)] // shifted into range
fn upper(samples: Vec<u16>) -> Vec<u8> {
    samples.into_iter().map(|s| (s >> 8) as u8).collect()
}

/// Whether a JPEG has an end marker after the start of its last scan; the decoder would fill the rest with gray.
fn has_end(jpeg: &[u8]) -> bool {
    let last = |marker: u8| jpeg.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) > last(0xda)
}

fn problem(error: ImageError) -> PictureProblem {
    let reason = error.to_string();
    match error {
        ImageError::Unsupported(_) => PictureProblem::Unsupported { reason },
        _ => PictureProblem::Damaged { reason },
    }
}

/// What a file that is not a picture seems to be.
fn guess(file: &[u8]) -> &'static str {
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file).trim_ascii_start();
    match text {
        [] => "empty",
        [b'<', ..] => "SVG, HTML or XML text",
        [b'{' | b'[', ..] => "JSON text",
        [b'%', b'P', b'D', b'F', ..] => "a PDF",
        [b'G', b'I', b'F', b'8', ..] => "a GIF",
        [b'B', b'M', ..] => "a BMP",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "a TIFF",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF, HEIC or video file",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive",
        _ => "of no known format",
    }
}

#[cfg(test)]
mod tests;
