//! Reads files into the system's cache, for whoever maps them and needs them next.
//!
//! A page of a mapped file that the cache does not have is read from the disk when it is touched, and its thread waits.
//! Reading it before, on a thread that does nothing else, maps nothing: the process holds no more memory for it.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
mod tests;

/// One look at the cache in so many bytes.
#[cfg(target_os = "linux")]
const LOOK_BYTES: u64 = 1 << 20;

/// A part of a file that is mapped somewhere. It keeps the file open, but not the mapping.
#[derive(Clone, Debug)]
pub struct DiskPart {
    disk: Arc<Disk>,
    range: Range<u64>,
}

/// A file that is mapped somewhere.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Opened again: the system keeps what it knows of the order of reading for each opening, and page faults have another order.
    file: File,
    /// Where bytes go that nobody looks at.
    nowhere: File,
    /// Bytes of the file that were brought into the process so far; see [`MappedFile::read_ahead`](crate::MappedFile).
    brought_bytes: AtomicU64,
}

impl Disk {
    /// Opens a file again, whatever its name leads to by now; `None` where the system cannot.
    #[cfg(target_os = "linux")]
    pub(crate) fn of(file: &File) -> Option<Self> {
        use std::os::fd::AsRawFd as _;
        Some(Self {
            file: File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?,
            nowhere: File::options().write(true).open("/dev/null").ok()?,
            brought_bytes: AtomicU64::new(0),
        })
    }

    /// Other systems only know what is read into memory.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_file: &File) -> Option<Self> {
        None
    }

    /// Counts bytes that were brought into the process.
    pub(crate) fn count(&self, bytes: usize) {
        self.brought_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl DiskPart {
    pub(crate) fn new(disk: Arc<Disk>, range: &Range<usize>) -> Self {
        Self { disk, range: range.start as u64..range.end as u64 }
    }

    /// How long it is.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The part of it that begins and ends so many bytes behind its beginning; at its end at the latest.
    #[must_use]
    pub fn slice(&self, bytes: Range<u64>) -> Self {
        let end = self.range.start.saturating_add(bytes.end).min(self.range.end);
        let start = self.range.start.saturating_add(bytes.start).min(end);
        Self { disk: Arc::clone(&self.disk), range: start..end }
    }

    /// Whether two parts are of one file.
    #[must_use]
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.disk, &other.disk)
    }

    /// Bytes of its file that were brought into the process since it was mapped, those that came again included.
    #[must_use]
    pub fn brought_bytes(&self) -> u64 {
        self.disk.brought_bytes.load(Ordering::Relaxed)
    }

    /// Whether the system's cache has it, by a look at a byte of each MiB. `false` where the system does not tell.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn is_cached(&self) -> bool {
        use std::os::fd::AsRawFd as _;

        let mut byte = 0_u8;
        let target = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let step = usize::try_from(LOOK_BYTES).unwrap_or(usize::MAX);
        self.range.clone().step_by(step).all(|offset| {
            let Ok(offset) = libc::off_t::try_from(offset) else { return false };
            let file = self.disk.file.as_raw_fd();
            // SAFETY: the file is open, and the one target is a byte of ours. With this flag the call does not wait for a disk.
            unsafe { libc::preadv2(file, &raw const target, 1, offset, libc::RWF_NOWAIT) == 1 }
        })
    }

    /// Not told by this system.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub fn is_cached(&self) -> bool {
        false
    }

    /// Reads it into the system's cache, in order; returns when it is there. `false` if the file ends before, or the system
    /// cannot.
    #[cfg(target_os = "linux")]
    pub fn fetch(&self) -> bool {
        use std::os::fd::AsRawFd as _;

        let Ok(mut offset) = libc::off_t::try_from(self.range.start) else { return false };
        let mut left = self.len_bytes();
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX);
            let (to, from) = (self.disk.nowhere.as_raw_fd(), self.disk.file.as_raw_fd());
            // SAFETY: both files are open, and the offset is ours. Nothing is copied: the target takes no bytes.
            let sent = unsafe { libc::sendfile(to, from, &raw mut offset, count) };
            match u64::try_from(sent) {
                Ok(sent @ 1..) => left = left.saturating_sub(sent),
                _ => return false,
            }
        }
        true
    }

    /// Not done on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn fetch(&self) -> bool {
        false
    }
}
