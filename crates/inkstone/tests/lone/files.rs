//! A folder of the test's own, and files of weights in other programs' formats.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use inkstone::weights::safetensors;
use inkstone_tensor::{Device, Tensor};

/// A folder that is removed in the end.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkstone-lone-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

pub(crate) fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap()
}

pub(crate) fn device() -> Device {
    Device::cpu(&Default::default()).unwrap()
}

/// Tensors under other names, as safetensors.
pub(crate) fn renamed(tensors: &BTreeMap<String, Tensor>, name: impl Fn(&str) -> String) -> Vec<u8> {
    let tensors = tensors.iter().map(|(old, tensor)| (name(old), tensor.clone())).collect();
    safetensors::serialize(&tensors, &BTreeMap::new())
}

/// The head of a GGUF file, pair by pair.
#[derive(Default)]
pub(crate) struct Gguf {
    pairs: Vec<u8>,
    count: u64,
}

impl Gguf {
    const U32: u32 = 4;
    const I32: u32 = 5;
    const TEXT: u32 = 8;
    const LIST: u32 = 9;
    const BF16: u32 = 30;

    fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs.extend(text(key));
        self.pairs.extend(kind.to_le_bytes());
        self.pairs.extend(value);
        self.count += 1;
        self
    }

    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.pair(key, Self::U32, &value.to_le_bytes())
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.pair(key, Self::TEXT, &text(value))
    }

    pub(crate) fn texts(self, key: &str, values: &[String]) -> Self {
        let head = [&Self::TEXT.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        let values: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
        self.pair(key, Self::LIST, &[head, values].concat())
    }

    pub(crate) fn numbers(self, key: &str, values: &[i32]) -> Self {
        let head = [&Self::I32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.pair(key, Self::LIST, &[head, values].concat())
    }

    /// The file, with bf16 tensors of one or two dimensions behind the head.
    pub(crate) fn file(self, tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
        const ALIGNMENT: usize = 32;
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((tensors.len() as u64).to_le_bytes());
        file.extend(self.count.to_le_bytes());
        file.extend(self.pairs);
        let mut data = Vec::new();
        for (name, tensor) in tensors {
            let dims = tensor.shape().dims();
            file.extend(text(name));
            file.extend(u32::try_from(dims.len()).unwrap().to_le_bytes());
            dims.iter().rev().for_each(|dim| file.extend((*dim as u64).to_le_bytes()));
            file.extend(Self::BF16.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(tensor.to_bytes());
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(data);
        file
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}
