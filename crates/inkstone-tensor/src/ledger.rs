//! Memory that is counted and not taken: a model that runs on a counting device says what a real run will need.
//!
//! What counts is what the system counts as resident: buffers of the pool, whether in use or kept; memory beside it;
//! and the pages of files that were touched and not released.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buffer::capacity_for;
use crate::{Device, MappedFile, Result, Storage, Tensor};

#[cfg(test)]
mod tests;

/// What one touch of a mapped file brings in: Linux maps the pages around a fault that it has in memory anyway
/// (`fault_around_bytes`, mm/memory.c).
const AROUND_BYTES: usize = 64 << 10;

/// Memory at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Of the pool, in use or kept.
    pub pool_bytes: usize,
    /// Taken beside the pool: copies of weights, memory inside of operations, vectors of the host.
    pub owned_bytes: usize,
    /// Pages of mapped files.
    pub mapped_bytes: usize,
}

impl Footprint {
    /// What cannot be read from a file again.
    #[must_use]
    pub const fn anonymous_bytes(&self) -> usize {
        self.pool_bytes + self.owned_bytes
    }

    /// All of it.
    #[must_use]
    pub const fn total_bytes(&self) -> usize {
        self.anonymous_bytes() + self.mapped_bytes
    }
}

/// Work: multiply-adds by what does them, and what is done beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Products {
    /// Of linear layers.
    pub linear: f64,
    /// Of attention.
    pub attention: f64,
    /// Of convolutions.
    pub conv: f64,
    /// Elements that operations give which multiply no matrices: norms, rotations, sums, copies.
    pub elements: f64,
}

impl Products {
    /// All multiply-adds.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.linear + self.attention + self.conv
    }
}

impl std::ops::Sub for Products {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            linear: self.linear - other.linear,
            attention: self.attention - other.attention,
            conv: self.conv - other.conv,
            elements: self.elements - other.elements,
        }
    }
}

/// The account of a counting device; see [`Device::counting`](crate::Device::counting).
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// Buffers of the pool that wait to be used again, by capacity.
    kept: HashMap<usize, usize>,
    now: Footprint,
    /// Largest scratch so far; part of what is owned.
    scratch_bytes: usize,
    /// When most was resident.
    peak: Footprint,
    anonymous_peak_bytes: usize,
    products: Products,
}

impl Books {
    fn note(&mut self) {
        if self.now.total_bytes() > self.peak.total_bytes() {
            self.peak = self.now;
        }
        self.anonymous_peak_bytes = self.anonymous_peak_bytes.max(self.now.anonymous_bytes());
    }
}

impl Ledger {
    /// Begins a section: peaks and products are counted from here.
    pub fn begin(&self) {
        let mut books = self.lock();
        books.peak = books.now;
        books.anonymous_peak_bytes = books.now.anonymous_bytes();
        books.products = Products::default();
    }

    /// Memory now.
    #[must_use]
    pub fn now(&self) -> Footprint {
        self.lock().now
    }

    /// Memory when most was resident, since the section began.
    #[must_use]
    pub fn peak(&self) -> Footprint {
        self.lock().peak
    }

    /// The most anonymous memory since the section began.
    #[must_use]
    pub fn anonymous_peak_bytes(&self) -> usize {
        self.lock().anonymous_peak_bytes
    }

    /// Multiply-adds since the section began.
    #[must_use]
    pub fn products(&self) -> Products {
        self.lock().products
    }

    /// Memory of the host beside the pool, until the result is dropped.
    #[must_use]
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Counted {
        let mut books = self.lock();
        books.now.owned_bytes += bytes;
        books.note();
        Counted { ledger: Arc::clone(self), len: bytes, kind: Kind::Owned }
    }

    /// A file of so many bytes that is mapped: only what is touched counts.
    #[must_use]
    pub fn file(self: &Arc<Self>, bytes: usize) -> Arc<CountedFile> {
        Arc::new(CountedFile::new(self, bytes))
    }

