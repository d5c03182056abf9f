//! PNG files: pixels with the settings they were made from.

use std::io::Cursor;

use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Filter, Limits};

use super::{Metadata, a1111};
use crate::error::PictureProblem;
use crate::{Error, Pixels, Result};

/// The chunk with the whole request as JSON.
const INKSTONE: &str = "inkstone";
/// The chunk with the text that other programs read.
const PARAMETERS: &str = "parameters";
/// The chunk with XMP.
const XMP: &str = "XML:com.adobe.xmp";
/// Longest text that is unpacked.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// Most memory for the chunks of a file as they are.
const MAX_CHUNKS_BYTES: usize = 32 << 20;

/// Says to whoever looks that the picture was made by a trained model.
///
/// # Source
/// IPTC NewsCodes, digital source type; the property is of IPTC's extension schema.
const MADE_BY_A_MODEL: &str = concat!(
    "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>",
    "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">",
    "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\"><rdf:Description rdf:about=\"\" ",
    "xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\" ",
    "Iptc4xmpExt:DigitalSourceType=",
    "\"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia\"/>",
    "</rdf:RDF></x:xmpmeta><?xpacket end=\"r\"?>",
);

/// The bytes of a PNG file: the same for the same pixels and settings. Without settings it holds pixels only.
///
/// # Errors
/// [`Error::InvalidParam`] for pixels that are no picture.
pub fn write(pixels: &Pixels, metadata: Option<&Metadata>) -> Result<Vec<u8>> {
    encode(pixels, metadata).map_err(|error| Error::InvalidParam {
        param: "picture",
        got: format!("{} x {} px, {} bytes: {error}", pixels.width_px, pixels.height_px, pixels.rgb.len()),
        allowed: "3 bytes for each pixel".into(),
    })
}

fn encode(pixels: &Pixels, metadata: Option<&Metadata>) -> Result<Vec<u8>, png::EncodingError> {
    // A side that does not fit becomes 0, which the encoder refuses.
    let side = |px: usize| u32::try_from(px).unwrap_or(0);
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, side(pixels.width_px), side(pixels.height_px));
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    encoder.set_filter(Filter::Adaptive);
    if let Some(metadata) = metadata {
        // A text in a PNG ends at the first NUL; JSON escapes it.
        let readable = a1111::format(metadata).replace('\0', "\u{fffd}");
        encoder.add_itxt_chunk(PARAMETERS.into(), readable)?;
        encoder.add_itxt_chunk(INKSTONE.into(), metadata.to_json())?;
        encoder.add_itxt_chunk(XMP.into(), MADE_BY_A_MODEL.into())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels.rgb)?;
    writer.finish()?;
    Ok(file)
}

/// The chunks of a PNG that may hold settings.
#[derive(Default)]
pub(super) struct Chunks {
    pub(super) inkstone: Option<String>,
    pub(super) parameters: Option<String>,
    pub(super) exif: Option<Vec<u8>>,
}

/// Reads the texts of a PNG, wherever they stand in it, without decoding its pixels.
pub(super) fn chunks(file: &[u8]) -> Result<Chunks, PictureProblem> {
    let damaged = |e: png::DecodingError| PictureProblem::Damaged { reason: e.to_string() };
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MAX_CHUNKS_BYTES });
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(damaged)?;
    reader.finish().map_err(damaged)?;
    let info = reader.info();

    let mut found = Chunks { exif: info.exif_metadata.as_ref().map(|e| e.to_vec()), ..Chunks::default() };
    // The first chunk of a name counts, and of those Unicode ones come first.
    let mut keep = |keyword: &str, text: &dyn Fn() -> Result<String, png::DecodingError>| {
        let slot = match keyword {
            INKSTONE => &mut found.inkstone,
            PARAMETERS => &mut found.parameters,
            _ => return Ok(()),
        };
        if slot.is_none() {
            *slot = Some(text().map_err(|e| PictureProblem::Metadata { reason: e.to_string() })?);
        }
        Ok(())
    };
    for chunk in &info.utf8_text {
        keep(&chunk.keyword, &|| {
            let mut chunk = chunk.clone();
            chunk.decompress_text_with_limit(MAX_TEXT_BYTES)?;
            chunk.get_text()
        })?;
    }
    for chunk in &info.uncompressed_latin1_text {
        keep(&chunk.keyword, &|| Ok(chunk.text.clone()))?;
    }
    for chunk in &info.compressed_latin1_text {
        keep(&chunk.keyword, &|| {
            let mut chunk = chunk.clone();
            chunk.decompress_text_with_limit(MAX_TEXT_BYTES)?;
            chunk.get_text()
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
