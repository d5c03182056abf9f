//! Where a tensor's bytes live.

use std::ops::Range;
use std::sync::Arc;

use crate::{AlignedBuffer, MappedFile};

/// Bytes behind a tensor.
#[derive(Debug)]
pub enum Storage {
    /// Memory of our own, writable while one tensor holds it.
    Owned(AlignedBuffer),
    /// A range of a file mapped into memory; never written.
    Mapped(Arc<MappedFile>, Range<usize>),
    /// Bytes compiled into the program; never written.
    Static(&'static [u8]),
}

impl Storage {
    /// The bytes, for reading.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(buffer) => buffer.as_slice(),
            Self::Mapped(file, range) => &file.bytes()[range.clone()],
            Self::Static(bytes) => bytes,
        }
    }

    /// The bytes, for writing; `None` where they are read-only.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Owned(buffer) => Some(buffer.as_mut_slice()),
            Self::Mapped(..) | Self::Static(_) => None,
        }
    }
}
