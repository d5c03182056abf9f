//! Model folders that tests may spoil.

use std::fs;
use std::path::{Path, PathBuf};

use inkstone::Error;
use inkstone::weights::{Component, Loader, ModelFiles, ModelSource, ReadOptions};
use inkstone_tensor::{DType, Device};

pub(crate) const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
pub(crate) const INDEX: &str = "transformer/diffusion_pytorch_model.safetensors.index.json";

pub(crate) fn device() -> Device {
    Device::cpu(&Default::default()).unwrap()
}

pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/qwen_tiny")
}

/// A folder of the test's own that is removed at its end.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn empty(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkstone-model-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    /// A copy of the tiny golden model.
    pub(crate) fn model(name: &str) -> Self {
        let dir = Self::empty(name);
        copy_folder(&golden(), &dir.0);
        dir
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, text.replacen(from, to, 1));
    }

    pub(crate) fn open(&self) -> Result<ModelFiles, Error> {
        open(&self.0)
    }

    /// The error of opening the transformer.
    pub(crate) fn loader_error(&self) -> Error {
        self.open().unwrap().loader(Component::Transformer, &device(), DType::F32).unwrap_err()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(crate) fn open(path: &Path) -> Result<ModelFiles, Error> {
    ModelFiles::open(&ModelSource::Folder(path.to_owned()), ReadOptions::default())
}

pub(crate) fn transformer(files: &ModelFiles) -> Loader<'static> {
    files.loader(Component::Transformer, &device(), DType::F32).unwrap()
}

/// The bytes of some tensors of a loader.
pub(crate) fn sample(loader: &mut Loader) -> Vec<u8> {
    let names = ["img_in.weight", "proj_out.bias", "transformer_blocks.0.attn.norm_q.weight"];
    let all = loader.left_over();
    assert!(names.iter().all(|name| all.iter().any(|own| own == name)));
    let shapes: [&[usize]; 3] = [&[48, 64], &[64], &[24]];
    names.iter().zip(shapes).flat_map(|(name, dims)| loader.tensor(name, dims).to_bytes()).collect()
}
