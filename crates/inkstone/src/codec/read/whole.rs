//! Pixels as a decoder gives them, row by row as they are seen.

use image::metadata::Orientation;

use super::RGB;
use crate::request::Size;

/// A decoded picture.
pub(super) struct Whole {
    /// Row by row as stored, 8 bits each.
    pub(super) samples: Vec<u8>,
    /// As stored.
    pub(super) size: Size,
    /// Samples of a pixel: gray, gray and alpha, RGB, or RGB and alpha.
    pub(super) channels: usize,
    /// How it is to be turned.
    pub(super) orientation: Orientation,
}

/// The size of a picture when it is turned.
pub(super) fn upright(size: Size, orientation: Orientation) -> Size {
    let Size { width_px, height_px } = size;
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => Size { width_px: height_px, height_px: width_px },
        _ => size,
    }
}

impl Whole {
    /// Hands out the rows of the upright picture from the top, 3 bytes for each pixel.
    pub(super) fn each_row(&self, take: &mut impl FnMut(&[u8])) {
        let Size { width_px, height_px } = upright(self.size, self.orientation);
        let mut row = vec![0; RGB * width_px];
        for y in 0..height_px {
            for (x, rgb) in row.chunks_exact_mut(RGB).enumerate() {
                rgb.copy_from_slice(&rgb_of(self.pixel(x, y)));
            }
            take(&row);
        }
    }

    /// The samples that are seen at a place.
    fn pixel(&self, x: usize, y: usize) -> &[u8] {
        let Size { width_px, height_px } = self.size;
        let (right, bottom) = (width_px - 1, height_px - 1);
        let (x, y) = match self.orientation {
            Orientation::NoTransforms => (x, y),
            Orientation::FlipHorizontal => (right - x, y),
            Orientation::FlipVertical => (x, bottom - y),
            Orientation::Rotate180 => (right - x, bottom - y),
            Orientation::Rotate90 => (y, bottom - x),
            Orientation::Rotate270 => (right - y, x),
            Orientation::Rotate90FlipH => (y, x),
            Orientation::Rotate270FlipH => (right - y, bottom - x),
        };
        &self.samples[self.channels * (y * width_px + x)..][..self.channels]
    }
}

/// A pixel's colours without its alpha.
pub(super) fn rgb_of(pixel: &[u8]) -> [u8; RGB] {
    match pixel {
        [red, green, blue, ..] => [*red, *green, *blue],
        [gray, ..] => [*gray; RGB],
        [] => [0; RGB],
    }
}
