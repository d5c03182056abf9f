//! The files of the model that is converted: weights are hashed, everything else is copied or written anew.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Run;
use crate::progress::CancelToken;
use crate::sample::schedule::SchedulerConfig;
use crate::weights::{ModelFiles, SCHEDULER, WeightFile, hash, is_index_name};
use crate::{Error, Result};

/// Endings of files that belong to a model and are no weights.
const COPIED: [&str; 7] = ["json", "txt", "md", "jinja", "model", "yaml", "yml"];
/// Where a tokenizer is put, and the name that it then has.
const TOKENIZER_FOLDER: &str = "tokenizer/";
const TOKENIZER: &str = "tokenizer/tokenizer.json";
/// The largest of them, a tokenizer, has some MB.
const LARGEST_BYTES: u64 = 256 << 20;

/// A file that a component was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in the model's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

impl Source {
    /// Reads a file through, unless that was done.
    pub(super) fn read(root: &Path, file: &WeightFile, run: &mut Run<'_>) -> Result<Self> {
        let path = match file {
            WeightFile::OnDisk(path) => path,
            WeightFile::Embedded(name, file) => {
                let (name, bytes) = (name.clone(), file.len() as u64);
                return Ok(Self { name, bytes, sha256: format!("{:x}", Sha256::digest(file)) });
            }
        };
        if let Some(known) = run.hashed.get(path) {
            return Ok(known.clone());
        }
        let (bytes, sha256) = hash::sha256(path, || run.cancel.check())?;
        // In the Hugging Face cache a link leads out of the folder.
        let name = path.strip_prefix(root).unwrap_or(Path::new(path.file_name().unwrap_or_default()));
        let name = name.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
        let source = Self { name, bytes, sha256 };
        run.hashed.insert(path.clone(), source.clone());
        Ok(source)
    }
}

/// What is in the new folder beside weights.
pub(super) struct Others {
    /// Files of the old folder by their names in it.
    files: Vec<(String, PathBuf, u64)>,
    /// Configs, read or derived from the weights, and a tokenizer from elsewhere.
    texts: Vec<(String, Vec<u8>)>,
}

impl Others {
    pub(super) fn of(files: &ModelFiles) -> Result<Self> {
        let mut texts: Vec<(String, Vec<u8>)> =
            files.configs().map(|(name, text)| (name.to_owned(), text.into())).collect();
        let copies_tokenizer = files.has_own_tokenizer();
        if !copies_tokenizer {
            texts.push((TOKENIZER.into(), files.tokenizer()?));
        }
        let mut copied = Vec::new();
        for name in names(files) {
            let is_there = texts.iter().any(|(text, _)| *text == name);
            if is_there || (!copies_tokenizer && name.starts_with(TOKENIZER_FOLDER)) {
                continue;
            }
            if let Some(path) = find(files, &name)? {
                let bytes = size_bytes(&path)?;
                if bytes <= LARGEST_BYTES {
                    copied.push((name, path, bytes));
                }
            }
        }
        Ok(Self { files: copied, texts })
    }

    pub(super) fn bytes(&self) -> u64 {
        let texts = self.texts.iter().map(|(_, text)| text.len() as u64);
        texts.chain(self.files.iter().map(|(.., bytes)| *bytes)).sum()
    }

    pub(super) fn write(&self, folder: &Path, cancel: &CancelToken) -> Result<()> {
        self.files.iter().try_for_each(|(name, from, _)| copy(from, folder, name, cancel))?;
        self.texts.iter().try_for_each(|(name, text)| write(folder, name, text))
    }
}

/// The names of what is in the model's folder and in its folders.
fn names(files: &ModelFiles) -> Vec<String> {
    let mut names = Vec::new();
    for name in files.list("").into_iter().filter(|name| !name.starts_with('.')) {
        match files.list(&name) {
            inside if inside.is_empty() => names.push(name),
            inside => names.extend(inside.iter().map(|n| format!("{name}/{n}"))),
        }
    }
    names
}

/// The size of a file.
pub(super) fn size_bytes(path: &Path) -> Result<u64> {
    let failed = |source| Error::ModelRead { path: path.to_owned(), source };
    Ok(fs::metadata(path).map_err(failed)?.len())
}

/// Where a file that is copied is; `None` for weights, for files of other kinds and for folders.
fn find(files: &ModelFiles, name: &str) -> Result<Option<PathBuf>> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let ending = file.rsplit_once('.').map_or("", |(_, ending)| ending);
    let is_text = COPIED.contains(&ending) || file.starts_with("LICENSE") || file.starts_with("NOTICE");
    // Weights that an index lists are in one file now.
    if !is_text || file.starts_with('.') || is_index_name(file) { Ok(None) } else { files.find(name) }
}

/// Copies a file into the new folder.
pub(super) fn copy(from: &Path, folder: &Path, name: &str, cancel: &CancelToken) -> Result<()> {
    /// What is copied between two looks at the token.
    const PIECE_BYTES: u64 = 64 << 20;
    let read = |source| Error::ModelRead { path: from.to_owned(), source };
    let from = File::open(from).map_err(read)?;
    create(folder, name, |to| {
        cancel.check()?;
        let written = std::io::copy(&mut (&from).take(PIECE_BYTES), to);
        written.map_err(|source| Error::Write { path: name.into(), source })
    })
}

fn write(folder: &Path, name: &str, mut bytes: &[u8]) -> Result<()> {
    create(folder, name, |to| {
        std::io::copy(&mut bytes, to).map_err(|source| Error::Write { path: name.into(), source })
    })
}

/// Makes a file of what `fill` writes until it writes nothing more.
fn create(folder: &Path, name: &str, mut fill: impl FnMut(&mut File) -> Result<u64>) -> Result<()> {
    let to = folder.join(name);
    let failed = |source| Error::Write { path: name.into(), source };
    to.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    let mut file = File::create(&to).map_err(failed)?;
    while fill(&mut file)? > 0 {}
    file.sync_all().map_err(failed)
}

/// Gives the new folder the schedule that Lightning LoRAs were distilled with.
pub(super) fn write_lightning_schedule(files: &ModelFiles, folder: &Path) -> Result<()> {
    let schedule = SchedulerConfig::from_json(files.json(SCHEDULER)?)?.lightning();
    let failed = |source| Error::Write { path: SCHEDULER.into(), source };
    let text = serde_json::to_vec_pretty(&schedule).map_err(|e| failed(e.into()))?;
    write(folder, SCHEDULER, &text)
}
