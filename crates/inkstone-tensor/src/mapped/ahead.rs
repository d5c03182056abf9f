//! Which parts of a mapped file were brought into memory at once.
//!
//! A page that is read for the first time is a fault, of which the system makes one for each 64 KiB, in the middle of a product;
//! and what a product asks for ahead of need is not brought where no page is mapped. Mapping a part at once takes two thirds of
//! the time.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a part.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a call to the system: while one lasts, other threads may have to wait for memory. Smaller ones cost nothing.
pub(super) const CALL_BYTES: usize = 256 << 10;
/// Parts in a word.
const WORD: usize = 64;

/// A mark for each part of a file.
#[derive(Debug)]
pub(super) struct Brought(Box<[AtomicU64]>);

impl Brought {
    /// No mark yet, for a file of so many bytes.
    pub(super) fn none(bytes: usize) -> Self {
        Self((0..bytes.div_ceil(PIECE_BYTES * WORD)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Marks a part; whether it was marked.
    pub(super) fn mark(&self, piece: usize) -> bool {
        let bit = 1 << (piece % WORD);
        self.0[piece / WORD].fetch_or(bit, Ordering::Relaxed) & bit != 0
    }

    pub(super) fn is_marked(&self, piece: usize) -> bool {
        self.0[piece / WORD].load(Ordering::Relaxed) & (1 << (piece % WORD)) != 0
    }

    /// Takes the marks away of all that a range touches.
    pub(super) fn clear(&self, range: &Range<usize>) {
        for piece in pieces(range) {
            self.0[piece / WORD].fetch_and(!(1 << (piece % WORD)), Ordering::Relaxed);
        }
    }
}

/// The parts that a range touches.
pub(super) fn pieces(range: &Range<usize>) -> Range<usize> {
    range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES).max(range.start / PIECE_BYTES)
}

/// What of a range is in a part.
pub(crate) fn within(range: &Range<usize>, piece: usize) -> Range<usize> {
    range.start.max(piece * PIECE_BYTES)..range.end.min((piece + 1) * PIECE_BYTES)
}
