use super::read_image;
use crate::golden;

/// Largest difference of a sample between our pixels and the fixture's.
fn largest_difference(file: &str, stored: &golden::Stored) -> u8 {
    let got = read_image(&golden::bytes(&format!("pictures/{file}"))).unwrap();
    assert_eq!([got.height_px, got.width_px, 3], stored.shape[..], "{file}");
    got.rgb.iter().zip(&stored.bytes).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn row_32_stored_pixels_and_orientations_are_read_exactly() {
    let files = golden::tensors("images_files.safetensors");
    for (name, stored) in &files {
        let (file, allowed) = match name.as_str() {
            // Another JPEG decoder than the reference's.
            "orientation6_jpeg" => ("orientation6.jpg".to_owned(), 2),
            name if name.contains('.') => (name.to_owned(), 0),
            name => (format!("{name}.png"), 0),
        };
        let difference = largest_difference(&file, stored);
        assert!(difference <= allowed, "{file}: {difference}");
    }
    assert_eq!(files.len(), 13);
}

#[test]
fn row_32_pixel_types_and_formats_are_read_as_the_reference_reads_them() {
    let files = golden::tensors("pictures.safetensors");
    for (name, stored) in &files {
        let allowed = match name.as_str() {
            // Another decoder than the reference's: rounding of the transform, and of colour at half resolution.
            "gray.jpg" | "progressive.jpg" | "cmyk.jpg" => 2,
            "subsampled.jpg" => 4,
            _ => 0,
        };
        let difference = largest_difference(name, stored);
        assert!(difference <= allowed, "{name}: {difference}");
    }
    assert_eq!(files.len(), 13);
}
