//! The files of the model that is converted: weights are hashed, everything else is copied.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::progress::CancelToken;
use crate::sample::schedule::SchedulerConfig;
use crate::weights::{ModelFiles, SCHEDULER, hash};
use crate::{Error, Result};

/// Endings of files that belong to a model and are no weights.
const COPIED: [&str; 7] = ["json", "txt", "md", "jinja", "model", "yaml", "yml"];
/// The list of the files that weights were in; they are in one file now.
const INDEX: &str = ".safetensors.index.json";
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
    /// Reads a file through.
    pub(super) fn read(root: &Path, path: &Path, cancel: &CancelToken) -> Result<Self> {
        let (bytes, sha256) = hash::sha256(path, || cancel.check())?;
        // In the Hugging Face cache a link leads out of the folder.
        let name = path.strip_prefix(root).unwrap_or(Path::new(path.file_name().unwrap_or_default()));
        let name = name.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
        Ok(Self { name, bytes, sha256 })
    }
}

/// The files to copy, by their names in the model's folder, with their sizes.
pub(super) fn others(files: &ModelFiles) -> Result<Vec<(String, u64)>> {
    let mut others = Vec::new();
    for name in files.list("") {
        if name.starts_with('.') {
            continue;
        }
        let inside = files.list(&name);
        let names = if inside.is_empty() {
            vec![name]
        } else {
            inside.iter().map(|n| format!("{name}/{n}")).collect()
        };
        for name in names {
            if let Some(path) = find(files, &name)? {
                let bytes = fs::metadata(&path).map_err(|source| Error::ModelRead { path, source })?.len();
                if bytes <= LARGEST_BYTES {
                    others.push((name, bytes));
                }
            }
        }
    }
    Ok(others)
}

/// Where a file that is copied is; `None` for weights, for files of other kinds and for folders.
fn find(files: &ModelFiles, name: &str) -> Result<Option<PathBuf>> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let ending = file.rsplit_once('.').map_or("", |(_, ending)| ending);
    let is_text = COPIED.contains(&ending) || file.starts_with("LICENSE") || file.starts_with("NOTICE");
    if !is_text || file.starts_with('.') || file.ends_with(INDEX) { Ok(None) } else { files.find(name) }
}

pub(super) fn copy(files: &ModelFiles, others: &[(String, u64)], folder: &Path) -> Result<()> {
    for (name, _) in others {
        let Some(from) = find(files, name)? else { continue };
        let to = folder.join(name);
        let failed = |source| Error::Write { path: name.into(), source };
        to.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        fs::copy(&from, &to).map_err(failed)?;
        File::open(&to).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Gives the new folder the schedule that Lightning LoRAs were distilled with.
pub(super) fn write_lightning_schedule(files: &ModelFiles, folder: &Path) -> Result<()> {
    let schedule = SchedulerConfig::from_json(files.json(SCHEDULER)?)?.lightning();
    let failed = |source| Error::Write { path: SCHEDULER.into(), source };
    let text = serde_json::to_vec_pretty(&schedule).map_err(|e| failed(e.into()))?;
    let mut file = File::create(folder.join(SCHEDULER)).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)
}
