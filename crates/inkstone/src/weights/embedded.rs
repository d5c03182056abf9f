//! The small model inside the program.

mod packed;

use std::sync::OnceLock;

use inkstone_tensor::with_room;

use crate::Result;

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

/// The file of this name, if it is none of weights.
pub(super) fn file(name: &str) -> Option<&'static [u8]> {
    JSON.iter().find(|(own, _)| *own == name).map(|(_, bytes)| *bytes)
}

/// The file of weights of this name.
///
/// # Errors
/// [`inkstone_tensor::Error::OutOfMemory`].
pub(super) fn weights(name: &str) -> Result<Option<&'static [u8]>> {
    let Some(weights) = WEIGHTS.iter().find(|weights| weights.name == name) else { return Ok(None) };
    if let Some(unpacked) = weights.unpacked.get() {
        return Ok(Some(unpacked));
    }
    let room = with_room(packed::size_bytes(weights.packed) + ALIGN_BYTES)?;
    Ok(Some(weights.unpacked.get_or_init(|| unpacked(weights.packed, room))))
}

/// Bytes that unpacking will take of what was not unpacked yet.
pub(super) fn packed_bytes() -> usize {
    let packed = WEIGHTS.iter().filter(|weights| weights.unpacked.get().is_none());
    packed.map(|weights| packed::size_bytes(weights.packed) + ALIGN_BYTES).sum()
}

/// The bytes of a packed file, in a list that has room for them.
fn unpacked(file: &[u8], mut room: Vec<u8>) -> &'static [u8] {
    let size = packed::size_bytes(file);
    room.resize(size + ALIGN_BYTES, 0);
    let room = room.leak();
    let start = room.as_ptr().align_offset(ALIGN_BYTES);
    let out = &mut room[start..start + size];
    packed::unpack(file, out);
    out
}

#[cfg(test)]
mod tests {
    use super::{JSON, WEIGHTS, weights};

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
            assert!(weights(name).unwrap().unwrap() == std::fs::read(path).unwrap(), "{name}");
        }
    }
}
