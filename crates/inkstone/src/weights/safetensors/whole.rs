//! A file that is read into memory once: its names first, then its tensors, and its SHA-256 from what was read.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

use inkstone_tensor::{DType, Device, Shape, Tensor};
use sha2::{Digest as _, Sha256};

use super::header::{Entry, Header, Stored};
use super::{SafeTensors, Source, read_head};
use crate::Result;

/// The head of an open file.
pub(in crate::weights) struct Head<'f> {
    source: Source<'f>,
    text: Vec<u8>,
    header: Header,
}

impl<'f> Head<'f> {
    /// Reads the head of a file of this size.
    ///
    /// # Errors
    /// [`crate::Error::ModelRead`], [`crate::Error::Safetensors`].
    pub(in crate::weights) fn read(file: &'f File, file_bytes: u64, path: &Path) -> Result<Self> {
        let source = Source::File(file, file_bytes);
        let (text, header) = read_head(&source, path)?;
        Ok(Self { source, text, header })
    }

    /// The names of the tensors.
    pub(in crate::weights) fn names(&self) -> Vec<String> {
        self.header.entries.iter().map(|entry| entry.name.clone()).collect()
    }

    /// The sum of what a function says of the numbers of each type.
    pub(in crate::weights) fn sum_of(&self, bytes: impl Fn(DType) -> usize) -> u64 {
        let of = |entry: &Entry| match entry.stored {
            Stored::Known(dtype) => entry.shape.count() as u64 * bytes(dtype) as u64,
            Stored::Foreign(..) => 0,
        };
        self.header.entries.iter().map(of).sum()
    }

    /// Reads the tensors; those of a type that the engine does not have as bytes.
    ///
    /// # Errors
    /// [`crate::Error::ModelRead`], no memory.
    pub(in crate::weights) fn tensors(self, path: &Path, device: &Device) -> Result<(SafeTensors, Contents)> {
        let mut file = SafeTensors { metadata: self.header.metadata, ..SafeTensors::default() };
        let mut in_order = Vec::with_capacity(self.header.entries.len());
        for entry in self.header.entries {
            let (dtype, shape) = match entry.stored {
                Stored::Known(dtype) => (dtype, entry.shape),
                Stored::Foreign(stored, _) => {
                    file.foreign.insert(entry.name.clone(), stored);
                    (DType::U8, Shape::vector(entry.range.len()))
                }
            };
            let storage = self.source.storage(&entry.range, dtype.size_bytes(), path)?;
            let tensor = Tensor::from_storage(device, storage, dtype, shape)?;
            in_order.push(tensor.clone());
            file.tensors.insert(entry.name, tensor);
        }
        let contents = Contents { head: self.text, tensors: in_order, sha256: OnceLock::new() };
        Ok((file, contents))
    }
}

/// All that was in a file. The tensors are those that the reader was given.
#[derive(Debug)]
pub(in crate::weights) struct Contents {
    head: Vec<u8>,
    /// In the order of their bytes, which follow each other without holes.
    tensors: Vec<Tensor>,
    sha256: OnceLock<String>,
}

impl Contents {
    /// The size of the file.
    pub(in crate::weights) fn bytes(&self) -> u64 {
        let tensors: usize = self.tensors.iter().map(|tensor| tensor.bytes().len()).sum();
        (self.head.len() + tensors) as u64
    }

    /// The SHA-256 of the file as it was read, 64 hexadecimal digits.
    pub(in crate::weights) fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| {
            let mut hash = Sha256::new();
            hash.update(&self.head);
            self.tensors.iter().for_each(|tensor| hash.update(tensor.bytes()));
            format!("{:x}", hash.finalize())
        })
    }
}
