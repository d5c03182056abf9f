//! Host memory for tensors, and the pool that gives it out again.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::{Error, Result};

/// Initialised host memory that starts at a multiple of 64 bytes. Goes back to its pool when dropped.
pub struct AlignedBuffer {
    memory: Memory,
    len: usize,
    home: Weak<Pool>,
}

impl AlignedBuffer {
    /// Alignment of every buffer: one cache line, one AVX-512 register.
    pub const ALIGN: usize = 64;

    /// Memory of `len` bytes, all zero, that belongs to no pool; `None` if there is not enough.
    #[must_use]
    pub fn zeroed(len: usize) -> Option<Self> {
        Some(Self { memory: Memory::zeroed(capacity_for(len)?)?, len, home: Weak::new() })
    }

    /// Bytes of all large buffers of this process at the moment, in use or kept by a pool: mappings of their own, which an
    /// allocator that counts does not see.
    #[must_use]
    pub fn mapped_bytes() -> usize {
        MAPPED.now.load(Ordering::Relaxed)
    }

    /// The most that [`Self::mapped_bytes`] was since [`Self::reset_mapped_peak`].
    #[must_use]
    pub fn mapped_peak_bytes() -> usize {
        MAPPED.peak.load(Ordering::Relaxed)
    }

    /// Begins to look for the peak anew.
    pub fn reset_mapped_peak() {
        MAPPED.peak.store(Self::mapped_bytes(), Ordering::Relaxed);
    }

    /// The bytes, for reading.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is valid and initialised for `capacity >= len` bytes.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.len) }
    }

    /// The bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if let Some(pool) = self.home.upgrade() {
            pool.put(std::mem::replace(&mut self.memory, Memory::EMPTY));
        }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.len)
    }
}

/// Buffers that were used before, by capacity. A denoising step asks for the same sizes as the step before it,
/// so from the second step on nothing is allocated.
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<HashMap<usize, Vec<Memory>>>,
    held_bytes: AtomicUsize,
}

impl Pool {
    /// A buffer of `len` bytes with undefined (but initialised) contents; `None` if there is not enough memory.
    #[must_use]
    pub fn take(self: &Arc<Self>, len: usize) -> Option<AlignedBuffer> {
        let capacity = capacity_for(len)?;
        let used = self.lock().get_mut(&capacity).and_then(Vec::pop);
        let memory = match used {
            Some(memory) => memory,
            None => {
                let fresh = Memory::zeroed(capacity).or_else(|| {
                    self.clear(); // what is free has other sizes
                    Memory::zeroed(capacity)
                })?;
                self.held_bytes.fetch_add(capacity, Ordering::Relaxed);
                fresh
            }
        };
        Some(AlignedBuffer { memory, len, home: Arc::downgrade(self) })
    }

    /// Gives all free memory back to the system.
    pub fn clear(&self) {
        let free = std::mem::take(&mut *self.lock());
        let bytes = free.iter().map(|(size, list)| size * list.len()).sum();
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes taken from the system, in use or free. Does not grow while buffers are used again.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that wait to be used again.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.lock().iter().map(|(size, list)| size * list.len()).sum()
    }

    fn put(&self, memory: Memory) {
        self.lock().entry(memory.capacity).or_default().push(memory);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Vec<Memory>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An empty list of the host's with room for so many elements.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn with_room<T>(len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    let wanted_bytes = len.saturating_mul(size_of::<T>());
    list.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { device: "host".into(), wanted_bytes })?;
    Ok(list)
}

/// What a buffer of this length takes.
pub(crate) fn capacity_for(len: usize) -> Option<usize> {
    len.max(1).checked_next_multiple_of(AlignedBuffer::ALIGN)
}

/// Buffers of this size and more are mappings of their own: what is dropped goes back to the system at once, whereas
/// the allocator may keep it and then has holes of the wrong sizes.
const MAPPED_BYTES: usize = 256 << 10;

/// Has the process's allocator do the same: blocks of 256 KiB and more that are freed go back to the system at once. glibc
/// would keep blocks as large as the largest that was ever freed, up to 32 MiB, which the memory of the next picture then
/// comes on top of. And all threads share one of its arenas, each of which reserves 64 to 128 MiB of address space: kernels
/// allocate nothing, so that no thread waits for another. For a program to call at its start; it changes nothing but glibc.
pub fn return_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets numbers of the allocator's, under the allocator's own lock. A value that it refuses changes nothing.
    unsafe {
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "256 KiB")]
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES as libc::c_int);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    HAS_ONE_ARENA.store(true, Ordering::Relaxed);
}

static HAS_ONE_ARENA: AtomicBool = AtomicBool::new(false);

/// Address space that the process's allocator may yet reserve for threads and never use: of glibc some arenas, unless
/// [`return_freed_blocks`] was called.
#[must_use]
pub fn arenas_bytes() -> u64 {
    let has_arenas = cfg!(all(target_os = "linux", target_env = "gnu"));
    if has_arenas && !HAS_ONE_ARENA.load(Ordering::Relaxed) { 256 << 20 } else { 0 }
}

/// Bytes of all mappings.
struct Mapped {
    now: AtomicUsize,
    peak: AtomicUsize,
}

static MAPPED: Mapped = Mapped { now: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

/// An allocation: aligned, initialised, owned.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// Holds the memory, if it is a mapping.
    mapping: Option<memmap2::MmapMut>,
}

// SAFETY: the allocation has one owner; access follows the borrow of the `AlignedBuffer` that holds it.
unsafe impl Send for Memory {}
// SAFETY: shared access only reads.
unsafe impl Sync for Memory {}

impl Memory {
    const EMPTY: Self = Self { start: NonNull::dangling(), capacity: 0, mapping: None };

    fn zeroed(capacity: usize) -> Option<Self> {
        if capacity >= MAPPED_BYTES {
            let mut mapping = memmap2::MmapMut::map_anon(capacity).ok()?;
            let start = NonNull::new(mapping.as_mut_ptr())?; // the start of a page
            let now = MAPPED.now.fetch_add(capacity, Ordering::Relaxed) + capacity;
            MAPPED.peak.fetch_max(now, Ordering::Relaxed);
            return Some(Self { start, capacity, mapping: Some(mapping) });
        }
        let layout = Layout::from_size_align(capacity, AlignedBuffer::ALIGN).ok()?;
        // SAFETY: `capacity_for` never gives 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, capacity, mapping: None })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.mapping.is_some() {
            MAPPED.now.fetch_sub(self.capacity, Ordering::Relaxed);
        } else if self.capacity > 0 {
            // SAFETY: allocated with this size and alignment in `zeroed`.
            unsafe {
                let layout = Layout::from_size_align_unchecked(self.capacity, AlignedBuffer::ALIGN);
                dealloc(self.start.as_ptr(), layout);
            }
        }
    }
}
