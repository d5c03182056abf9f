//! Pictures as pixels.

mod resample;

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

/// The picture at another size.
///
/// # Errors
/// None yet.
pub fn resize(picture: &Pixels, width_px: usize, height_px: usize) -> crate::Result<Pixels> {
    let at = |y: usize, x: usize| {
        3 * (y * picture.height_px / height_px * picture.width_px + x * picture.width_px / width_px)
    };
    let rgb = (0..height_px)
        .flat_map(|y| (0..width_px).flat_map(move |x| at(y, x)..at(y, x) + 3))
        .map(|i| picture.rgb[i])
        .collect();
    Ok(Pixels { width_px, height_px, rgb })
}
