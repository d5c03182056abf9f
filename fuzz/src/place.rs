//! A model's folder on disk that inputs may spoil.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use inkstone::Result;
use inkstone::weights::{ModelFiles, ModelSource, Parts, ReadOptions};
use inkstone_tensor::{Device, cpu};

/// A copy of the tiny golden model, removed in the end.
pub struct Place {
    root: PathBuf,
    /// What an input put there, and what was there before.
    changed: Vec<(PathBuf, Option<Vec<u8>>)>,
    pub(crate) device: Device,
}

/// The project's folder with fixtures.
pub(crate) fn golden() -> PathBuf {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.find_map(|folder| fs::canonicalize(folder.join("golden/data")).ok()).expect("golden/data")
}

impl Place {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("inkstone-fuzz-{}-{number}", std::process::id()));
        copy(&golden().join("qwen_tiny"), &root);
        let root = fs::canonicalize(root).expect("a folder");
        let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).expect("a processor");
        Self { root, changed: Vec::new(), device }
    }

    /// Where a file of the folder is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Puts a file there until [`Place::restore`].
    pub(crate) fn write(&mut self, name: &str, content: &[u8]) {
        self.change(name, Some(content));
    }

    /// Takes a file away until [`Place::restore`].
    pub(crate) fn remove(&mut self, name: &str) {
        self.change(name, None);
    }

    fn change(&mut self, name: &str, content: Option<&[u8]>) {
        let path = self.path(name);
        if !self.changed.iter().any(|(changed, _)| *changed == path) {
            self.changed.push((path.clone(), fs::read(&path).ok()));
        }
        put(&path, content);
    }

    /// Undoes all changes.
    pub(crate) fn restore(&mut self) {
        for (path, content) in self.changed.drain(..) {
            put(&path, content.as_deref());
        }
    }

    /// Opens the model with these parts in place of its own.
    pub(crate) fn open(&self, parts: Parts) -> Result<ModelFiles> {
        let source = ModelSource::Pieces { folder: self.root.clone(), parts };
        ModelFiles::open(&source, ReadOptions::default())
    }

    /// Reads a file of the folder as a model without one: alone, and as each part with the folders of the others.
    pub(crate) fn lone(&self, name: &str) {
        let part = |name: &str| Some(self.path(name));
        let (transformer, text_encoder, vae) = (part("transformer"), part("text_encoder"), part("vae"));
        let whole = Parts { transformer, text_encoder, vae, ..Parts::default() };
        for parts in [
            Parts::default(),
            Parts { transformer: None, ..whole.clone() },
            Parts { text_encoder: None, ..whole.clone() },
            Parts { vae: None, ..whole },
        ] {
            let source = ModelSource::Pieces { folder: self.path(name), parts };
            if let Ok(files) = ModelFiles::open(&source, ReadOptions::default()) {
                let _ = files.tokenizer();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn put(path: &Path, content: Option<&[u8]>) {
    match content {
        Some(content) => fs::write(path, content).expect("a file"),
        None => drop(fs::remove_file(path)),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a file");
        }
    }
}