    /// A buffer of the pool.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Option<Counted> {
        let capacity = capacity_for(len)?;
        let mut books = self.lock();
        match books.kept.get_mut(&capacity).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => {
                books.now.pool_bytes = books.now.pool_bytes.checked_add(capacity)?;
                books.note();
            }
        }
        Some(Counted { ledger: Arc::clone(self), len, kind: Kind::Pooled(capacity) })
    }

    /// Gives what the pool keeps back to the system.
    pub(crate) fn trim(&self) {
        let mut books = self.lock();
        let kept = std::mem::take(&mut books.kept);
        books.now.pool_bytes -= kept.iter().map(|(capacity, count)| capacity * count).sum::<usize>();
    }

    /// Memory inside of operations, which stays taken.
    pub(crate) fn scratch(&self, bytes: usize) {
        let mut books = self.lock();
        if bytes > books.scratch_bytes {
            books.now.owned_bytes += bytes - books.scratch_bytes;
            books.scratch_bytes = bytes;
            books.note();
        }
    }

    pub(crate) fn add(&self, products: Products) {
        let mut books = self.lock();
        books.products.linear += products.linear;
        books.products.attention += products.attention;
        books.products.conv += products.conv;
        books.products.elements += products.elements;
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that are not there: those of a tensor on a counting device.
#[derive(Debug)]
pub struct Counted {
    ledger: Arc<Ledger>,
    len: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Of the pool, with this capacity.
    Pooled(usize),
    /// Beside the pool.
    Owned,
    /// In the program, or taken before the count began.
    There,
    /// In a file, from this byte on.
    File(Arc<CountedFile>, usize),
}

impl Counted {
    /// How many there would be.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether they could be written.
    pub(crate) fn is_writable(&self) -> bool {
        !matches!(self.kind, Kind::File(..) | Kind::There)
    }

    /// Reads some of them.
    pub(crate) fn touch(&self, range: Range<usize>) {
        if let Kind::File(file, start) = &self.kind {
            file.touch(start + range.start..start + range.end);
        }
    }

    /// The file they lie in, and where.
    pub(crate) fn in_file(&self) -> Option<(&Arc<CountedFile>, Range<usize>)> {
        match &self.kind {
            Kind::File(file, start) => Some((file, *start..start + self.len)),
            Kind::Pooled(_) | Kind::Owned | Kind::There => None,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        match self.kind {
            Kind::Pooled(capacity) => *self.ledger.lock().kept.entry(capacity).or_default() += 1,
            Kind::Owned => self.ledger.lock().now.owned_bytes -= self.len,
            Kind::File(..) | Kind::There => {}
        }
    }
}

/// Makes tensors of a counting device from real ones that were opened but not read.
#[derive(Debug)]
pub struct StandIns {
    device: Device,
    ledger: Arc<Ledger>,
    /// By the mapping's address.
    files: HashMap<usize, Arc<CountedFile>>,
}

impl StandIns {
    /// For a device and its ledger.
    #[must_use]
    pub fn new(device: &Device, ledger: &Arc<Ledger>) -> Self {
        Self { device: device.clone(), ledger: Arc::clone(ledger), files: HashMap::new() }
    }

    /// A tensor of the same type and shape whose bytes count where the real ones would lie: in the same file or in
    /// memory. What is part of the program counts as nothing: the program is there already.
    ///
    /// # Errors
    /// A tensor whose rows are padded: those of files are not.
    pub fn like(&mut self, tensor: &Tensor) -> Result<Tensor> {
        let (storage, span) = tensor.stored();
        let counted = match storage {
            Storage::Mapped(file, range) => {
                let file = self.file(file);
                file.range(range.start + span.start..range.start + span.end)
            }
            Storage::Static(_) => {
                Counted { ledger: Arc::clone(&self.ledger), len: span.len(), kind: Kind::There }
            }
            Storage::Owned(_) | Storage::Counted(_) => self.ledger.hold(span.len()),
        };
        Tensor::from_storage(&self.device, Storage::Counted(counted), tensor.dtype(), *tensor.shape())
    }

    /// The same for a tensor that will be read into memory.
    ///
    /// # Errors
    /// As [`Self::like`].
    pub fn owned_like(&mut self, tensor: &Tensor) -> Result<Tensor> {
        let counted = self.ledger.hold(tensor.stored().1.len());
        Tensor::from_storage(&self.device, Storage::Counted(counted), tensor.dtype(), *tensor.shape())
    }

    /// The same for a tensor that was read before the count began.
    ///
    /// # Errors
    /// As [`Self::like`].
    pub fn held_like(&mut self, tensor: &Tensor) -> Result<Tensor> {
        let len = tensor.stored().1.len();
        let counted = Counted { ledger: Arc::clone(&self.ledger), len, kind: Kind::There };
        Tensor::from_storage(&self.device, Storage::Counted(counted), tensor.dtype(), *tensor.shape())
    }

    /// The same for a counted tensor as it would be if it lay in a file of its own, where rows are not padded.
    ///
    /// # Errors
    /// None: the file is as long as the tensor.
    pub fn filed_like(&mut self, tensor: &Tensor) -> Result<Tensor> {
        let len = tensor.shape().count() * tensor.dtype().size_bytes();
        let counted = self.ledger.file(len).range(0..len);
        Tensor::from_storage(&self.device, Storage::Counted(counted), tensor.dtype(), *tensor.shape())
    }

    fn file(&mut self, file: &Arc<MappedFile>) -> Arc<CountedFile> {
        let new = || self.ledger.file(file.bytes().len());
        Arc::clone(self.files.entry(Arc::as_ptr(file).addr()).or_insert_with(new))
    }
}

/// A mapped file that is not there.
#[derive(Debug)]
pub struct CountedFile {
    ledger: Arc<Ledger>,
    bytes: usize,
    /// A bit for each piece of [`AROUND_BYTES`], 64 of them in a word.
    touched: Mutex<HashMap<usize, u64>>,
}

impl CountedFile {
    fn new(ledger: &Arc<Ledger>, bytes: usize) -> Self {
        Self { ledger: Arc::clone(ledger), bytes, touched: Mutex::default() }
    }

    /// The bytes of a range of the file; cut off at its end.
    #[must_use]
    pub fn range(self: &Arc<Self>, range: Range<usize>) -> Counted {
        let start = range.start.min(self.bytes);
        let len = range.end.min(self.bytes).saturating_sub(start);
        Counted { ledger: Arc::clone(&self.ledger), len, kind: Kind::File(Arc::clone(self), start) }
    }

    /// Brings a range into memory.
    pub(crate) fn touch(&self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.change(range.start / AROUND_BYTES..range.end.div_ceil(AROUND_BYTES), true);
    }

    /// Lets a range go; the pieces at its ends stay, as others share them.
    pub(crate) fn release(&self, range: Range<usize>) {
        let end =
            if range.end >= self.bytes { range.end.div_ceil(AROUND_BYTES) } else { range.end / AROUND_BYTES };
        self.change(range.start.div_ceil(AROUND_BYTES)..end, false);
    }

    fn change(&self, pieces: Range<usize>, touched: bool) {
        let mut words = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = 0;
        let mut piece = pieces.start;
        while piece < pieces.end {
            let (word, bit) = (piece / 64, piece % 64);
            let count = (64 - bit).min(pieces.end - piece);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let word = words.entry(word).or_default();
            let new = if touched { *word | mask } else { *word & !mask };
            changed += (*word ^ new).count_ones() as usize;
            *word = new;
            piece += count;
        }
        drop(words);
        let mut books = self.ledger.lock();
        if touched {
            books.now.mapped_bytes += changed * AROUND_BYTES;
            books.note();
        } else {
            books.now.mapped_bytes -= changed * AROUND_BYTES;
        }
    }
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        let words = self.touched.get_mut().unwrap_or_else(PoisonError::into_inner);
        let pieces: usize = words.values().map(|word| word.count_ones() as usize).sum();
        self.ledger.lock().now.mapped_bytes -= pieces * AROUND_BYTES;
    }
}
