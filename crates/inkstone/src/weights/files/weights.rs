//! Where a model's weights are, and what a folder made of them needs beside them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use inkstone_tensor::disk_read_speed;

use super::{Home, ModelFiles};
use crate::error::Found;
use crate::weights::folder::Folder;
use crate::weights::shards::Shards;
use crate::weights::{Component, MODEL_INDEX, Parts, embedded, identify};
use crate::{Error, Result};

/// A file of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WeightFile {
    /// On the disk, links followed.
    OnDisk(PathBuf),
    /// Inside the program, under the name that it has in a model's folder.
    Embedded(String, &'static [u8]),
}

impl ModelFiles {
    /// The files of a component's weights: those that were given for it, else those of the model's folder; `None` of a
    /// model that is in none.
    pub(super) fn shards(&self, component: Component) -> Result<Option<Shards>> {
        Ok(match (self.parts.of(component), &self.home) {
            (Some(path), _) if path.is_dir() => {
                let shards = Shards::find_in(&Folder::open(path)?, ".", component);
                Some(shards.map_err(|error| without_weights(error, path, component))?)
            }
            (Some(path), _) => Some(Shards::named(path)?),
            (None, Home::Folder(folder)) => Some(Shards::find(folder, component)?),
            (None, _) => None,
        })
    }

    /// Whether what was named for weights is there, whatever else is missing.
    ///
    /// # Errors
    /// [`Error::ModelRead`], a folder without weights.
    pub(super) fn check_named(&self) -> Result<()> {
        for component in Component::ALL {
            if let Some(path) = self.parts.of(component) {
                path.metadata().map_err(|source| Error::ModelRead { path: path.to_owned(), source })?;
                self.shards(component)?;
            }
        }
        Ok(())
    }

    /// The files on the disk of a component's weights.
    pub(super) fn weight_paths(&self, component: Component) -> Result<Vec<PathBuf>> {
        Ok(self.shards(component)?.map_or(Vec::new(), |shards| shards.files))
    }

    /// The files of a component's weights; none of random ones.
    pub(crate) fn weight_files(&self, component: Component) -> Result<Vec<WeightFile>> {
        if let Home::Embedded = self.home {
            let name = component.weights_name();
            let bytes = embedded::weights(&name)?;
            return Ok(bytes.map(|bytes| WeightFile::Embedded(name, bytes)).into_iter().collect());
        }
        Ok(self.weight_paths(component)?.into_iter().map(WeightFile::OnDisk).collect())
    }

    /// The files of a component's weights with the names that they have in a folder of another model, an index among them;
    /// `None` if they hold other components too, or lie on no disk.
    pub(crate) fn weight_copies(&self, component: Component) -> Result<Option<Vec<(String, PathBuf)>>> {
        let Some(shards) = self.shards(component)? else { return Ok(None) };
        for other in Component::ALL.into_iter().filter(|other| *other != component) {
            if self.weight_paths(other)?.iter().any(|path| shards.files.contains(path)) {
                return Ok(None);
            }
        }
        let in_folder = |name: &str| format!("{}/{name}", component.folder());
        let Some((index, names)) = shards.listed() else {
            let [file] = shards.files.as_slice() else { return Ok(None) };
            let ending = if identify::is_gguf(file) { "gguf" } else { "safetensors" };
            let name = format!("{}.{ending}", component.weights_stem());
            return Ok(Some(vec![(in_folder(&name), file.clone())]));
        };
        let index_name = format!("{}.safetensors.index.json", component.weights_stem());
        let index = index.map(|index| (in_folder(&index_name), index.to_owned()));
        let files = names.iter().map(|name| in_folder(name)).zip(shards.files.iter().cloned());
        Ok(Some(index.into_iter().chain(files).collect()))
    }

