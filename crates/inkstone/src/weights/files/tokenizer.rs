//! Where a model's tokenizer is: a file of its own, the model's folder, or beside the text encoder's weights.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::{Home, ModelFiles};
use crate::models::qwen25_vl;
use crate::weights::folder::Folder;
use crate::weights::{Component, embedded, gguf, identify, json, tokenizer};
use crate::{Error, Result};

const TOKENIZER: &str = "tokenizer.json";
/// In its place in older folders, with others.
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// Folder of the tokenizer in that of the model.
const TOKENIZER_FOLDER: &str = "tokenizer";

impl ModelFiles {
    /// The tokenizer as the text of a tokenizer.json, checked. Folders that have vocab.json and merges.txt in its
    /// place, as the first Qwen-Image has, give the same text, and so do the tables in a text encoder's GGUF file.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::Json`], [`Error::MissingFile`], [`Error::MissingTokenizer`].
    pub fn tokenizer(&self) -> Result<Vec<u8>> {
        let text_encoder = qwen25_vl::Config::from_json(self.json(Component::TextEncoder.config_name())?)?;
        let (path, bytes) = match (&self.parts.tokenizer, &self.home) {
            (Some(path), _) if path.is_file() => {
                (path.clone(), json::read_file(path, tokenizer::LIMIT_BYTES)?.into())
            }
            (Some(path), _) => tokenizer_in(path, |name| read_in(&Folder::open(path)?, path, name))?,
            (None, Home::Files) => self.tokenizer_of_encoder()?,
            (None, _) => {
                let name = |name: &str| format!("{TOKENIZER_FOLDER}/{name}");
                tokenizer_in(&self.path(TOKENIZER_FOLDER), |file| {
                    self.read(&name(file), tokenizer::LIMIT_BYTES)
                })?
            }
        };
        tokenizer::check(&path, &bytes, text_encoder.vocab_size as u64)?;
        Ok(bytes.into_owned())
    }

    /// The tokenizer that comes with the text encoder's own files.
    fn tokenizer_of_encoder(&self) -> Result<(PathBuf, Cow<'static, [u8]>)> {
        let path = self.parts.text_encoder.clone().unwrap_or_default();
        let missing = || Error::MissingTokenizer { path: path.clone() };
        if path.is_dir() {
            return tokenizer_in(&path, |name| read_in(&Folder::open(&path)?, &path, name)).map_err(
                |error| {
                    if matches!(error, Error::MissingFile { .. }) { missing() } else { error }
                },
            );
        }
        // Of a file that was split the first part has the tables.
        let first = self.weight_paths(Component::TextEncoder)?.into_iter().next();
        let Some(path) = first.filter(|path| identify::is_gguf(path)) else { return Err(missing()) };
        let text = gguf::with_head(&path, |head| tokenizer::tables::assemble(&path, head))?;
        let text = text.ok_or_else(missing)?;
        Ok((path, text.into()))
    }

    /// Bytes of what the tokenizer is read from; 0 if it is not there.
    #[must_use]
    pub fn tokenizer_file_bytes(&self) -> usize {
        let size = |path: PathBuf| Some(usize::try_from(path.metadata().ok()?.len()).unwrap_or(usize::MAX));
        let inside = |folder: &Path| {
            let parts = || Some(size(folder.join(VOCABULARY))?.saturating_add(size(folder.join(MERGES))?));
            size(folder.join(TOKENIZER)).or_else(parts)
        };
        let encoder = self.parts.text_encoder.as_deref();
        let bytes = match (&self.parts.tokenizer, &self.home) {
            (Some(path), _) if path.is_file() => size(path.clone()),
            (Some(path), _) => inside(path),
            (None, Home::Folder(folder)) => inside(&folder.root().join(TOKENIZER_FOLDER)),
            (None, Home::Files) => encoder.and_then(|path| match path.is_dir() {
                true => inside(path),
                false => Some(self.tables_bytes),
            }),
            (None, _) => embedded::file(&format!("{TOKENIZER_FOLDER}/{TOKENIZER}")).map(<[u8]>::len),
        };
        bytes.unwrap_or(0)
    }
}

/// The tokenizer in a folder of which `read` reads a file; with the path for messages.
fn tokenizer_in(
    folder: &Path,
    read: impl Fn(&str) -> Result<Cow<'static, [u8]>>,
) -> Result<(PathBuf, Cow<'static, [u8]>)> {
    let path = folder.join(TOKENIZER);
    match read(TOKENIZER) {
        Err(Error::MissingFile { .. }) => {}
        bytes => return Ok((path, bytes?)),
    }
    let part = |name: &str| Ok::<_, Error>((folder.join(name), read(name)?));
    let missing = |error: Error| match error {
        // Both forms are missing; the one to ask for is tokenizer.json.
        Error::MissingFile { .. } => Error::MissingFile { path: path.clone() },
        other => other,
    };
    let (vocab_path, vocab) = part(VOCABULARY).map_err(missing)?;
    let (merges_path, merges) = part(MERGES).map_err(missing)?;
    let (config_path, config) = part("tokenizer_config.json")?;
    let text = tokenizer::assemble((&vocab_path, &vocab), (&merges_path, &merges), (&config_path, &config))?;
    Ok((path, text.into()))
}

/// A file of a folder that may hold a tokenizer.
fn read_in(folder: &Folder, path: &Path, name: &str) -> Result<Cow<'static, [u8]>> {
    let missing = || Error::MissingFile { path: path.join(name) };
    let path = folder.find(name)?.ok_or_else(missing)?;
    json::read_file(&path, tokenizer::LIMIT_BYTES).map(Cow::Owned)
}
