//! A table that finds the places of a list by what is there.

use std::hash::{BuildHasher, RandomState};
use std::num::{NonZero, TryFromIntError};

/// Slots of the first table.
const FEWEST_SLOTS: usize = 1 << 10;

/// Places under hashes, with open addressing. What is compared lies elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// A power of two of them, a quarter of them empty at least; none before the first place.
    slots: Vec<Option<Slot>>,
    len: usize,
    /// Drawn anew for each table, so that no file can be made whose texts share a slot.
    keys: [u64; 2],
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    /// The place and 1.
    count: NonZero<u32>,
}

impl Slot {
    fn place(self) -> usize {
        self.count.get() as usize - 1
    }
}

impl Default for Index {
    fn default() -> Self {
        let random = RandomState::new();
        // An odd factor loses nothing.
        Self { slots: Vec::new(), len: 0, keys: [random.hash_one(0), random.hash_one(1) | 1] }
    }
}

impl Index {
    /// The hash under which a text is kept.
    pub(crate) fn hash(&self, text: &[u8]) -> u32 {
        let [start, factor] = self.keys;
        let (words, rest) = text.as_chunks();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let mut state = start ^ text.len() as u64;
        for word in words.iter().chain([&last]) {
            state = fold(state ^ u64::from_le_bytes(*word), factor);
        }
        let [a, b, c, d, ..] = state.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The place under this hash that is the one.
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize;
        loop {
            let slot = (*self.slots.get(at & mask)?)?;
            if slot.hash == hash && is_it(slot.place()) {
                return Some(slot.place());
            }
            at += 1;
        }
    }

    /// Adds a place that is not there yet.
    ///
    /// # Errors
    /// More than 2^32.
    pub(crate) fn insert(&mut self, hash: u32, place: usize) -> Result<(), TryFromIntError> {
        let new = Slot { hash, count: u32::try_from(place + 1)?.try_into()? };
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            let more = (self.slots.len() * 2).max(FEWEST_SLOTS);
            let before = std::mem::replace(&mut self.slots, vec![None; more]);
            before.into_iter().flatten().for_each(|slot| self.put(slot));
        }
        self.put(new);
        self.len += 1;
        Ok(())
    }

    /// Puts a slot in the first free place; there is one.
    fn put(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].is_some() {
            at = (at + 1) & mask;
        }
        self.slots[at] = Some(slot);
    }
}

/// Both halves of a product, one on the other.
fn fold(a: u64, b: u64) -> u64 {
    let wide = (u128::from(a) * u128::from(b)).to_le_bytes();
    let (halves, _) = wide.as_chunks::<8>();
    u64::from_le_bytes(halves[0]) ^ u64::from_le_bytes(halves[1])
}
