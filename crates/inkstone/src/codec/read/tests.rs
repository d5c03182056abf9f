use super::{read_image, read_image_sized};
use crate::golden;
use crate::image::resize;
use crate::memory::Limits;
use crate::request::Size;

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

/// Row by row or whole, turned or not: the pixels are those of the reference, resized as the reference resizes them.
#[test]
fn a_picture_is_read_in_another_size_as_it_is_resized_afterwards() {
    for (name, _) in
        golden::tensors("pictures.safetensors").iter().chain(&golden::tensors("images_files.safetensors"))
    {
        let file = if name == "orientation6_jpeg" { "orientation6.jpg" } else { name };
        let file = if file.contains('.') { file.to_owned() } else { format!("{file}.png") };
        let bytes = golden::bytes(&format!("pictures/{file}"));
        let whole = read_image(&bytes).unwrap();
        for (width_px, height_px) in
            [(64, 80), (16, 16), (3, 200), (200, 2), (whole.width_px, 7), (7, whole.height_px)]
        {
            let size = Size { width_px, height_px };
            let got = read_image_sized(&bytes, size, &Limits::default()).unwrap();
            assert!(
                got == resize(&whole, width_px, height_px).unwrap(),
                "{file} in {width_px} x {height_px}"
            );
        }
        let same = Size { width_px: whole.width_px, height_px: whole.height_px };
        assert!(read_image_sized(&bytes, same, &Limits::default()).unwrap() == whole, "{file}");
    }
    let file = golden::bytes("pictures/rgba.png");
    for (width_px, height_px) in [(0, 4), (4, 0), (20_000, 4)] {
        assert!(read_image_sized(&file, Size { width_px, height_px }, &Limits::default()).is_err());
    }
}
