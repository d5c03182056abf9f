//! Reads GGUF files without copying: plain tensors and quantized matrices by name.

mod header;
mod value;

use std::path::Path;

use inkstone_tensor::{Blocks, DType, Device, Quantized, Shape, Storage, Tensor};

use super::source::{Source, mapped};
use super::{Residence, SafeTensors};
use crate::{Error, Result};
use header::{Entry, Stored};

pub(super) use header::{Header, MAGIC, Split};
pub(super) use value::Value;

/// Opens a file.
///
/// # Errors
/// [`Error::ModelRead`], [`Error::Gguf`]; [`Error::Tensor`] if there is no memory.
pub(super) fn open(path: &Path, device: &Device, residence: Residence) -> Result<SafeTensors> {
    let file = mapped(path)?;
    match residence {
        Residence::Mapped => {
            let mut this = read(&Source::Mapped(&file), file.bytes(), path, device)?;
            this.mapping = Some(file);
            Ok(this)
        }
        Residence::Owned => from_bytes(path, file.bytes(), device),
    }
}

/// Reads bytes; the tensors are copies of their own.
///
/// # Errors
/// [`Error::Gguf`] under this name; [`Error::Tensor`] if there is no memory.
pub(super) fn from_bytes(name: &Path, bytes: &[u8], device: &Device) -> Result<SafeTensors> {
    read(&Source::Bytes(bytes), bytes, name, device)
}

/// Calls `look` with a file's head; no tensor is touched.
pub(super) fn with_head<T>(path: &Path, look: impl FnOnce(&Header<'_>) -> Result<T>) -> Result<T> {
    let file = mapped(path)?;
    let header = header::parse(file.bytes())
        .map_err(|problem| Error::Gguf { path: path.to_owned(), problem: Box::new(problem) })?;
    look(&header)
}

/// The names of a file's tensors, with their shapes.
pub(super) fn shapes(path: &Path) -> Result<Vec<(String, Shape)>> {
    with_head(path, |header| Ok(shapes_of(header)))
}

/// The same of a head.
pub(super) fn shapes_of(header: &Header<'_>) -> Vec<(String, Shape)> {
    header.entries.iter().map(|entry| (entry.name.clone(), entry.shape)).collect()
}

fn read(source: &Source<'_>, bytes: &[u8], path: &Path, device: &Device) -> Result<SafeTensors> {
    let header = header::parse(bytes)
        .map_err(|problem| Error::Gguf { path: path.to_owned(), problem: Box::new(problem) })?;
    let mut out = SafeTensors { metadata: header.texts(), split: header.split(), ..SafeTensors::default() };
    for entry in header.entries {
        let storage = |align_bytes| source.storage(&entry.range, align_bytes, path);
        match entry.stored {
            Stored::Dense(dtype) => {
                let tensor = Tensor::from_storage(device, storage(dtype.size_bytes())?, dtype, entry.shape)?;
                out.tensors.insert(entry.name, tensor);
            }
            Stored::Blocks(format) => {
                let data = rows_of_bytes(&entry, device, storage(1)?)?;
                let matrix = Quantized::Blocks(Blocks::new(format, data)?);
                if entry.laid_out != entry.shape {
                    out.shapes.insert(entry.name.clone(), entry.shape);
                }
                out.quantized.insert(entry.name, matrix);
            }
            Stored::Foreign(stored, ..) => {
                out.foreign.insert(entry.name, stored);
            }
        }
    }
    Ok(out)
}

/// The blocks of a matrix as u8 `[rows, row bytes]`.
fn rows_of_bytes(entry: &Entry, device: &Device, storage: Storage) -> Result<Tensor> {
    let rows = entry.laid_out.rows();
    let shape = Shape::matrix(rows, entry.range.len() / rows.max(1));
    Ok(Tensor::from_storage(device, storage, DType::U8, shape)?)
}
