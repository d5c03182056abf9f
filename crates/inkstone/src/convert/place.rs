//! Where a converted model goes: a folder that is whole or not there.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::PlaceProblem;
use crate::weights::MODEL_INDEX;
use crate::{Error, Result};

#[cfg(test)]
mod tests;

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
    /// Looks at what is at `to`; `sources` are the folders and files that are read. A model that a killed process had put
    /// aside gets its name back first.
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
        put_back(&to, &parent, name);
        let replaces = match fs::symlink_metadata(&to) {
            Err(_) => false,
            // Its name is not the folder's, and what it leads to may have others.
            Ok(found) if found.is_symlink() => return refuse(PlaceProblem::Link),
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
        let prefix = partial(&self.name);
        self.remove_abandoned(&prefix);
        // Of these, what has its name again or is no model.
        self.remove_abandoned(&old(&self.name));
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
        for path in with_prefix(&self.parent, prefix) {
            if let Some(_lock) = lock(&path) {
                let _ = fs::remove_dir_all(path);
            }
        }
    }
}

/// What the folders are called that are being filled, or removed.
fn partial(name: &str) -> String {
    format!(".{name}.partial-")
}

/// What a whole model is called while a new one takes its name.
fn old(name: &str) -> String {
    format!(".{name}.old-")
}

fn with_prefix(folder: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(move |e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path())
}

/// Gives a model its name again that a process had put aside and was killed before another one had the name.
fn put_back(to: &Path, parent: &Path, name: &str) {
    for path in with_prefix(parent, &old(name)) {
        if fs::symlink_metadata(to).is_ok() {
            return;
        }
        // In use it is locked.
        if path.join(MODEL_INDEX).is_file() && lock(&path).is_some() {
            let _ = fs::rename(path, to);
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
        let Self { folder, _lock, place: Place { to, parent, name, replaces } } = self;
        let failed = |source: io::Error| match source.kind() {
            // Another process was faster.
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                Error::ConvertPlace { path: to.clone(), problem: PlaceProblem::Exists }
            }
            _ => Error::Write { path: to.clone(), source },
        };
        sync(folder.path()).map_err(failed)?;
        if !replaces {
            fs::rename(folder.path(), &to).map_err(failed)?;
            return sync(&parent).map_err(failed);
        }
        // Until it is gone, no other process may take it for one that was left.
        let _old = lock(&to);
        if exchange(folder.path(), &to).is_err() {
            exchange_in_steps(folder.path(), &to, &old(&name)).map_err(failed)?;
        }
        sync(&parent).map_err(failed)?;
        let path = folder.path().to_owned();
        folder.close().map_err(|source| Error::Write { path, source })
    }
}

/// Exchanges the names of two folders in one step: whenever the process ends, each name has a whole folder.
///
/// # Errors
/// File systems that cannot, and whatever a renaming can fail with; the names are as they were.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_a: &Path, _b: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// The same where the system cannot: between the first two renamings `to` has no folder, and the next conversion to it puts
/// the old one back.
fn exchange_in_steps(new: &Path, to: &Path, prefix: &str) -> io::Result<()> {
    let parent = to.parent().unwrap_or(Path::new("."));
    let aside = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
    fs::rename(to, aside.path())?;
    let aside = aside.keep();
    if let Err(error) = fs::rename(new, to) {
        fs::rename(aside, to)?;
        return Err(error);
    }
    fs::rename(aside, new)
}

/// Waits until a folder's entries are on the disk.
#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_folder: &Path) -> io::Result<()> {
    Ok(())
}
