use std::path::PathBuf;

use super::*;
use crate::pipeline::OpenOptions;
use crate::weights::{ModelSource, Parts};

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
    let resident = OpenOptions { offload: Offload::None, ..OpenOptions::default() };
    assert_eq!(weights_flags(&folder, &resident), ["-q q8", "-q q4"], "nothing is streamed");
    assert_eq!(weights_flags(&ModelSource::Embedded, &stream), ["-q q8", "-q q4"], "no folder");
}

#[test]
fn names_are_quoted_where_a_shell_needs_it() {
    assert_eq!(quoted("models/Qwen-Image_2.0"), "models/Qwen-Image_2.0");
    assert_eq!(quoted("my models"), "'my models'");
    assert_eq!(quoted("it's"), r"'it'\''s'");
}
