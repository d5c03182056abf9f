//! The SHA-256 of a file.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use inkstone_tensor::regular;
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
    of_file(&regular::open(path).map_err(failed)?, path, before_piece)
}

/// The same for a file that is open.
///
/// # Errors
/// As [`sha256`].
pub(crate) fn of_file(
    mut file: &File,
    path: &Path,
    mut before_piece: impl FnMut() -> Result<()>,
) -> Result<(u64, String)> {
    let failed = |source| Error::ModelRead { path: path.to_owned(), source };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
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
