//! The pages of mapped files that some tensors lie in: to be read ahead of need, and let go behind it.

use std::ops::Range;
use std::sync::Arc;

use crate::{CountedFile, DiskPart, MappedFile, Storage, Tensor};

#[cfg(test)]
mod tests;

/// Bytes that are read between two looks at whether they are still wanted.
const PIECE_BYTES: usize = 16 << 20;

/// Ranges of mapped files. Tensors that own their bytes have none.
#[derive(Clone, Debug, Default)]
pub struct Pages(Vec<Part>);

#[derive(Clone, Debug)]
struct Part {
    file: File,
    range: Range<usize>,
}

#[derive(Clone, Debug)]
enum File {
    Mapped(Arc<MappedFile>),
    Counted(Arc<CountedFile>),
}

impl File {
    /// Something that is the same for two parts of one file only.
    fn address(&self) -> usize {
        match self {
            Self::Mapped(file) => Arc::as_ptr(file).addr(),
            Self::Counted(file) => Arc::as_ptr(file).addr(),
        }
    }
}

impl Pages {
    /// Adds those of a tensor.
    pub fn add(&mut self, tensor: &Tensor) {
        let (storage, span) = tensor.stored();
        let (file, range) = match storage {
            Storage::Mapped(file, range) => (File::Mapped(Arc::clone(file)), range.clone()),
            Storage::Counted(counted) => match counted.in_file() {
                Some((file, range)) => (File::Counted(Arc::clone(file)), range),
                None => return,
            },
            Storage::Owned(_) | Storage::Static(_) => return,
        };
        self.0.push(Part { file, range: range.start + span.start..range.start + span.end });
    }

    /// The same with ranges that touch each other in one: fewer calls, and no page between two of them stays.
    #[must_use]
    pub fn merged(mut self) -> Self {
        self.0.sort_by_key(|part| (part.file.address(), part.range.start));
        let mut merged: Vec<Part> = Vec::with_capacity(self.0.len());
        for part in self.0 {
            match merged.last_mut() {
                Some(last)
                    if last.file.address() == part.file.address() && part.range.start <= last.range.end =>
                {
                    last.range.end = last.range.end.max(part.range.end);
                }
                _ => merged.push(part),
            }
        }
        Self(merged)
    }

    /// Bytes of all ranges.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.iter().map(|part| part.range.len()).sum()
    }

    /// Whether they are of files that are only counted.
    #[must_use]
    pub fn are_counted(&self) -> bool {
        self.0.iter().any(|part| matches!(part.file, File::Counted(_)))
    }

    /// Those that are not in memory yet, as they lie on the disk.
    #[must_use]
    pub fn on_disk(&self) -> Vec<DiskPart> {
        let on_disk = |part: &Part| match &part.file {
            File::Mapped(file) => file.on_disk(part.range.clone()),
            File::Counted(_) => None,
        };
        self.0.iter().filter_map(on_disk).collect()
    }

    /// Brings them into memory, as long as they are wanted.
    pub fn read_ahead(&self, wanted: impl Fn() -> bool) {
        for part in &self.0 {
            for start in part.range.clone().step_by(PIECE_BYTES) {
                if !wanted() {
                    return;
                }
                let piece = start..part.range.end.min(start + PIECE_BYTES);
                match &part.file {
                    File::Mapped(file) => file.read_ahead(piece),
                    File::Counted(file) => file.touch(piece),
                }
            }
        }
    }

    /// Takes them out of this process's memory; they are read again when they are needed.
    pub fn release(&self) {
        for part in &self.0 {
            match &part.file {
                File::Mapped(file) => file.release(part.range.clone()),
                File::Counted(file) => file.release(part.range.clone()),
            }
        }
    }
}
