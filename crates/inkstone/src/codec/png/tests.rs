use super::{Metadata, write};
use crate::Pixels;
use crate::codec::read_image;

fn pixels() -> Pixels {
    let rgb = (0..3 * 37 * 11_u32).map(|i| u8::try_from(i * i % 251).unwrap()).collect();
    Pixels { width_px: 37, height_px: 11, rgb }
}

#[test]
fn pixels_come_back_and_bytes_are_always_the_same() {
    let metadata = Metadata { prompt: Some("x".into()), ..Metadata::default() };
    for metadata in [None, Some(&metadata)] {
        let file = write(&pixels(), metadata).unwrap();
        assert_eq!(read_image(&file).unwrap(), pixels());
        assert_eq!(write(&pixels(), metadata).unwrap(), file);
    }
}

#[test]
fn texts_say_how_the_picture_was_made() {
    let metadata = Metadata { prompt: Some("nul \0 ünïcode".into()), ..Metadata::default() };
    let file = write(&pixels(), Some(&metadata)).unwrap();
    let has = |text: &str| file.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(has("parameters\0\0\0\0\0nul \u{fffd} ünïcode"));
    assert!(has("inkstone\0\0\0\0\0{\"prompt\":\"nul \\u0000 ünïcode\"}"));
    assert!(has("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"));
    let plain = write(&pixels(), None).unwrap();
    assert!(!plain.windows(4).any(|w| w == b"iTXt"));
}

#[test]
fn pixels_that_are_no_picture_are_refused() {
    for broken in [
        Pixels { width_px: 0, ..pixels() },
        Pixels { height_px: 12, ..pixels() },
        Pixels { width_px: usize::MAX, ..pixels() },
        Pixels { rgb: Vec::new(), ..pixels() },
    ] {
        assert!(write(&broken, None).is_err());
    }
}
