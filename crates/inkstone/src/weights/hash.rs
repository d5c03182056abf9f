//! The SHA-256 of a file.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Reads a file through: its length, and the SHA-256 of its bytes in hexadecimal digits. `before_piece` can stop it.
///
/// # Errors
/// [`Error::ModelRead`], and those of `before_piece`.
pub(crate) fn sha256(path: &Path, before_piece: impl FnMut() -> Result<()>) -> Result<(u64, String)> {
    let failed = |source| Error::ModelRead { path: path.to_owned(), source };
    of_rest(&mut File::open(path).map_err(failed)?, path, before_piece)
}

fn of_rest(
    file: &mut File,
    path: &Path,
    mut before_piece: impl FnMut() -> Result<()>,
) -> Result<(u64, String)> {
    let failed = |source| Error::ModelRead { path: path.to_owned(), source };
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        before_piece()?;
        match file.read(&mut piece).map_err(failed)? {
            0 => return Ok((bytes, format!("{:x}", hash.finalize()))),
            n => {
                hash.update(&piece[..n]);
                bytes += n as u64;
            }
        }
    }
}

/// An open file whose hash is computed when somebody asks for it. It may be removed or replaced in the meantime.
#[derive(Debug)]
pub(crate) struct HashedFile {
    path: PathBuf,
    file: Mutex<File>,
    bytes: u64,
    modified: Option<SystemTime>,
    sha256: OnceLock<String>,
}

impl HashedFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::ModelRead`].
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::ModelRead { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        Ok(Self { path: path.to_owned(), file: file.into(), bytes, modified, sha256: OnceLock::new() })
    }

    /// Its size when it was opened.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Calls something with the open file, which stands anywhere.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&mut File) -> T) -> T {
        read(&mut self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The SHA-256 of what was opened, 64 hexadecimal digits; reads the file through the first time.
    ///
    /// # Errors
    /// [`Error::ModelRead`]; [`Error::ModelChanged`] if somebody wrote to the file since.
    pub(crate) fn sha256(&self) -> Result<&str> {
        if let Some(hash) = self.sha256.get() {
            return Ok(hash);
        }
        let failed = |source| Error::ModelRead { path: self.path.clone(), source };
        let hash = self.with(|file| {
            file.rewind().map_err(failed)?;
            let (_, hash) = of_rest(file, &self.path, || Ok(()))?;
            let now = file.metadata().map_err(failed)?;
            if (now.len(), now.modified().ok()) != (self.bytes, self.modified) {
                let (path, was_bytes, is_bytes) = (self.path.clone(), self.bytes, now.len());
                return Err(Error::ModelChanged { path, was_bytes, is_bytes });
            }
            Ok(hash)
        })?;
        Ok(self.sha256.get_or_init(|| hash))
    }
}
