use super::{format, parse};
use crate::codec::Metadata;

#[test]
fn the_text_of_the_web_ui_is_read() {
    let text = "a cat, masterpiece\nsecond line\nNegative prompt: blurry, \"low\"\nSteps: 30, Sampler: DPM++ 2M, \
        CFG scale: 7.5, Seed: 4294967296, Size: 640x960, Model hash: abc, Model: \"v1, pruned: \\\"x\\\"\", \
        Denoising strength: 0.4, Lora hashes: \"a: b, c: d\", Version: v1.9";
    let want = Metadata {
        prompt: Some("a cat, masterpiece\nsecond line".into()),
        negative_prompt: Some("blurry, \"low\"".into()),
        steps: Some(30),
        true_cfg_scale: Some(7.5),
        seed: Some(1 << 32),
        width_px: Some(640),
        height_px: Some(960),
        model: Some("v1, pruned: \"x\"".into()),
        strength: Some(0.4),
        ..Metadata::default()
    };
    assert_eq!(parse(text), want);
}

#[test]
fn half_a_text_gives_what_is_there() {
    assert_eq!(parse("only words").prompt.as_deref(), Some("only words"));
    assert_eq!(parse("Negative prompt: b\nSteps: 4").negative_prompt.as_deref(), Some("b"));
    assert_eq!(parse("Steps: 4, Size: 12").steps, Some(4));
    assert_eq!(parse("x\nSteps: 4, Size: 12").width_px, None);
    assert_eq!(parse(""), Metadata { prompt: Some(String::new()), ..Metadata::default() });
}

#[test]
fn hostile_settings_are_left_out() {
    let text = "x\nSteps: -3, CFG scale: NaN, Seed: 99999999999999999999999, Denoising strength: inf, \
        Size: 1x2x3, Model: \"never ends";
    let got = parse(text);
    assert_eq!(
        (got.steps, got.true_cfg_scale, got.seed, got.strength, got.width_px),
        (None, None, None, None, None)
    );
    let _ = parse(&"Steps: ".repeat(100_000));
    let _ = parse(&format!("Steps: {}", "\"\\".repeat(100_000)));
}

#[test]
fn what_is_written_is_read_back() {
    let metadata = Metadata {
        prompt: Some("a cat: on, a \"mat\"".into()),
        negative_prompt: Some(" ".into()),
        steps: Some(20),
        true_cfg_scale: Some(4.0),
        seed: Some(u64::MAX),
        width_px: Some(512),
        height_px: Some(768),
        model: Some("folder: one, two".into()),
        strength: Some(0.6),
        ..Metadata::default()
    };
    assert_eq!(parse(&format(&metadata)), metadata);
    let text = format(&Metadata { version: Some("0.1.0".into()), ..metadata });
    assert!(text.ends_with("Denoising strength: 0.6, Version: Inkstone 0.1.0"), "{text}");
    assert!(
        text.contains(
            "\nSteps: 20, Sampler: Euler, CFG scale: 4, Seed: 18446744073709551615, Size: 512x768, "
        )
    );
}