    /// Bytes of all weights on disk; 0 for models that are not there.
    ///
    /// # Errors
    /// Weights that are missing or outside of the folder.
    pub fn weight_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for component in Component::ALL {
            for path in self.weight_paths(component)? {
                let source = |source| Error::ModelRead { path: path.clone(), source };
                bytes += std::fs::metadata(&path).map_err(source)?.len();
            }
        }
        Ok(bytes)
    }

    /// Bytes of memory that opening the weights of the model inside the program will take, where it is that one.
    pub(crate) fn packed_bytes(&self) -> usize {
        if matches!(self.home, Home::Embedded) { embedded::packed_bytes() } else { 0 }
    }

    /// Bytes a second that the disk gives of the largest file of weights, past the system's cache; takes a second at most.
    /// `None` for a model that is in no files, or too small, and where it cannot be measured.
    pub(crate) fn read_speed(&self) -> Option<f64> {
        const MOST_BYTES: u64 = 256 << 20;
        const MOST: Duration = Duration::from_secs(1);
        let paths = Component::ALL.into_iter().filter_map(|component| self.weight_paths(component).ok());
        let size = |path: &PathBuf| path.metadata().map_or(0, |found| found.len());
        disk_read_speed(&paths.flatten().max_by_key(size)?, MOST_BYTES, MOST)
    }

    /// The folder and the files that a new folder must not take the place of, links followed.
    pub(crate) fn places(&self) -> Vec<PathBuf> {
        let parts = Component::ALL.map(|component| self.parts.of(component));
        let parts = parts.into_iter().flatten().chain(self.parts.tokenizer.as_deref());
        let parts = parts.filter_map(|path| path.canonicalize().ok());
        self.folder().map(|folder| folder.root().to_owned()).into_iter().chain(parts).collect()
    }

    /// What names this model to `inkstone convert`: the folder, and flags with their values; and what the new folder may be
    /// called. `None` for random weights, and for a folder without an index, which not all can be made of.
    pub(crate) fn convert_words(&self) -> Option<(Vec<String>, String)> {
        let (mut words, mut name) = (Vec::new(), "model".to_owned());
        match &self.home {
            Home::Random(_) => return None,
            Home::Embedded => {
                words.push(embedded::NAME.to_owned());
                name = embedded::NAME.to_owned();
            }
            Home::Files => {}
            Home::Folder(folder) => {
                folder.find(MODEL_INDEX).ok().flatten()?;
                words.push(folder.root().to_string_lossy().into_owned());
                name = folder.model_name();
            }
        }
        let Parts { text_encoder, transformer, vae, tokenizer } = &self.parts;
        for (flag, path) in [
            ("--transformer", transformer),
            ("--text-encoder", text_encoder),
            ("--vae", vae),
            ("--tokenizer", tokenizer),
        ] {
            let path = path.iter().map(|path| path.to_string_lossy().into_owned());
            words.extend(path.flat_map(|path| [flag.to_owned(), path]));
        }
        Some((words, name))
    }

    /// The configs by name, as they were read or derived.
    pub(crate) fn configs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.texts.iter().map(|(name, text)| (*name, text.as_str()))
    }

    /// Whether the tokenizer is that of the model's folder.
    pub(crate) fn has_own_tokenizer(&self) -> bool {
        self.folder().is_some() && self.parts.tokenizer.is_none()
    }

    /// Whether the weights are made up.
    pub(crate) fn is_random(&self) -> bool {
        matches!(self.home, Home::Random(_))
    }

    /// The folder without links; of a model that is in none only its name.
    pub(crate) fn root(&self) -> &Path {
        self.folder().map_or(Path::new(&self.name), Folder::root)
    }
}

/// The error for a folder that was named for a component: nothing is to be downloaded again.
fn without_weights(error: Error, path: &Path, wanted: Component) -> Error {
    match error {
        Error::MissingFile { .. } => {
            let usual = format!("{}.safetensors", wanted.weights_stem());
            let found = Found::NoWeights { wanted, usual };
            Error::UnsupportedModel { path: path.to_owned(), found }
        }
        other => other,
    }
}
