//! PNG files, row by row.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{Decoder, DecodingError, Limits, Reader, Transformations};

use super::whole::rgb_of;
use super::{RGB, check_size, cost};
use crate::error::PictureProblem;
use crate::request::Size;

/// Most memory for what is not pixels.
const MAX_EXTRA_BYTES: usize = 32 << 20;

/// A PNG of which the head is read.
pub(super) struct Rows<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    size: Size,
    /// Bytes of a row as stored.
    stored_bytes: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn open(file: &'a [u8]) -> Result<Self, PictureProblem> {
        let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MAX_EXTRA_BYTES });
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let info = decoder.read_header_info().map_err(problem)?;
        let size = check_size(info.width, info.height)?;
        let stored_bytes = info.raw_row_length();
        // Palettes and less than 8 bits become 8 bits; of 16 the upper 8 are taken, as Pillow does it of RGB.
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        Ok(Self { reader: decoder.read_info().map_err(problem)?, size, stored_bytes })
    }

    pub(super) const fn size(&self) -> Size {
        self.size
    }

    /// Samples of a pixel, each a byte.
    pub(super) fn channels(&self) -> usize {
        self.reader.output_color_type().0.samples()
    }

    pub(super) fn is_interlaced(&self) -> bool {
        self.reader.info().interlaced
    }

    /// Orientation that cannot be read is none, as in the reference.
    pub(super) fn orientation(&self) -> Orientation {
        let exif = self.reader.info().exif_metadata.as_deref();
        exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
    }

    /// What reading row by row takes at most: some rows, and what is decompressed ahead.
    pub(super) fn bytes(&self) -> usize {
        cost::OF_ANY + 12 * self.stored_bytes + (self.channels() + RGB) * self.size.width_px
    }

    /// Hands out the rows of a picture that is not interlaced from the top, 3 bytes for each pixel.
    pub(super) fn each(mut self, take: &mut impl FnMut(&[u8])) -> Result<(), PictureProblem> {
        let (channels, mut rgb) = (self.channels(), vec![0; RGB * self.size.width_px]);
        let mut rows = 0;
        while let Some(row) = self.reader.next_row().map_err(problem)? {
            rows += 1;
            let pixels = row.data().chunks_exact(channels);
            if rows > self.size.height_px || pixels.len() != self.size.width_px {
                return Err(PictureProblem::Damaged { reason: "its rows are not as its head says".into() });
            }
            for (rgb, pixel) in rgb.chunks_exact_mut(RGB).zip(pixels) {
                rgb.copy_from_slice(&rgb_of(pixel));
            }
            take(&rgb);
        }
        if rows < self.size.height_px {
            return Err(PictureProblem::Damaged { reason: "rows are missing".into() });
        }
        Ok(())
    }

    /// Fills in all samples as they are stored.
    pub(super) fn whole(mut self, samples: &mut [u8]) -> Result<(), PictureProblem> {
        self.reader.next_frame(samples).map_err(problem)?;
        Ok(())
    }
}

fn problem(error: DecodingError) -> PictureProblem {
    PictureProblem::Damaged { reason: error.to_string() }
}
