//! A model's folder on disk: finds files in it and keeps links from leading out of it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use inkstone_tensor::regular;

use crate::{Error, Result};

/// How the folders of models begin in the Hugging Face cache.
const REPOSITORY_PREFIX: &str = "models--";

/// A folder whose files may be read.
#[derive(Debug)]
pub(super) struct Folder {
    /// The folder without links.
    root: PathBuf,
    /// What links must not leave: the folder, or the Hugging Face cache it lies in.
    boundary: PathBuf,
}

impl Folder {
    /// The folder at a path. Of a repository in the Hugging Face cache it is the snapshot that `refs/main` names.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`], [`Error::ModelRead`].
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut root = fs::canonicalize(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::ModelNotFound { path: path.to_owned() },
            _ => Error::ModelRead { path: path.to_owned(), source },
        })?;
        // A pipe or a device is neither a folder nor a file with weights.
        if !root.is_dir() {
            regular::open(&root).map_err(|source| Error::ModelRead { path: path.to_owned(), source })?;
        }
        if let Some(snapshot) = main_snapshot(&root) {
            root = snapshot;
        }
        // A part's folder may lie in the snapshot.
        let boundary = root.ancestors().find_map(cache_root).unwrap_or(&root).to_owned();
        Ok(Self { root, boundary })
    }

    /// The folder without links.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder's name; of a snapshot in the Hugging Face cache the repository's, `ORG/NAME`.
    pub(super) fn model_name(&self) -> String {
        let repository = cache_root(&self.root).and_then(|_| self.root.parent()?.parent());
        let name = repository.unwrap_or(&self.root).file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(REPOSITORY_PREFIX).map_or_else(|| name.to_string(), |name| name.replace("--", "/"))
    }

    /// Where a file of the folder is; `None` if it is not there or no regular file.
    ///
    /// The name is one of ours or was checked to have no `..`; links are followed and must stay inside.
    pub(super) fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.root.join(name);
        let target = match fs::canonicalize(&path) {
            Ok(target) => target,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(source) => return Err(Error::ModelRead { path, source }),
        };
        if !target.starts_with(&self.boundary) {
            return Err(Error::OutsideModel { path, target, boundary: self.boundary.clone() });
        }
        // A pipe or a device would be read without end.
        Ok(target.is_file().then_some(target))
    }

    /// The names of what is in a folder of the folder, sorted; empty if it is not there.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(name)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// Of `CACHE/models--ORG--NAME`: the snapshot of its main branch.
fn main_snapshot(root: &Path) -> Option<PathBuf> {
    if !is_repository(root) {
        return None;
    }
    let revision = fs::read_to_string(root.join("refs/main")).ok()?;
    let revision = revision.trim();
    let is_hash = !revision.is_empty() && revision.chars().all(|c| c.is_ascii_alphanumeric());
    let snapshot = fs::canonicalize(root.join("snapshots").join(revision)).ok()?;
    (is_hash && snapshot.starts_with(root)).then_some(snapshot)
}

/// Of `CACHE/models--ORG--NAME/snapshots/REVISION`: the cache.
fn cache_root(root: &Path) -> Option<&Path> {
    let snapshots = root.parent()?;
    let repository = snapshots.parent()?;
    (snapshots.ends_with("snapshots") && is_repository(repository)).then(|| repository.parent())?
}

fn is_repository(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(REPOSITORY_PREFIX))
}
