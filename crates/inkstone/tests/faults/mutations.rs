//! Sound files with bytes changed at random: they are read or refused, never more. The seeds are fixed, so a failure
//! comes again. `seed` in a message is what to put into `mutated`.

use std::fs;

use inkstone_tensor::DType;

use crate::dir::{Dir, WEIGHTS, device, golden};
use inkstone::weights::Component;

/// Changes of a file that are tried.
const ROUNDS: u64 = 300;

/// A 64-bit linear congruential generator; its upper bits.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap()
}

/// The file with some of its first `head` bytes changed, or cut short.
fn mutated(file: &[u8], head: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = file.to_vec();
    for _ in 0..=random(&mut state) % 4 {
        let at = random(&mut state) % head.min(out.len());
        match random(&mut state) % 4 {
            0 => out[at] ^= 1 << (random(&mut state) % 8),
            1 => out[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'}'][random(&mut state) % 8],
            2 => {
                // A length or offset that lies.
                let wide = [0u64, 1, 1 << 31, 1 << 32, 1 << 62, u64::MAX][random(&mut state) % 6];
                let end = out.len().min(at + 8);
                out[at..end].copy_from_slice(&wide.to_le_bytes()[..end - at]);
            }
            _ => out.truncate(at.max(1)),
        }
    }
    out
}

/// Opens every mutation of a file as a part of a model.
fn try_all(name: &str, part: &str, component: Component, file: &[u8], head: usize) {
    let dir = Dir::model(&format!("mutations-{name}"));
    if part.ends_with(".gguf") {
        fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    }
    let mut refused = 0;
    for seed in 0..ROUNDS {
        dir.write(part, mutated(file, head, seed));
        let read = || {
            let files = dir.open()?;
            files.tokenizer()?;
            files.loader(component, &device(), DType::F32).map(drop)
        };
        if let Err(error) = read() {
            assert!(error.code().starts_with("INK-03"), "{name}, seed {seed}: {error}");
            refused += 1;
        }
    }
    // A change may fall into a value; most break a rule.
    assert!(refused > ROUNDS / 4, "{name}: {refused} of {ROUNDS} refused");
}

#[test]
fn gguf_with_changed_bytes() {
    let file = fs::read(golden().join("../gguf/qwen_tiny_q4_K.gguf")).unwrap();
    try_all("gguf", "transformer/a.gguf", Component::Transformer, &file, 6_000);
    let file = fs::read(golden().join("../formats/text_encoder.gguf")).unwrap();
    try_all("gguf-pairs", "transformer/a.gguf", Component::Transformer, &file, 400);
}

#[test]
fn safetensors_with_changed_bytes() {
    let file = fs::read(golden().join(WEIGHTS)).unwrap();
    try_all("safetensors", WEIGHTS, Component::Transformer, &file, 9_000);
    let file = fs::read(golden().join("../formats/transformer_mflux.safetensors")).unwrap();
    try_all("packed", WEIGHTS, Component::Transformer, &file, 9_000);
}

#[test]
fn index_config_and_tokenizer_with_changed_bytes() {
    for part in [
        "model_index.json",
        "transformer/config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
    ] {
        let Ok(file) = fs::read(golden().join(part)) else { panic!("{part}") };
        try_all(&part.replace('/', "-"), part, Component::Vae, &file, 20_000);
    }
    let sharded =
        br#"{"metadata":{},"weight_map":{"img_in.weight":"a.safetensors","img_in.bias":"b.safetensors"}}"#;
    try_all("index", crate::dir::INDEX, Component::Transformer, sharded, sharded.len());
}
