//! The small model inside the program.

mod packed;

use std::sync::OnceLock;

/// Name of the model in messages and pictures.
pub(super) const NAME: &str = "inkstone-tiny";
/// What tensors want, so that they are used where they lie.
const ALIGN_BYTES: usize = 64;

/// Weights as `build/main.rs` packed them; unpacked when they are first asked for, and kept.
struct Weights {
    name: &'static str,
    packed: &'static [u8],
    unpacked: OnceLock<&'static [u8]>,
}

macro_rules! weights {
    ($name:literal, $packed:literal) => {
        Weights {
            name: $name,
            packed: include_bytes!(concat!(env!("OUT_DIR"), "/", $packed)),
            unpacked: OnceLock::new(),
        }
    };
}

static WEIGHTS: [Weights; 3] = [
    weights!("text_encoder/model.safetensors", "text_encoder.packed"),
    weights!("transformer/diffusion_pytorch_model.safetensors", "transformer.packed"),
    weights!("vae/diffusion_pytorch_model.safetensors", "vae.packed"),
];

macro_rules! json {
    ($name:literal) => {
        ($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/", $name)))
    };
}

static JSON: [(&str, &[u8]); 6] = [
    json!("model_index.json"),
    json!("scheduler/scheduler_config.json"),
    json!("text_encoder/config.json"),
    json!("tokenizer/tokenizer.json"),
    json!("transformer/config.json"),
    json!("vae/config.json"),
];

/// The file of this name.
pub(super) fn file(name: &str) -> Option<&'static [u8]> {
    if let Some(weights) = WEIGHTS.iter().find(|weights| weights.name == name) {
        return Some(weights.unpacked.get_or_init(|| unpacked(weights.packed)));
    }
    JSON.iter().find(|(own, _)| *own == name).map(|(_, bytes)| *bytes)
}

fn unpacked(file: &[u8]) -> &'static [u8] {
    let size = packed::size_bytes(file);
    let room = vec![0; size + ALIGN_BYTES].leak();
    let start = room.as_ptr().align_offset(ALIGN_BYTES);
    let out = &mut room[start..start + size];
    packed::unpack(file, out);
    out
}

#[cfg(test)]
mod tests {
    use super::{JSON, WEIGHTS, file};

    #[test]
    fn it_takes_at_most_20_mb_of_the_program() {
        let weights: usize = WEIGHTS.iter().map(|weights| weights.packed.len()).sum();
        let json: usize = JSON.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(weights + json <= 20_000_000, "{weights} + {json}");
    }

    #[test]
    fn its_weights_are_those_of_the_folder() {
        for name in WEIGHTS.iter().map(|weights| weights.name) {
            let path = format!("{}/../../models/tiny/{name}", env!("CARGO_MANIFEST_DIR"));
            assert!(file(name).unwrap() == std::fs::read(path).unwrap(), "{name}");
        }
    }
}
