use inkstone::models::qwen25_vl::{Config, TextEncoder};
use inkstone::progress::Context;
use inkstone_tensor::{DType, Device};

use crate::padding;
use crate::taps::{self, F32_TOLERANCE, Fixture, Recorder, bf16_bound};

fn encoder(threads: usize, activations: DType) -> TextEncoder {
    encoder_on(&taps::device(threads), activations)
}

fn encoder_on(device: &Device, activations: DType) -> TextEncoder {
    let config = Config::from_json(&taps::text("qwen_tiny/text_encoder/config.json")).unwrap();
    let weights = "qwen_tiny/text_encoder/model.safetensors";
    let mut loader = taps::loader(weights, device, activations);
    let encoder = TextEncoder::load(&config, &mut loader).unwrap();
    loader.finish().unwrap();
    encoder
}

/// The rows of a fixture `[batch, length]` that are tokens and not padding.
fn valid(fixture: &Fixture) -> Vec<bool> {
    fixture.integers("attention_mask").unwrap().iter().map(|m| *m != 0).collect()
}

fn prompts(fixture: &Fixture) -> Vec<Vec<u32>> {
    let ids = fixture.integers("input_ids").unwrap();
    let length = fixture.dims("input_ids")[1];
    let valid = valid(fixture);
    let tokens = |(ids, valid): (&[i64], &[bool])| {
        let tokens = ids.iter().zip(valid).filter(|(_, valid)| **valid);
        tokens.map(|(id, _)| u32::try_from(*id).unwrap()).collect()
    };
    ids.chunks(length).zip(valid.chunks(length)).map(tokens).collect()
}

fn check(name: &str, activations: DType, allowed: impl Fn(&str) -> f32) {
    let (fixture, taps) = (Fixture::open(name), Recorder::default());
    encoder(2, activations).forward(&prompts(&fixture), &taps.context()).unwrap();
    let valid = valid(&fixture);
    let arrange = |name: &str, want: &[f32]| {
        let cols = *fixture.dims(name).last().unwrap();
        let rows = want.chunks(cols).zip(&valid).filter(|(_, valid)| **valid);
        rows.flat_map(|(row, _)| row.iter().copied()).collect()
    };
    taps.compare(&format!("{name} {activations}"), &fixture, &["prompt_embeds"], arrange, allowed);
}

/// Roundings between the ids and a tap: norm, projection, rotation, weights and result of the attention, norm, two
/// projections and their product in each layer.
fn roundings(name: &str) -> u8 {
    let layers: u8 = name.trim_start_matches("hidden.").parse().unwrap();
    9 * (layers + 1)
}

#[test]
fn single_f32() {
    check("qwen_te_single", DType::F32, |_| F32_TOLERANCE);
}

#[test]
fn batch_f32() {
    check("qwen_te_batch2", DType::F32, |_| F32_TOLERANCE);
}

#[test]
fn batch_bf16() {
    check("qwen_te_batch2", DType::Bf16, |tap| bf16_bound(roundings(tap)));
}

#[test]
fn same_bytes_for_any_threads_and_batch() {
    let prompts = prompts(&Fixture::open("qwen_te_batch2"));
    for activations in [DType::F32, DType::Bf16] {
        let encode = |threads: usize, prompts: &[Vec<u32>]| {
            encoder(threads, activations).forward(prompts, &Context::default()).unwrap().to_bytes()
        };
        let both = encode(1, &prompts);
        assert!(both == encode(2, &prompts), "2 threads, {activations}");
        assert!(both == encode(3, &prompts), "3 threads, {activations}");
        let solo = [encode(2, &prompts[..1]), encode(2, &prompts[1..])].concat();
        assert!(both == solo, "batch of two, {activations}");
    }
}

#[test]
fn padded_rows_change_nothing() {
    let prompts = prompts(&Fixture::open("qwen_te_batch2"));
    for activations in [DType::F32, DType::Bf16] {
        let encode =
            |encoder: TextEncoder| encoder.forward(&prompts, &Context::default()).unwrap().to_bytes();
        let plain = encode(encoder(2, activations));
        assert!(plain == encode(encoder_on(&padding::device(), activations)), "{activations}");
    }
}

#[test]
fn both_layouts_of_names_give_the_same() {
    let prompts = prompts(&Fixture::open("qwen_te_single"));
    let device = taps::device(2);
    let file = inkstone::weights::SafeTensors::open(
        &taps::path("qwen_tiny/text_encoder/model.safetensors"),
        &device,
        inkstone::weights::Residence::Mapped,
    )
    .unwrap();
    let rename = |name: String| match name.split_once('.') {
        Some(("model", rest)) => format!("model.language_model.{rest}"),
        _ => name,
    };
    let tensors = file.tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect();
    let mut loader = inkstone::weights::Loader::new("golden", &device, DType::F32, tensors);
    let config = Config::from_json(&taps::text("qwen_tiny/text_encoder/config.json")).unwrap();
    let renamed = TextEncoder::load(&config, &mut loader).unwrap();
    loader.finish().unwrap();
    let ctx = Context::default();
    let want = encoder(2, DType::F32).forward(&prompts, &ctx).unwrap().to_bytes();
    assert!(renamed.forward(&prompts, &ctx).unwrap().to_bytes() == want);
}

#[test]
fn an_id_beyond_the_vocabulary_is_an_error() {
    assert!(encoder(1, DType::F32).forward(&[vec![512]], &Context::default()).is_err());
}
