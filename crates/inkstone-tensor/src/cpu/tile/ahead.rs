//! Memory that is wanted next, asked for while a tile multiplies.
//!
//! A panel is made of pieces of many rows of the weight, which no processor foresees. Asked for all at once they keep
//! it waiting; a line now and then between multiplications costs nothing and hides the memory's whole latency.

/// Words of k that a kernel multiplies between two times that it asks for lines.
pub(super) const WORDS_BETWEEN: usize = 16;
const LINE_BYTES: usize = 64;

/// Rows of bytes, the start of each at the same distance from the one before.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Lines {
    start: *const u8,
    stride_bytes: usize,
    row_bytes: usize,
    /// Cache lines before the first that is wanted, counted over all rows, and behind the last one.
    from: usize,
    to: usize,
}

impl Lines {
    pub(in crate::cpu) const NONE: Self =
        Self { start: std::ptr::null(), stride_bytes: 0, row_bytes: LINE_BYTES, from: 0, to: 0 };

    /// `rows` rows of `row_bytes` bytes; those beyond the slice are asked for as well, which is harmless.
    pub(in crate::cpu) fn of(bytes: &[u8], stride_bytes: usize, rows: usize, row_bytes: usize) -> Self {
        let to = rows * row_bytes.div_ceil(LINE_BYTES);
        Self { start: bytes.as_ptr(), stride_bytes, row_bytes: row_bytes.max(1), from: 0, to }
    }

    /// Part `i` of `n` about equal ones.
    pub(in crate::cpu) fn part(self, i: usize, n: usize) -> Self {
        let at = |i: usize| self.from + (self.to - self.from) * i / n;
        Self { from: at(i), to: at(i + 1), ..self }
    }

    /// All lines, in turns of a kernel that runs over `words` words of k.
    pub(super) fn over(self, words: usize) -> Ahead {
        let per_row = self.row_bytes.div_ceil(LINE_BYTES);
        let left = self.to - self.from;
        Ahead {
            row: self.start.wrapping_add(self.from / per_row * self.stride_bytes),
            at: self.from % per_row * LINE_BYTES,
            row_bytes: self.row_bytes,
            stride_bytes: self.stride_bytes,
            each: left.div_ceil(words.div_ceil(WORDS_BETWEEN).max(1)),
            left,
        }
    }
}

/// Lines on their way.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    row: *const u8,
    /// Bytes from the row's start to the next line.
    at: usize,
    row_bytes: usize,
    stride_bytes: usize,
    each: usize,
    left: usize,
}

impl Ahead {
    /// Asks for the lines of one turn.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        let now = self.each.min(self.left);
        self.left -= now;
        for _ in 0..now {
            ask(self.row.wrapping_add(self.at));
            self.at += LINE_BYTES;
            if self.at >= self.row_bytes {
                (self.row, self.at) = (self.row.wrapping_add(self.stride_bytes), 0);
            }
        }
    }
}

/// Asks for a line to come into the L2 cache.
#[inline(always)]
fn ask(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64; asking for memory never faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}
