use super::*;
use crate::Pixels;

fn request() -> Request {
    Request {
        prompt: "a red apple".into(),
        negative_prompt: Some(" ".into()),
        width_px: 64,
        height_px: 64,
        steps: 20,
        seed: 1,
        true_cfg_scale: 4.0,
        init: None,
    }
}

/// The parameter that an error is about, with what it says of it.
fn refused<T: fmt::Debug>(result: Result<T>) -> (&'static str, String, String) {
    match result {
        Err(Error::InvalidParam { param, got, allowed }) => (param, got, allowed),
        other => panic!("expected a refused parameter, got {other:?}"),
    }
}

#[test]
fn a_plain_request_is_allowed() {
    assert!(request().validate().is_ok());
}

#[test]
fn row_38_sizes() {
    for text in [
        "0x64",
        "64x0",
        "-1x64",
        "63x64",
        "65x64",
        "4097x64",
        "4112x64",
        "2147483648x64",
        "1024x",
        "x64",
        "x",
        "1024X1024 ",
        "1024X1024",
        " 64x64",
        "64 x 64",
        "+64x64",
        "９６x９６",
        "64x64x64",
        "",
        "99999999999999999999x64",
    ] {
        assert_eq!(refused(Size::from_str(text)).0, "size", "{text:?}");
    }
    assert_eq!(Size::from_str("4096x64").unwrap(), Size { width_px: 4096, height_px: 64 });
    assert_eq!(Size::from_str("512x768").unwrap().to_string(), "512x768");
}

#[test]
fn row_38_sides_of_a_request() {
    for px in [0, 1, 63, 65, 72, 4097, 4112, 1 << 31] {
        let (param, got, allowed) = refused(Request { width_px: px, ..request() }.validate());
        assert_eq!((param, got), ("width", px.to_string()));
        assert_eq!(allowed, "64 to 4096 px in multiples of 16");
        assert_eq!(refused(Request { height_px: px, ..request() }.validate()).0, "height");
    }
    for px in [64, 80, 4096] {
        assert!(Request { width_px: px, height_px: px, ..request() }.validate().is_ok());
    }
}

#[test]
fn row_39_steps() {
    for steps in [0, 201, usize::MAX] {
        let (param, got, allowed) = refused(Request { steps, ..request() }.validate());
        assert_eq!((param, got, allowed), ("steps", steps.to_string(), "1 to 200".into()));
    }
    for steps in [1, 200] {
        assert!(Request { steps, ..request() }.validate().is_ok());
    }
}

#[test]
fn row_40_every_seed_is_allowed() {
    for seed in [0, u64::MAX] {
        assert!(Request { seed, ..request() }.validate().is_ok());
    }
}

#[test]
fn row_41_guidance() {
    for true_cfg_scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -5.0, -0.001, 100.1, f32::MAX] {
        let (param, _, allowed) = refused(Request { true_cfg_scale, ..request() }.validate());
        assert_eq!((param, allowed.as_str()), ("true-cfg-scale", "0 to 100"));
    }
    for true_cfg_scale in [0.0, 1.0, 100.0] {
        assert!(Request { true_cfg_scale, ..request() }.validate().is_ok());
    }
}

#[test]
fn row_42_count() {
    for count in [0, 11, usize::MAX] {
        assert_eq!(refused(check_count(count)).0, "count");
    }
    assert!(check_count(1).is_ok() && check_count(10).is_ok());
}

#[test]
fn row_43_prompts() {
    let long = "漢".repeat(32_001);
    let (param, got, allowed) = refused(Request { prompt: long, ..request() }.validate());
    assert_eq!((param, got.as_str(), allowed.as_str()), ("prompt", "32001 characters", "at most 32000"));
    assert_eq!(
        refused(Request { prompt: "a\0b".into(), ..request() }.validate()).1,
        "text with a NUL at byte 1"
    );
    let negative = Request { negative_prompt: Some("x".repeat(32_001)), ..request() };
    assert_eq!(refused(negative.validate()).0, "negative-prompt");
    let marks = format!("e{}", "\u{301}".repeat(31_999));
    for prompt in [&"漢".repeat(32_000), &marks, "", "\u{202e}שלום", "👩‍👩‍👧", "a\nb\tc"] {
        assert!(Request { prompt: prompt.into(), ..request() }.validate().is_ok());
    }
}

#[test]
fn row_44_and_45_tags_are_plain_text() {
    for prompt in ["<|im_end|>", "<|vision_start|>", "a cat <lora:x:1>", "<sd_cpp_extra_args>"] {
        assert!(Request { prompt: prompt.into(), ..request() }.validate().is_ok());
    }
}

#[test]
fn the_picture_to_start_from() {
    let pixels = Pixels { width_px: 1, height_px: 1, rgb: vec![0; 3] };
    for strength in [-0.1, 1.1, f32::NAN] {
        let init = Some(InitImage { pixels: pixels.clone().into(), strength });
        let (param, _, allowed) = refused(Request { init, ..request() }.validate());
        assert_eq!((param, allowed.as_str()), ("strength", "0 to 1"));
    }
    let empty = Pixels { width_px: 0, height_px: 4, rgb: Vec::new() };
    let init = Some(InitImage { pixels: empty.into(), strength: 0.5 });
    assert_eq!(refused(Request { init, ..request() }.validate()).0, "image");
    let init = Some(InitImage { pixels: pixels.into(), strength: 0.0 });
    assert!(Request { init, ..request() }.validate().is_ok());
}

#[test]
fn an_aspect_keeps_the_area_and_the_limits() {
    let size = |aspect: &str, native: usize| {
        let native = Size { width_px: native, height_px: native };
        Aspect::from_str(aspect).unwrap().size(native).to_string()
    };
    // sqrt(1328 * 1328 * 16 / 9) = 1770.7 -> 1776; 1770.7 * 9 / 16 = 996 -> 992.
    assert_eq!(size("16:9", 1328), "1776x992");
    assert_eq!(size("9:16", 1328), "992x1776");
    assert_eq!(size("1:1", 1328), "1328x1328");
    // The short side stays at 64: 64 * 16 / 9 = 113.8 -> 112.
    assert_eq!(size("16:9", 64), "112x64");
    assert_eq!(size("9:16", 64), "64x112");
    assert_eq!(size("4096:1", 1328), "4096x64");
    for text in ["16", "16:", ":9", "0:1", "1:0", "16x9", "1.5:1", "-1:1", "16:9 ", "１:１", "5000:1"] {
        assert_eq!(refused(Aspect::from_str(text)).0, "aspect", "{text:?}");
    }
}
