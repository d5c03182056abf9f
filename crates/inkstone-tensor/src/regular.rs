//! Regular files. A pipe without a writer holds up whoever opens it for ever, and a device is read without end.

#[cfg(test)]
mod tests;

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// A path that names something else than a file: what it names. [`open`] gives it inside of an [`io::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is {0}, not a file")]
pub struct NotRegular(&'static str);

impl NotRegular {
    /// The reason of an error of [`open`]; `None` if it has another.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

/// Opens a file for reading. Never waits for the other end of a pipe.
///
/// # Errors
/// [`NotRegular`] for a folder, a pipe, a socket or a device; otherwise whatever the system says.
pub fn open(path: &Path) -> io::Result<File> {
    // Looked at twice: opening a device may do something, and the path may lead elsewhere a moment later.
    check(&path.metadata()?)?;
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let file = options.read(true).open(path)?;
    check(&file.metadata()?)?;
    Ok(file)
}

/// # Errors
/// [`NotRegular`].
fn check(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, NotRegular(name(metadata.file_type()))))
}

#[cfg(unix)]
fn name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn name(kind: FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "a device" }
}
