//! Where a converted model goes: a folder that is whole or not there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::PlaceProblem;
use crate::weights::MODEL_INDEX;
use crate::{Error, Result};

/// What happens to a folder that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    #[default]
    Refuse,
    /// It is replaced, if it is a model's folder.
    Replace,
}

/// A place that may be written to.
#[derive(Debug)]
pub(super) struct Place {
    to: PathBuf,
    parent: PathBuf,
    name: String,
    replaces: bool,
}

impl Place {
    /// Looks at what is at `to`; `sources` are the folders and files that are read.
    pub(super) fn find(to: &Path, sources: &[PathBuf], existing: Existing) -> Result<Self> {
        let refuse = |problem| Err(Error::ConvertPlace { path: to.to_owned(), problem });
        let Some(name) = to.file_name().and_then(|name| name.to_str()) else {
            return refuse(PlaceProblem::NoName);
        };
        let parent = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Ok(parent) = fs::canonicalize(parent) else { return refuse(PlaceProblem::NoParent) };
        let to = parent.join(name);
        let replaces = match fs::symlink_metadata(&to) {
            Err(_) => false,
            Ok(_) if existing == Existing::Refuse => return refuse(PlaceProblem::Exists),
            Ok(found) if !found.is_dir() => return refuse(PlaceProblem::NoModel),
            // Whoever mistypes a name must not lose a folder of something else.
            Ok(_) if !to.join(MODEL_INDEX).is_file() && !is_empty(&to) => {
                return refuse(PlaceProblem::NoModel);
            }
            Ok(_) => true,
        };
        if sources.iter().any(|source| to.starts_with(source) || source.starts_with(&to)) {
            return refuse(PlaceProblem::Source);
        }
        Ok(Self { name: name.to_owned(), parent, to, replaces })
    }

    /// The folder that it lies in.
    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    /// Makes a folder under another name.
    pub(super) fn begin(self) -> Result<NewFolder> {
        let path = self.beside("partial");
        fs::create_dir(&path).map_err(|source| Error::Write { path: path.clone(), source })?;
        Ok(NewFolder { place: self, path })
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.parent.join(format!(".{}.{what}-{}", self.name, std::process::id()))
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// A folder that is being filled. It is removed unless it is published.
#[derive(Debug)]
pub(super) struct NewFolder {
    place: Place,
    path: PathBuf,
}

impl NewFolder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name. An old one gives way whole and comes back if that fails.
    pub(super) fn publish(self) -> Result<()> {
        let to = &self.place.to;
        let failed = |source| Error::Write { path: to.clone(), source };
        sync(&self.path).map_err(failed)?;
        if !self.place.replaces {
            fs::rename(&self.path, to).map_err(failed)?;
            return sync(&self.place.parent).map_err(failed);
        }
        let old = self.place.beside("old");
        fs::rename(to, &old).map_err(failed)?;
        if let Err(error) = fs::rename(&self.path, to) {
            fs::rename(&old, to).map_err(failed)?;
            return Err(failed(error));
        }
        sync(&self.place.parent).map_err(failed)?;
        fs::remove_dir_all(&old).map_err(|source| Error::Write { path: old.clone(), source })
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // After publishing nothing has this name; before, what cannot be removed stays under a hidden one.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Waits until a folder's entries are on the disk.
#[cfg(unix)]
fn sync(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}
