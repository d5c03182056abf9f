//! Where the bytes of a file of weights are read from.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use inkstone_tensor::{AlignedBuffer, MappedFile, Storage};

use crate::{Error, Result};

/// A file, mapped or not, or bytes.
pub(super) enum Source<'a> {
    Mapped(&'a Arc<MappedFile>),
    File(&'a File, u64),
    Static(&'static [u8]),
    Bytes(&'a [u8]),
}

/// Maps a file.
///
/// # Errors
/// [`Error::ModelRead`]; [`inkstone_tensor::Error::OutOfMemory`] where address space does not suffice.
pub(super) fn mapped(path: &Path) -> Result<Arc<MappedFile>> {
    MappedFile::open(path).map(Arc::new).map_err(|source| {
        if source.kind() != std::io::ErrorKind::OutOfMemory {
            return Error::ModelRead { path: path.to_owned(), source };
        }
        let size_bytes = path.metadata().map_or(0, |found| found.len());
        let wanted_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        inkstone_tensor::Error::OutOfMemory { device: "host".into(), wanted_bytes }.into()
    })
}

impl Source<'_> {
    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::Mapped(file) => file.bytes().len() as u64,
            Self::File(_, size_bytes) => *size_bytes,
            Self::Static(bytes) => bytes.len() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `out` from `position` on.
    pub(super) fn copy(&self, position: usize, out: &mut [u8]) -> std::io::Result<()> {
        let mut bytes: &[u8] = match self {
            Self::File(file, _) => {
                let mut file: &File = file;
                file.seek(SeekFrom::Start(position as u64))?;
                return file.read_exact(out);
            }
            Self::Mapped(file) => file.bytes(),
            Self::Static(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
        };
        bytes = bytes.get(position..).unwrap_or_default();
        bytes.read_exact(out)
    }

    /// The bytes of a range where they are, if they can stay there.
    fn in_place(&self, range: &Range<usize>, align_bytes: usize) -> Option<Storage> {
        let storage = match self {
            Self::Mapped(file) => Storage::Mapped(Arc::clone(file), range.clone()),
            Self::Static(bytes) => Storage::Static(bytes.get(range.clone())?),
            Self::File(..) | Self::Bytes(_) => return None,
        };
        // The format does not promise that elements are aligned; operations ask for it.
        storage.bytes().as_ptr().addr().is_multiple_of(align_bytes).then_some(storage)
    }

    /// The bytes of a range: where they are, if they can stay there, else a copy.
    pub(super) fn storage(&self, range: &Range<usize>, align_bytes: usize, path: &Path) -> Result<Storage> {
        if let Some(storage) = self.in_place(range, align_bytes) {
            return Ok(storage);
        }
        let wanted_bytes = range.len();
        let mut buffer = AlignedBuffer::zeroed(wanted_bytes)
            .ok_or_else(|| inkstone_tensor::Error::OutOfMemory { device: "host".into(), wanted_bytes })?;
        self.copy(range.start, buffer.as_mut_slice())
            .map_err(|source| Error::ModelRead { path: path.to_owned(), source })?;
        Ok(Storage::Owned(buffer))
    }
}
