//! Reads pictures that people give: bounded, upright, RGB.
//!
//! A PNG is read row by row, unless it is interlaced or to be turned; of other pictures the decoders make all pixels at
//! once. [`cost`] tells from the head what they take for it.

use std::io::Cursor;

use image::codecs::{jpeg::JpegDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{ImageDecoder, ImageError};
use inkstone_tensor::with_room;

use crate::error::PictureProblem;
use crate::image::{Filter, Resizer};
use crate::memory::Limits;
use crate::request::Size;
use crate::{Pixels, Result};

mod cost;
mod png;
mod whole;

use whole::Whole;

/// Longest side that is read.
pub const MAX_SIDE_PX: u32 = 16_384;
/// Most pixels that are read.
pub const MAX_PIXELS: u64 = 64 << 20;

/// The pixels of a PNG, JPEG or WebP file.
///
/// The picture is turned upright as its EXIF orientation says. Colour stays as stored and an alpha channel is left
/// out, as diffusers' `load_image` does it. Of samples with 16 bits the upper 8 are taken. Of an animation the first
/// frame is read.
///
/// # Errors
/// [`crate::Error::Picture`]: another kind of file, a damaged one, or more than 64 Mpixel or 16,384 px a side;
/// [`crate::Error::InsufficientMemory`] where it does not fit into what the system allows.
///
/// # Memory
/// Sizes are checked before pixels are decoded.
pub fn read_image(file: &[u8]) -> Result<Pixels> {
    let picture = Picture::open(file)?;
    let Size { width_px, height_px } = picture.size();
    let bytes = RGB * width_px * height_px;
    picture.check_fits(bytes, &Limits::now(None))?;
    let mut rgb = with_room(bytes)?;
    picture.each_row(|row| rgb.extend_from_slice(row))?;
    Ok(Pixels { width_px, height_px, rgb })
}

/// The pixels of a picture in another size: what [`crate::image::resize`] makes of [`read_image`]'s, in less memory.
///
/// # Errors
/// As [`read_image`], [`crate::Error::InsufficientMemory`] for these limits; [`crate::Error::InvalidParam`] for a size out of range.
pub fn read_image_sized(file: &[u8], size: Size, limits: &Limits) -> Result<Pixels> {
    let picture = Picture::open(file)?;
    let from = picture.size();
    picture.check_fits(Resizer::bytes(from, size, Filter::Lanczos)?, limits)?;
    let mut resizer = Resizer::new(from, size, Filter::Lanczos)?;
    picture.each_row(|row| resizer.push(row))?;
    Ok(resizer.finish())
}

/// Bytes of a pixel.
const RGB: usize = 3;

/// A picture of which the head is read.
enum Picture<'a> {
    /// What comes row by row.
    Rows(Box<png::Rows<'a>>),
    /// What is decoded at once.
    Whole(Box<Undecoded<'a>>),
}

struct Undecoded<'a> {
    decoder: Decoder<'a>,
    size: Size,
    /// Samples of a pixel.
    channels: usize,
    orientation: Orientation,
    /// What the decoder takes at most, its result counted.
    bytes: usize,
}

enum Decoder<'a> {
    Png(Box<png::Rows<'a>>),
    Jpeg(JpegDecoder<Cursor<&'a [u8]>>),
    WebP(WebPDecoder<Cursor<&'a [u8]>>),
}

impl<'a> Picture<'a> {
    fn open(file: &'a [u8]) -> Result<Self, PictureProblem> {
        let input = Cursor::new(file);
        match file {
            [0x89, b'P', b'N', b'G', ..] => {
                let rows = Box::new(png::Rows::open(file)?);
                let (size, channels, orientation) = (rows.size(), rows.channels(), rows.orientation());
                if !rows.is_interlaced() && orientation == Orientation::NoTransforms {
                    return Ok(Self::Rows(rows));
                }
                let bytes = cost::OF_ANY + channels * size.width_px * size.height_px;
                let decoder = Decoder::Png(rows);
                Ok(Self::Whole(Box::new(Undecoded { decoder, size, channels, orientation, bytes })))
            }
            [0xff, 0xd8, 0xff, ..] => {
                if !has_end(file) {
                    return Err(PictureProblem::Damaged { reason: "the end is missing".into() });
                }
                let decoder = JpegDecoder::new(input).map_err(problem)?;
                Undecoded::of(decoder, Decoder::Jpeg, |size, _| cost::jpeg(file, size))
            }
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
                let decoder = WebPDecoder::new(input).map_err(problem)?;
                let animated = decoder.has_animation();
                Undecoded::of(decoder, Decoder::WebP, |size, channels| {
                    cost::webp(file, size, channels, animated)
                })
            }
            other => Err(PictureProblem::NotAPicture { what: guess(other) }),
        }
    }

    /// Upright.
    fn size(&self) -> Size {
        match self {
            Self::Rows(rows) => rows.size(),
            Self::Whole(picture) => whole::upright(picture.size, picture.orientation),
        }
    }

    /// Whether decoding, and so many bytes beside it, fits.
    fn check_fits(&self, more_bytes: usize, limits: &Limits) -> Result<()> {
        let decoder = match self {
            Self::Rows(rows) => rows.bytes(),
            Self::Whole(picture) => picture.bytes,
        };
        limits.check((decoder + more_bytes) as u64)
    }

    /// Decodes it; hands out rows from the top, 3 bytes for each pixel.
    fn each_row(self, mut take: impl FnMut(&[u8])) -> Result<()> {
        match self {
            Self::Rows(rows) => Ok(rows.each(&mut take)?),
            Self::Whole(picture) => {
                picture.decode()?.each_row(&mut take);
                Ok(())
            }
        }
    }
}

impl<'a> Undecoded<'a> {
    /// `bytes` tells what decoding takes, from the size and the samples of a pixel.
    fn of<D: ImageDecoder>(
        mut decoder: D,
        kind: impl FnOnce(D) -> Decoder<'a>,
        bytes: impl FnOnce(Size, usize) -> usize,
    ) -> Result<Picture<'a>, PictureProblem> {
        let (width_px, height_px) = decoder.dimensions();
        let size = check_size(width_px, height_px)?;
        // Orientation that cannot be read is none, as in the reference.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let channels = usize::from(decoder.color_type().channel_count());
        if usize::from(decoder.color_type().bytes_per_pixel()) != channels {
            return Err(PictureProblem::Unsupported { reason: "its samples are not of 8 bits".into() });
        }
        let bytes = bytes(size, channels);
        Ok(Picture::Whole(Box::new(Self { decoder: kind(decoder), size, channels, orientation, bytes })))
    }

    fn decode(self) -> Result<Whole> {
        let Self { decoder, size, channels, orientation, .. } = self;
        let len = channels * size.width_px * size.height_px;
        let mut samples = with_room(len)?;
        samples.resize(len, 0);
        match decoder {
            Decoder::Png(rows) => rows.whole(&mut samples)?,
            Decoder::Jpeg(decoder) => decoder.read_image(&mut samples).map_err(problem)?,
            Decoder::WebP(decoder) => decoder.read_image(&mut samples).map_err(problem)?,
        }
        Ok(Whole { samples, size, channels, orientation })
    }
}

/// The size of a picture whose pixels may be read.
fn check_size(width_px: u32, height_px: u32) -> Result<Size, PictureProblem> {
    if width_px == 0 || height_px == 0 {
        return Err(PictureProblem::Damaged { reason: "it has no pixels".into() });
    }
    let pixels = u64::from(width_px) * u64::from(height_px);
    if width_px.max(height_px) > MAX_SIDE_PX || pixels > MAX_PIXELS {
        return Err(PictureProblem::TooLarge { width_px, height_px });
    }
    Ok(Size { width_px: width_px as usize, height_px: height_px as usize })
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
