//! Files mapped into memory.
//!
//! A mapped file may be cut short by another process at any time; reading its lost pages then kills the process
//! with SIGBUS. So a guard (on Linux and macOS) puts zeros in place of such a mapping and remembers it:
//! [`MappedFile::check`] tells, and the caller throws away what was computed from it.

pub(crate) mod ahead;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod guard;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::fetch::{Disk, DiskPart};
use crate::regular;

/// A file mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    modified: Option<SystemTime>,
    // The guard lets go of the mapping before it is unmapped: fields are dropped in this order.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    guard: Option<guard::Guard>,
    brought: ahead::Brought,
    /// The file once more, for whoever reads ahead of need.
    disk: OnceLock<Option<Arc<Disk>>>,
    map: memmap2::Mmap,
}

/// A mapped file is not what it was when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its size when it was opened.
    pub was_bytes: u64,
    /// Its size now; 0 if it cannot be told.
    pub is_bytes: u64,
}

impl MappedFile {
    /// Maps the whole of a file.
    ///
    /// # Errors
    /// [`regular::NotRegular`] inside for what is no file; whatever the system says of opening or mapping it.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = regular::open(path)?;
        let modified = file.metadata()?.modified().ok();
        // SAFETY: the mapping is private and read-only. That others may write to the file is the nature of a
        // mapping: the bytes are plain numbers, valid whatever they are, and the guard covers a file that shrinks.
        let map = unsafe { memmap2::MmapOptions::new().map(&file)? };
        Ok(Self {
            path: path.to_owned(),
            file,
            modified,
            #[cfg(any(target_os = "linux", target_os = "macos"))]
            guard: guard::Guard::new(&map),
            brought: ahead::Brought::none(map.len()),
            disk: OnceLock::new(),
            map,
        })
    }

    /// Where the file was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes. Zeros, once the file was cut short and the lost part was read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Brings a range into memory; returns when it is there, where the system can wait for it. What was brought before and
    /// not released since is passed over. Only advice: bytes are read from the file when they are needed, with or without it.
    pub fn read_ahead(&self, range: Range<usize>) {
        let range = self.inside(range);
        for piece in ahead::pieces(&range) {
            if !self.brought.mark(piece) {
                let part = ahead::within(&range, piece);
                if let Some(Some(disk)) = self.disk.get() {
                    disk.count(part.len());
                }
                for start in part.clone().step_by(ahead::CALL_BYTES) {
                    self.bring(&(start..part.end.min(start + ahead::CALL_BYTES)));
                }
            }
        }
    }

    /// The parts of the file that a range touches, from the first to the last that was not brought yet.
    pub(crate) fn missing(&self, range: Range<usize>) -> Range<usize> {
        let mut pieces = ahead::pieces(&self.inside(range)).filter(|piece| !self.brought.is_marked(*piece));
        let Some(first) = pieces.next() else { return 0..0 };
        first..pieces.next_back().unwrap_or(first) + 1
    }

    /// A range as it lies on the disk; `None` if all of it was brought, or the system reads files into memory only.
    pub(crate) fn on_disk(&self, range: Range<usize>) -> Option<DiskPart> {
        let range = self.inside(range);
        if self.missing(range.clone()).is_empty() {
            return None;
        }
        let disk = self.disk.get_or_init(|| Disk::of(&self.file).map(Arc::new));
        Some(DiskPart::new(Arc::clone(disk.as_ref()?), &range))
    }

    fn bring(&self, range: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        #[cfg(target_os = "linux")]
        if self.map.advise_range(memmap2::Advice::PopulateRead, range.start, range.len()).is_ok() {
            return;
        }
        // Kernels before 5.14 only begin to read.
        #[cfg(unix)]
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
    }

    /// Takes a range out of this process's memory. Nothing is lost: whoever reads it again gets it from the file, or from
    /// the system's cache of it.
    pub fn release(&self, range: Range<usize>) {
        let Range { start, end } = self.inside(range);
        if start == end {
            return;
        }
        self.brought.clear(&(start..end));
        // SAFETY: the mapping is read-only, so its pages hold nothing that is not in the file; and where the guard put
        // zeros over it, zeros come back.
        #[cfg(unix)]
        let _ = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
        };
    }

    /// What of a range the file has.
    fn inside(&self, range: Range<usize>) -> Range<usize> {
        let start = range.start.min(self.map.len());
        start..range.end.clamp(start, self.map.len())
    }

    /// Whether the file still is what was opened: as long, not written since, and no byte of it was lost.
    ///
    /// # Errors
    /// [`Changed`], with the sizes.
    pub fn check(&self) -> Result<(), Changed> {
        let was_bytes = self.map.len() as u64;
        let now = self.file.metadata().ok();
        let is_bytes = now.as_ref().map_or(0, std::fs::Metadata::len);
        let modified = now.and_then(|now| now.modified().ok());
        if self.is_damaged() || is_bytes != was_bytes || modified != self.modified {
            return Err(Changed { was_bytes, is_bytes });
        }
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn is_damaged(&self) -> bool {
        self.guard.as_ref().is_some_and(guard::Guard::is_damaged)
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn is_damaged(&self) -> bool {
        false
    }
}
