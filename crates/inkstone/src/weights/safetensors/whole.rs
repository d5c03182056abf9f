//! A file that is read into memory once: its head first, its tensors when they are needed, and its SHA-256 from what was read.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use inkstone_tensor::{DType, Device, Ledger, Shape, Storage, Tensor};
use sha2::{Digest as _, Sha256};

use super::header::{Entry, Header, Stored};
use super::{SafeTensors, Source, read_head};
use crate::weights::hash;
use crate::{Error, Result};

/// The longest tensor that is read with the head, if its name is asked for: a number, whatever its type.
const SCALAR_BYTES: usize = 16;

/// The head of an open file. What is read later is what has this name now: another file that takes its name does not matter.
#[derive(Debug)]
pub(in crate::weights) struct Head {
    file: File,
    file_bytes: u64,
    modified: Option<SystemTime>,
    text: Arc<[u8]>,
    header: Header,
}

impl Head {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// [`Error::ModelRead`], [`Error::Safetensors`].
    pub(in crate::weights) fn read(file: File, path: &Path) -> Result<Self> {
        let failed = |source| Error::ModelRead { path: path.to_owned(), source };
        let found = file.metadata().map_err(failed)?;
        let (text, header) = read_head(&Source::File(&file, found.len()), path)?;
        let modified = found.modified().ok();
        Ok(Self { file, file_bytes: found.len(), modified, text: text.into(), header })
    }

    /// The size of the file.
    pub(in crate::weights) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// What the file's writer noted.
    pub(in crate::weights) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The names of the tensors.
    pub(in crate::weights) fn names(&self) -> Vec<String> {
        self.header.entries.iter().map(|entry| entry.name.clone()).collect()
    }

    /// What a function says of the numbers of each tensor whose type the engine has: how many there are, and in which.
    pub(in crate::weights) fn numbers(&self) -> impl Iterator<Item = (u64, DType)> {
        self.header.entries.iter().filter_map(|entry| match entry.stored {
            Stored::Known(dtype) => Some((entry.shape.count() as u64, dtype)),
            Stored::Foreign(..) => None,
        })
    }

    /// The tensors as far as the head tells them, without bytes. Single numbers whose name is asked for are read.
    ///
    /// # Errors
    /// [`Error::ModelRead`], no memory.
    pub(in crate::weights) fn outline(
        &self,
        path: &Path,
        device: &Device,
        is_read: impl Fn(&str) -> bool,
    ) -> Result<SafeTensors> {
        self.tensors(|entry, dtype, shape| {
            if entry.range.len() <= SCALAR_BYTES && is_read(&entry.name) {
                return self.load(entry, dtype, shape, path, device);
            }
            Ok(outline(device, dtype, shape)?)
        })
    }

    /// Reads the tensors; those of a type that the engine does not have as bytes.
    ///
    /// # Errors
    /// [`Error::ModelRead`], no memory; [`Error::ModelChanged`] if something wrote to the file since its head was read.
    pub(in crate::weights) fn whole(&self, path: &Path, device: &Device) -> Result<(SafeTensors, Contents)> {
        let mut in_order = Vec::with_capacity(self.header.entries.len());
        let file = self.tensors(|entry, dtype, shape| {
            let tensor = self.load(entry, dtype, shape, path, device)?;
            in_order.push(tensor.clone());
            Ok(tensor)
        });
        // A file that was cut short is told as that.
        self.check(path)?;
        let contents = Contents { head: Arc::clone(&self.text), tensors: in_order, sha256: OnceLock::new() };
        Ok((file?, contents))
    }

    /// The SHA-256 of the file, read through without keeping it.
    ///
    /// # Errors
    /// [`Error::ModelRead`], [`Error::ModelChanged`].
    pub(in crate::weights) fn sha256(&self, path: &Path) -> Result<String> {
        let (_, sha256) = hash::of_file(&self.file, path, || Ok(()))?;
        self.check(path).map(|()| sha256)
    }

    fn tensors(&self, mut of: impl FnMut(&Entry, DType, Shape) -> Result<Tensor>) -> Result<SafeTensors> {
        let mut file = SafeTensors { metadata: self.header.metadata.clone(), ..SafeTensors::default() };
        for entry in &self.header.entries {
            let (dtype, shape) = match entry.stored {
                Stored::Known(dtype) => (dtype, entry.shape),
                Stored::Foreign(stored, _) => {
                    file.foreign.insert(entry.name.clone(), stored);
                    (DType::U8, Shape::vector(entry.range.len()))
                }
            };
            file.tensors.insert(entry.name.clone(), of(entry, dtype, shape)?);
        }
        Ok(file)
    }

    fn load(
        &self,
        entry: &Entry,
        dtype: DType,
        shape: Shape,
        path: &Path,
        device: &Device,
    ) -> Result<Tensor> {
        let source = Source::File(&self.file, self.file_bytes);
        let storage = source.storage(&entry.range, dtype.size_bytes(), path)?;
        Ok(Tensor::from_storage(device, storage, dtype, shape)?)
    }

    /// Whether nothing wrote to the file since its head was read.
    fn check(&self, path: &Path) -> Result<()> {
        let now = self.file.metadata().ok();
        let is_bytes = now.as_ref().map_or(0, Metadata::len);
        if is_bytes == self.file_bytes && now.and_then(|now| now.modified().ok()) == self.modified {
            return Ok(());
        }
        Err(Error::ModelChanged { path: path.to_owned(), was_bytes: self.file_bytes, is_bytes })
    }
}

/// A tensor that has a type and a shape, and no bytes.
///
/// # Errors
/// None: there are as many bytes as its shape has.
pub(in crate::weights) fn outline(
    device: &Device,
    dtype: DType,
    shape: Shape,
) -> inkstone_tensor::Result<Tensor> {
    let len = shape.count() * dtype.size_bytes();
    let absent = Arc::new(Ledger::default()).file(len).range(0..len);
    Tensor::from_storage(device, Storage::Counted(absent), dtype, shape)
}

/// All that was in a file. The tensors are those that the reader was given.
#[derive(Debug)]
pub(in crate::weights) struct Contents {
    head: Arc<[u8]>,
    /// In the order of their bytes, which follow each other without holes.
    tensors: Vec<Tensor>,
    sha256: OnceLock<String>,
}

impl Contents {
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
