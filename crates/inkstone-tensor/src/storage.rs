//! Where a tensor's bytes live.

use std::ops::Range;
use std::sync::Arc;

use crate::{AlignedBuffer, Counted, MappedFile};

/// Bytes behind a tensor.
#[derive(Debug)]
pub enum Storage {
    /// Memory of our own, writable while one tensor holds it.
    Owned(AlignedBuffer),
    /// A range of a file mapped into memory; never written.
    Mapped(Arc<MappedFile>, Range<usize>),
    /// Bytes compiled into the program; never written.
    Static(&'static [u8]),
    /// No bytes: a counting device says how much memory they would be.
    Counted(Counted),
}

impl Storage {
    /// How many bytes there are, or would be.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Counted(counted) => counted.len(),
            present => present.bytes().len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the bytes could be written by whoever holds them alone.
    pub(crate) fn is_writable(&self) -> bool {
        match self {
            Self::Owned(_) => true,
            Self::Counted(counted) => counted.is_writable(),
            Self::Mapped(..) | Self::Static(_) => false,
        }
    }

    /// The bytes, for reading; none of those that are only counted.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(buffer) => buffer.as_slice(),
            Self::Mapped(file, range) => &file.bytes()[range.clone()],
            Self::Static(bytes) => bytes,
            Self::Counted(_) => &[],
        }
    }

    /// The bytes, for writing; `None` where they are read-only.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Owned(buffer) => Some(buffer.as_mut_slice()),
            Self::Mapped(..) | Self::Static(_) | Self::Counted(_) => None,
        }
    }
}
