//! Reads safetensors files without copying, and writes them.

mod header;
pub(super) mod whole;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use inkstone_tensor::{DType, Device, MappedFile, Quantized, Shape, Tensor, regular};

use super::Order;
use super::gguf::Split;
use super::source::{Source, mapped};
use crate::{Error, Result};
use header::{Header, Stored};
pub(crate) use writer::{ALIGN_BYTES, Writer};

/// Where the bytes of a file's tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residence {
    /// In the file, mapped into memory: nothing is read before it is used.
    #[default]
    Mapped,
    /// In memory of our own: all is read at once.
    Owned,
}

/// The tensors of a file of weights.
#[derive(Debug, Default)]
pub struct SafeTensors {
    /// Tensors by name. Those of a mapped file or of static bytes are used in place.
    pub tensors: BTreeMap<String, Tensor>,
    /// Quantized matrices by name: those of a GGUF file.
    pub quantized: BTreeMap<String, Quantized>,
    /// Shapes of those whose matrix has another one with as many elements.
    pub(crate) shapes: BTreeMap<String, Shape>,
    /// Tensors of a type that the engine does not have, and that type.
    pub foreign: BTreeMap<String, &'static str>,
    /// In which order the weights of convolutions are: known once the names are.
    pub(crate) order: Order,
    /// What the file's writer noted.
    pub metadata: BTreeMap<String, String>,
    /// What a GGUF file that was split says of its place.
    pub(super) split: Option<Split>,
    /// The mapping, if the tensors lie in one.
    pub mapping: Option<Arc<MappedFile>>,
}

impl SafeTensors {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::ModelRead`], [`Error::Safetensors`]; [`Error::Tensor`] if there is no memory.
    pub fn open(path: &Path, device: &Device, residence: Residence) -> Result<Self> {
        let failed = |source| Error::ModelRead { path: path.to_owned(), source };
        match residence {
            Residence::Mapped => {
                let file = mapped(path)?;
                let mut this = read(&Source::Mapped(&file), path, device)?;
                this.mapping = Some(file);
                Ok(this)
            }
            Residence::Owned => {
                let file = regular::open(path).map_err(failed)?;
                let file_bytes = file.metadata().map_err(failed)?.len();
                read(&Source::File(&file, file_bytes), path, device)
            }
        }
    }

    /// Reads bytes that are compiled into the program; they are used in place.
    ///
    /// # Errors
    /// [`Error::Safetensors`] under this name; [`Error::Tensor`] if there is no memory.
    pub fn from_static(name: &Path, bytes: &'static [u8], device: &Device) -> Result<Self> {
        read(&Source::Static(bytes), name, device)
    }

    /// Reads bytes; the tensors are copies of their own.
    ///
    /// # Errors
    /// [`Error::Safetensors`] under this name; [`Error::Tensor`] if there is no memory.
    pub fn from_bytes(name: &Path, bytes: &[u8], device: &Device) -> Result<Self> {
        read(&Source::Bytes(bytes), name, device)
    }

    /// The elements of an integer tensor (token ids, masks in fixtures); `None` if there is none of this name.
    #[must_use]
    pub fn i64s(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.tensors.get(name).filter(|t| t.dtype() == DType::I64)?;
        Some(tensor.to_bytes().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }
}

/// The names of a file's tensors, with their shapes; nothing but its header is read.
pub(super) fn shapes(path: &Path) -> Result<Vec<(String, Shape)>> {
    let failed = |source| Error::ModelRead { path: path.to_owned(), source };
    let file = regular::open(path).map_err(failed)?;
    let file_bytes = file.metadata().map_err(failed)?.len();
    let (_, header) = read_head(&Source::File(&file, file_bytes), path)?;
    Ok(header.entries.into_iter().map(|entry| (entry.name, entry.shape)).collect())
}

/// The bytes in front of the tensors, and what they say.
fn read_head(source: &Source<'_>, path: &Path) -> Result<(Vec<u8>, Header)> {
    let failed = |source| Error::ModelRead { path: path.to_owned(), source };
    let unsound = |problem| Error::Safetensors { path: path.to_owned(), problem };
    let file_bytes = source.size_bytes();
    let mut start = [0; header::LENGTH_BYTES];
    let start = if file_bytes < start.len() as u64 {
        &start[..0]
    } else {
        source.copy(0, &mut start).map_err(failed)?;
        &start
    };
    let mut head = vec![0; header::LENGTH_BYTES + header::header_bytes(start, file_bytes).map_err(unsound)?];
    source.copy(0, &mut head).map_err(failed)?;
    let header = header::parse(&head[header::LENGTH_BYTES..], file_bytes).map_err(unsound)?;
    Ok((head, header))
}

fn read(source: &Source<'_>, path: &Path, device: &Device) -> Result<SafeTensors> {
    let (_, header) = read_head(source, path)?;
    let (mut tensors, mut foreign) = (BTreeMap::new(), BTreeMap::new());
    for entry in header.entries {
        match entry.stored {
            Stored::Known(dtype) => {
                let storage = source.storage(&entry.range, dtype.size_bytes(), path)?;
                tensors.insert(entry.name, Tensor::from_storage(device, storage, dtype, entry.shape)?);
            }
            Stored::Foreign(stored, _) => {
                foreign.insert(entry.name, stored);
            }
        }
    }
    Ok(SafeTensors { tensors, foreign, metadata: header.metadata, ..SafeTensors::default() })
}

/// A file with these tensors, in the order of their names.
#[must_use]
pub fn serialize(tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.to_bytes());
        let dtype = tensor.dtype().to_string().to_uppercase();
        let entry = serde_json::json!({
            "dtype": dtype, "shape": tensor.shape().dims(), "data_offsets": [begin, data.len()],
        });
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // The data begins at a multiple of the largest element.
    let padded = header.len().next_multiple_of(8);
    header.extend(std::iter::repeat_n(' ', padded - header.len()));
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&data);
    out
}
