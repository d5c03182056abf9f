//! Writes a safetensors file tensor by tensor, without holding more than one of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use inkstone_tensor::Tensor;
use serde_json::{Map, Value, json};

/// Tensors that begin at a multiple of this are used where they lie in a mapped file.
pub(crate) const ALIGN_BYTES: usize = 64;
/// What an entry takes beside its name: 70 characters, five dimensions of 8 digits and two offsets of 13.
const ENTRY_BYTES: usize = 136;

/// A file that is being written.
pub(crate) struct Writer {
    file: BufWriter<File>,
    /// Bytes kept free for the header and its length.
    room_bytes: u64,
    data_bytes: u64,
    entries: Map<String, Value>,
}

impl Writer {
    /// Begins a file with room for the names of tensors that may come and for this much metadata.
    pub(crate) fn create(path: &Path, names: &[String], metadata_bytes: usize) -> io::Result<Self> {
        // A character of a name is two at most in JSON.
        let entries: usize = names.iter().map(|name| 2 * name.len() + ENTRY_BYTES).sum();
        let room_bytes = (entries + metadata_bytes + ENTRY_BYTES).next_multiple_of(ALIGN_BYTES) as u64;
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
        file.seek(SeekFrom::Start(room_bytes))?;
        Ok(Self { file, room_bytes, data_bytes: 0, entries: Map::new() })
    }

    /// Adds a tensor. Padding between its rows is left out.
    pub(crate) fn tensor(&mut self, name: &str, tensor: &Tensor) -> io::Result<()> {
        let begin = self.data_bytes;
        let size = tensor.dtype().size_bytes();
        let (row_bytes, stride_bytes) = (tensor.cols() * size, tensor.row_stride() * size);
        let bytes = tensor.bytes();
        if row_bytes == stride_bytes || bytes.is_empty() {
            self.file.write_all(bytes)?;
        } else {
            bytes.chunks(stride_bytes).try_for_each(|row| self.file.write_all(&row[..row_bytes]))?;
        }
        self.data_bytes += (tensor.shape().count() * size) as u64;
        let entry = json!({
            "dtype": tensor.dtype().to_string().to_uppercase(),
            "shape": tensor.shape().dims(),
            "data_offsets": [begin, self.data_bytes],
        });
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Writes the header, waits until all is on the disk, and returns the file's size.
    pub(crate) fn finish(mut self, metadata: &BTreeMap<String, String>) -> io::Result<u64> {
        self.entries.insert("__metadata__".into(), json!(metadata));
        let header = Value::Object(self.entries).to_string();
        let room_bytes = self.room_bytes - 8;
        let Some(padding) = usize::try_from(room_bytes).ok().and_then(|room| room.checked_sub(header.len()))
        else {
            return Err(io::Error::other(format!("a header of {} bytes is too long", header.len())));
        };
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&room_bytes.to_le_bytes())?;
        self.file.write_all(header.as_bytes())?;
        self.file.write_all(&vec![b' '; padding])?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(self.room_bytes + self.data_bytes)
    }
}
