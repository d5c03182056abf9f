//! Reads the fixtures of `golden/data` for unit tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A tensor of a fixture, as stored.
pub(crate) struct Stored {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Stored {
    /// The values of an F32 or BF16 tensor.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        match self.dtype.as_str() {
            "F32" => self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            "BF16" => self
                .bytes
                .chunks_exact(2)
                .map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32())
                .collect(),
            other => panic!("{other} is not a float type of the fixtures"),
        }
    }
}

/// A file under `golden/data`.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

/// The bytes of a file under `golden/data`.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// A JSON file under `golden/data`.
pub(crate) fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&bytes(name)).unwrap()
}

/// All tensors of a safetensors file under `golden/data`.
pub(crate) fn tensors(name: &str) -> BTreeMap<String, Stored> {
    let file = bytes(name);
    let header_bytes = usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + header_bytes]).unwrap();
    let data = &file[8 + header_bytes..];
    let size = |v: &serde_json::Value| usize::try_from(v.as_u64().unwrap()).unwrap();
    header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| {
            let stored = Stored {
                dtype: entry["dtype"].as_str().unwrap().to_owned(),
                shape: entry["shape"].as_array().unwrap().iter().map(size).collect(),
                bytes: data[size(&entry["data_offsets"][0])..size(&entry["data_offsets"][1])].to_vec(),
            };
            (name.clone(), stored)
        })
        .collect()
}
