use std::path::PathBuf;

use super::*;
use crate::memory::Limit;
use crate::pipeline::forecast::Setting;
use crate::pipeline::{OpenOptions, Precision};
use crate::weights::{ModelSource, Parts};

fn request(width_px: usize, height_px: usize) -> Request {
    Request {
        prompt: "a cat".into(),
        negative_prompt: None,
        width_px,
        height_px,
        steps: 1,
        seed: 0,
        true_cfg_scale: 1.0,
        init: None,
    }
}

/// What a refusal may say about the weights.
fn weights_flags(source: &ModelSource, options: &OpenOptions) -> Vec<String> {
    let pipeline = Pipeline::open(source, options).unwrap();
    pipeline.smaller_weights(pipeline.networks.arithmetic.form).into_iter().map(|(flags, _)| flags).collect()
}

/// Weights that are quantized while they are loaded cannot be streamed: the cure is to save them first, and is spelled
/// out where there is a folder to convert.
#[test]
fn smaller_weights_are_named_with_what_to_do() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/qwen_tiny");
    let root = quoted(folder.canonicalize().unwrap().to_str().unwrap());
    let command = |q: &str| format!("inkstone convert {root} -q {q} -o qwen_tiny-{q}, then -m qwen_tiny-{q}");
    let file = folder.join("../formats/transformer_fp8.safetensors");
    let parts = Parts { transformer: Some(file.clone()), ..Parts::default() };
    let pieces = ModelSource::Pieces { folder: folder.clone(), parts };
    let folder = ModelSource::Folder(folder);
    let stream = OpenOptions { offload: Offload::Stream, ..OpenOptions::default() };
    assert_eq!(weights_flags(&folder, &stream), ["-q q8", "-q q4", &command("q8"), &command("q4")]);
    let loaded = OpenOptions { quantization: Some(Quantization::Q4), ..stream.clone() };
    assert_eq!(weights_flags(&folder, &loaded), [command("q4")]);
    let file = quoted(file.to_str().unwrap());
    let with_file = format!("{root} --transformer {file} -q q4 -o qwen_tiny-q4, then -m qwen_tiny-q4 alone");
    assert_eq!(weights_flags(&pieces, &loaded), [format!("inkstone convert {with_file}")]);
    let more = OpenOptions { quantization: Some(Quantization::Q8), ..OpenOptions::default() };
    assert_eq!(weights_flags(&folder, &more), ["-q q4", &command("q8"), &command("q4")]);
    let tiny = "inkstone convert inkstone-tiny -q q4 -o inkstone-tiny-q4, then -m inkstone-tiny-q4";
    assert_eq!(weights_flags(&ModelSource::Embedded, &loaded), [tiny]);
}

/// What a converted folder can do beyond the model is named with it, and the sizes of pictures behind all else.
#[test]
fn changes_are_combined() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/qwen_tiny");
    let options =
        OpenOptions { offload: Offload::Encoder, vae_tiling: VaeTiling::Off, ..OpenOptions::default() };
    let pipeline = Pipeline::open(&ModelSource::Folder(folder), &options).unwrap();
    let ours = Candidate {
        kind: Kind::Offload,
        flags: String::new(),
        request: request(512, 256),
        next: &[],
        offload: Offload::Encoder,
        tiling: VaeTiling::Off,
        arithmetic: pipeline.networks.arithmetic,
    };
    let ends = |candidates: Vec<Candidate<'_>>| -> Vec<String> {
        let flags = candidates.into_iter().map(|candidate| candidate.flags);
        flags.map(|flags| flags.rsplit(" -o qwen_tiny-").next().unwrap().to_owned()).collect()
    };
    let dtype = (ours.arithmetic.activations == DType::F32).then_some("--dtype bf16");
    let mut want = vec!["--offload stream", "--vae-tiling auto"];
    want.extend(dtype);
    want.extend(["-q q8", "-q q4", "q8, then -m qwen_tiny-q8", "q8, then -m qwen_tiny-q8 --offload stream"]);
    want.extend(["q4, then -m qwen_tiny-q4", "q4, then -m qwen_tiny-q4 --offload stream"]);
    assert_eq!(ends(pipeline.settings(&ours)), want);
    let together = pipeline.together(&ours);
    let smallest = sizes(&together[3]).pop().unwrap();
    assert_eq!((smallest.request.width_px, smallest.request.height_px), (64, 64));
    let want = [
        "--offload stream --vae-tiling auto",
        "-q q8 --offload stream --vae-tiling auto",
        "-q q4 --offload stream --vae-tiling auto",
        "q8, then -m qwen_tiny-q8 --offload stream --vae-tiling auto",
        "q4, then -m qwen_tiny-q4 --offload stream --vae-tiling auto",
    ];
    assert_eq!(ends(together), want);
    let want = "q8, then -m qwen_tiny-q8 --offload stream --vae-tiling auto --size 64x64";
    assert_eq!(ends(vec![smallest]), [want]);
}

/// Where neither weights nor the picture can be smaller, every setting that suffices is named by itself.
#[test]
fn other_settings_of_offload_are_named_too() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data");
    let parts = Parts {
        transformer: Some(golden.join("gguf/qwen_tiny_q4_K.gguf")),
        text_encoder: Some(golden.join("formats/text_encoder.gguf")),
        ..Parts::default()
    };
    let pieces = ModelSource::Pieces { folder: golden.join("qwen_tiny"), parts };
    let options = OpenOptions { offload: Offload::None, ..OpenOptions::default() };
    let pipeline = Pipeline::open(&pieces, &options).unwrap();
    let request = request(64, 64);
    let encoder = Setting { precision: Precision::Auto, form: Form::Stored, offload: Offload::Encoder };
    let needed = pipeline.forecast_with(&request, encoder).unwrap().memory.resident_bytes();
    // So small a model gains less than the slack: it is asked what else fits though it would.
    let limit = Limit { bytes: needed + SLACK_BYTES, of: LimitOf::MaxMemory };
    let limits = Limits { resident: Some(limit), ..Limits::default() };
    let shortage = Shortage { needed_bytes: limit.bytes + 1, limit, is_least: false };
    let refusal = pipeline.refusal(&[request], shortage, &limits);
    let flags: Vec<&str> = refusal.alternatives.iter().map(|other| other.flags.as_str()).collect();
    assert_eq!(flags[..2], ["--offload encoder", "--offload stream"], "{flags:?}");
    assert!(flags.len() == 3 && flags[2].starts_with("--max-memory"), "{flags:?}");
}

#[test]
fn names_are_quoted_where_a_shell_needs_it() {
    assert_eq!(quoted("models/Qwen-Image_2.0"), "models/Qwen-Image_2.0");
    assert_eq!(quoted("my models"), "'my models'");
    assert_eq!(quoted("it's"), r"'it'\''s'");
}
