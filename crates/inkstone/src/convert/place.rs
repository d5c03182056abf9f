//! Where a converted model goes: a folder that is whole or not there.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

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

    /// Makes a folder under another name. Folders that conversions to this place left, as their processes were killed, go.
    pub(super) fn begin(self) -> Result<NewFolder> {
        let prefix = format!(".{}.partial-", self.name);
        self.remove_abandoned(&prefix);
        let failed = |source| Error::Write { path: self.parent.join(&self.name), source };
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777)); // less what the umask takes
        let folder = builder.prefix(&prefix).tempdir_in(&self.parent).map_err(failed)?;
        let lock = lock(folder.path());
        Ok(NewFolder { folder, _lock: lock, place: self })
    }

    /// What cannot be removed stays under its hidden name.
    fn remove_abandoned(&self, prefix: &str) {
        let entries = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)) {
            if let Some(_lock) = lock(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A lock of a folder that the system lets go of with the process, however that ends; `None` where another one has it, or
/// where folders cannot be locked.
fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock().ok().map(|()| file)
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// A folder that is being filled. It is removed unless it is published.
#[derive(Debug)]
pub(super) struct NewFolder {
    folder: TempDir,
    /// Tells other conversions that it is in use.
    _lock: Option<File>,
    place: Place,
}

impl NewFolder {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its name. An old one gives way whole and comes back if that fails.
    pub(super) fn publish(self) -> Result<()> {
        let (path, Place { to, parent, name, replaces }) = (self.folder.path(), &self.place);
        let failed = |source: std::io::Error| match source.kind() {
            // Another process was faster.
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                Error::ConvertPlace { path: to.clone(), problem: PlaceProblem::Exists }
            }
            _ => Error::Write { path: to.clone(), source },
        };
        sync(path).map_err(failed)?;
        if !replaces {
            fs::rename(path, to).map_err(failed)?;
            return sync(parent).map_err(failed);
        }
        let old =
            tempfile::Builder::new().prefix(&format!(".{name}.old-")).tempdir_in(parent).map_err(failed)?;
        fs::rename(to, old.path()).map_err(failed)?;
        if let Err(error) = fs::rename(path, to) {
            fs::rename(old.keep(), to).map_err(failed)?;
            return Err(failed(error));
        }
        sync(parent).map_err(failed)?;
        let path = old.path().to_owned();
        old.close().map_err(|source| Error::Write { path, source })
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
