//! Where a model comes from: a folder, files of its own for some or all parts, or the program itself.

use std::path::{Path, PathBuf};

use super::{Component, RandomModel, identify};
use crate::error::Found;
use crate::{Error, Result};

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder in the diffusers layout, or as mflux saves one, or a file that holds a whole model.
    Folder(PathBuf),
    /// The same with weights from other files in part. A file may hold one part if `parts` names the others.
    Pieces {
        /// The folder: configs, tokenizer, and the weights that `parts` does not name. Or a file with such weights.
        folder: PathBuf,
        /// Where the other weights are.
        parts: Parts,
    },
    /// Weights alone, all three. Configs follow from the shapes of the tensors.
    Files(Parts),
    /// The small model inside the program.
    Embedded,
    /// Qwen-Image with random weights, for benchmarks: no files are read.
    Random(RandomModel),
}

/// What is in place of a part of a model's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The text encoder's weights: a file (safetensors or GGUF) or a folder, with an index if there are several files.
    pub text_encoder: Option<PathBuf>,
    /// The transformer's.
    pub transformer: Option<PathBuf>,
    /// The VAE's.
    pub vae: Option<PathBuf>,
    /// The tokenizer: a tokenizer.json, or a folder with one or with vocab.json, merges.txt and tokenizer_config.json.
    pub tokenizer: Option<PathBuf>,
}

impl Parts {
    pub(super) fn of(&self, component: Component) -> Option<&Path> {
        match component {
            Component::TextEncoder => self.text_encoder.as_deref(),
            Component::Transformer => self.transformer.as_deref(),
            Component::Vae => self.vae.as_deref(),
        }
    }

    fn place(&mut self, component: Component) -> &mut Option<PathBuf> {
        match component {
            Component::TextEncoder => &mut self.text_encoder,
            Component::Transformer => &mut self.transformer,
            Component::Vae => &mut self.vae,
        }
    }

    /// The same with the parts that a file holds and that are not named yet.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for a file that holds no part, or only such as are named; what is wrong with its head.
    pub(super) fn with_file(&self, file: &Path) -> Result<Self> {
        let mut parts = self.clone();
        let mut missing = identify::parts_of(file)?;
        missing.retain(|part| parts.of(*part).is_none());
        if missing.is_empty() {
            let found = Found::NamedTwice;
            return Err(Error::UnsupportedModel { path: file.to_owned(), found });
        }
        for part in missing {
            *parts.place(part) = Some(file.to_owned());
        }
        Ok(parts)
    }

    /// # Errors
    /// [`Error::MissingParts`] unless the weights of all parts are named, [`Error::UnsupportedModel`] for a file that holds
    /// another one.
    pub(super) fn check_whole(&self) -> Result<()> {
        let missing: Vec<Component> =
            Component::ALL.into_iter().filter(|part| self.of(*part).is_none()).collect();
        if !missing.is_empty() {
            return Err(Error::MissingParts { missing });
        }
        for part in Component::ALL {
            let Some(file) = self.of(part).filter(|path| path.is_file()) else { continue };
            if !identify::parts_of(file)?.contains(&part) {
                let found = Found::OtherPart { wanted: part };
                return Err(Error::UnsupportedModel { path: file.to_owned(), found });
            }
        }
        Ok(())
    }

    /// Refuses files that are known to be something else than the part they were named for.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`].
    pub(super) fn check_kinds(&self) -> Result<()> {
        let files = Component::ALL.into_iter().filter_map(|part| Some((self.of(part)?, part)));
        let mut files = files.filter(|(path, _)| path.is_file());
        files.try_for_each(|(path, part)| identify::check_part(path, part))
    }

    /// The files' names, for messages and pictures.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let names = Component::ALL.into_iter().filter_map(|part| self.of(part)?.file_name());
        let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.into_iter()
    }
}
