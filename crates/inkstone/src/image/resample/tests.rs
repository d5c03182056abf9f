use super::{Filter, Pixels, resize, resize_with};
use crate::golden;

fn pixels(stored: &golden::Stored) -> Pixels {
    assert_eq!(stored.shape[2], 3);
    Pixels { width_px: stored.shape[1], height_px: stored.shape[0], rgb: stored.bytes.clone() }
}

#[test]
fn sizes_up_down_odd_and_single_are_pillows_to_the_byte() {
    let images = golden::tensors("images.safetensors");
    let source = pixels(&images["in.RGB"]);
    let mut compared = 0;
    for (name, stored) in &images {
        let filter = match name.split_once(".RGB.") {
            Some(("lanczos", _)) => Filter::Lanczos,
            Some(("bicubic", _)) => Filter::Bicubic,
            _ => continue,
        };
        let want = pixels(stored);
        assert_eq!(resize_with(&source, want.width_px, want.height_px, filter).unwrap(), want, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 18);
}

#[test]
fn a_picture_is_prepared_as_diffusers_prepares_it() {
    let images = golden::tensors("images.safetensors");
    let got = resize(&pixels(&images["in.70x50"]), 48, 32).unwrap();
    let area = 48 * 32;
    for (i, want) in images["vae.preprocess.70x50_to_48x32"].to_f32().iter().enumerate() {
        let sample = got.rgb[i % area * 3 + i / area];
        assert_eq!(2.0 * (f32::from(sample) / 255.0) - 1.0, *want, "sample {i}");
    }
}

#[test]
fn row_37_thin_and_single_pixel_pictures_are_resized() {
    let column = Pixels { width_px: 1, height_px: 4096, rgb: vec![200; 3 * 4096] };
    assert!(resize(&column, 64, 64).unwrap().rgb.iter().all(|b| *b == 200));
    let dot = Pixels { width_px: 1, height_px: 1, rgb: vec![1, 2, 3] };
    assert!(resize(&dot, 80, 16).unwrap().rgb.chunks(3).all(|p| p == [1, 2, 3]));
}

#[test]
fn sizes_that_are_no_pictures_are_refused() {
    let dot = Pixels { width_px: 1, height_px: 1, rgb: vec![1, 2, 3] };
    for (w, h) in [(0, 4), (4, 0), (16_385, 4), (4, usize::MAX)] {
        assert!(resize(&dot, w, h).is_err(), "{w} x {h}");
    }
    let empty = Pixels { width_px: 0, height_px: 0, rgb: Vec::new() };
    assert!(resize(&empty, 4, 4).is_err());
    assert!(resize(&Pixels { rgb: vec![0; 5], ..dot }, 4, 4).is_err());
}
