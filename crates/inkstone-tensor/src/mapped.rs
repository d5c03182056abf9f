//! Files mapped into memory.

use std::fs::File;
use std::path::{Path, PathBuf};

/// A file mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the whole of a file.
    ///
    /// # Errors
    /// Whatever the system says of opening or mapping it.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only; see `bytes` for a file that shrinks.
        let map = unsafe { memmap2::MmapOptions::new().map(&file)? };
        Ok(Self { path: path.to_owned(), map })
    }

    /// Where the file was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}
