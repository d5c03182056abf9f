//! Reads from the disk what is needed next, while something else is computed.
//!
//! The first pass through a model whose files the system's cache does not have would wait for the disk in front of each
//! weight, and the disk for each product. A thread reads the parts in the order of their use, a bounded way ahead of it. It
//! reads into the system's cache: nothing is mapped, so no plan of the process's memory changes, and what the cache has
//! already is not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use inkstone_tensor::{DiskPart, Pages};

#[cfg(test)]
mod tests;

/// How far reading is ahead of use: what one block of the transformer has in bf16, so that it is there when it begins.
const DISTANCE_BYTES: u64 = 512 << 20;
/// Bytes that are read at once: as much as a disk needs to be busy, and over in an instant when it is not wanted any more.
const PIECE_BYTES: u64 = 4 << 20;
/// Between two looks at how far use has come: far less than the disk needs for the distance.
const LOOK: Duration = Duration::from_millis(5);

/// A thread that reads ahead; ends when this is dropped, or when all is read.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Begins to read what will be used in this order. What is in memory already is left out; use is told by what products
    /// bring into memory.
    #[must_use]
    pub(crate) fn of<'a>(pages: impl IntoIterator<Item = &'a Pages>) -> Self {
        let parts: Vec<DiskPart> = pages.into_iter().flat_map(Pages::on_disk).collect();
        let mut files: Vec<DiskPart> = Vec::new();
        for part in &parts {
            if !files.iter().any(|file| file.is_of_same_file(part)) {
                files.push(part.slice(0..0));
            }
        }
        let brought = move || files.iter().map(DiskPart::brought_bytes).sum::<u64>();
        let before = brought();
        Self::begin(parts, DISTANCE_BYTES, move || brought() - before)
    }

    /// The same, where `used_bytes` tells how many of them were used.
    #[must_use]
    pub(crate) fn following<'a>(
        pages: impl IntoIterator<Item = &'a Pages>,
        used_bytes: impl Fn() -> u64 + Send + 'static,
    ) -> Self {
        Self::begin(pages.into_iter().flat_map(Pages::on_disk).collect(), DISTANCE_BYTES, used_bytes)
    }

    fn begin<S: Source + Send + 'static>(
        sources: Vec<S>,
        distance_bytes: u64,
        used_bytes: impl Fn() -> u64 + Send + 'static,
    ) -> Self {
        if sources.is_empty() {
            return Self::default();
        }
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&ended);
        let wait = move |bytes: u64| {
            let is_ended = || is_ended.load(Ordering::Relaxed);
            while bytes > used_bytes().saturating_add(distance_bytes) && !is_ended() {
                std::thread::park_timeout(LOOK);
            }
            !is_ended()
        };
        let thread = std::thread::Builder::new().name("inkstone-ahead".into());
        // Without a thread, pages come when they are needed.
        Self { ended, thread: thread.spawn(move || read(&sources, wait)).ok() }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It reads files and nothing else: there is nothing to hear of.
            let _ = thread.join();
        }
    }
}

/// What can be read.
trait Source {
    fn len_bytes(&self) -> u64;
    /// Whether a piece of it need not be read.
    fn has(&self, start: u64, bytes: u64) -> bool;
    /// Reads a piece; whether there was one.
    fn read(&self, start: u64, bytes: u64) -> bool;
}

impl Source for DiskPart {
    fn len_bytes(&self) -> u64 {
        Self::len_bytes(self)
    }

    fn has(&self, start: u64, bytes: u64) -> bool {
        self.slice(start..start + bytes).is_cached()
    }

    fn read(&self, start: u64, bytes: u64) -> bool {
        self.slice(start..start + bytes).fetch()
    }
}

/// Reads sources in order, piece by piece. `wait` returns as soon as a piece that ends so many bytes behind the beginning of
/// all may be read, or with `false` if nothing more is wanted.
fn read<S: Source>(sources: &[S], wait: impl Fn(u64) -> bool) {
    let mut before = 0;
    for source in sources {
        let (len, mut cached) = (source.len_bytes(), true);
        let mut start = 0;
        while start < len {
            let bytes = PIECE_BYTES.min(len - start);
            // What follows a piece that is not there seldom is; looking at it would disturb the order of reading.
            cached = cached && source.has(start, bytes);
            let there = cached || (wait(before + start + bytes) && source.read(start, bytes));
            if !there {
                return;
            }
            start += bytes;
        }
        before += len;
    }
}
