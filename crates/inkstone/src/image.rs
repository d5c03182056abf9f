//! Pictures as pixels.

mod resample;

pub(crate) use resample::Resizer;
pub use resample::{Filter, resize, resize_with};

/// 8-bit RGB pixels, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Columns.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// `3 * width_px * height_px` bytes.
    pub rgb: Vec<u8>,
}
