//! Weights as the program carries them: without groups of zeros, and with four bits for a bf16 value's high byte,
//! which holds its sign and most of its exponent and is one of fifteen in all but a thousandth of the values.
//!
//! In this order, the numbers little-endian: the size in bytes and the count of escaped high bytes, both as u64; the
//! fifteen frequent high bytes; the last byte of an odd size; one bit for each group of four values, set where the
//! group is not all zero (a causal kernel that a single picture meets is two thirds zero); four bits for each value
//! that is there, its high byte's place among the frequent ones or 15; the escaped high bytes; the low bytes.

/// Values of two bytes in a group.
const GROUP: usize = 4;
const FREQUENT: usize = 15;

/// Where the bytes of a packed file begin that [`unpack`] walks through.
struct Parts<'a> {
    size_bytes: usize,
    frequent: &'a [u8],
    odd: u8,
    kept: &'a [u8],
    codes: &'a [u8],
    escaped: &'a [u8],
    low: &'a [u8],
}

/// Bytes after unpacking.
pub(super) fn size_bytes(packed: &[u8]) -> usize {
    parts(packed).size_bytes
}

fn parts(packed: &[u8]) -> Parts<'_> {
    let (numbers, rest) = packed.split_at(16);
    let number =
        |at: usize| numbers[at..at + 8].iter().rev().fold(0, |n: usize, byte| n << 8 | usize::from(*byte));
    let (size_bytes, escaped) = (number(0), number(8));
    let (frequent, rest) = rest.split_at(FREQUENT);
    let (odd, rest) = (rest[0], &rest[1..]);
    let pairs = size_bytes / 2;
    let (kept, rest) = rest.split_at(pairs.div_ceil(GROUP).div_ceil(8));
    let values = (0..pairs.div_ceil(GROUP))
        .filter(|group| is_kept(kept, *group))
        .map(|g| group_len(pairs, g))
        .sum::<usize>();
    let (codes, rest) = rest.split_at(values.div_ceil(2));
    let (escaped, low) = rest.split_at(escaped);
    Parts { size_bytes, frequent, odd, kept, codes, escaped, low }
}

fn is_kept(kept: &[u8], group: usize) -> bool {
    kept[group / 8] >> (group % 8) & 1 == 1
}

fn group_len(pairs: usize, group: usize) -> usize {
    GROUP.min(pairs - group * GROUP)
}

/// Writes the file to `out`, of [`size_bytes`] zeros.
pub(super) fn unpack(packed: &[u8], out: &mut [u8]) {
    let parts = parts(packed);
    let (pairs, odd) = out.as_chunks_mut::<2>();
    odd.iter_mut().for_each(|byte| *byte = parts.odd);
    let (mut value, mut escaped) = (0, parts.escaped.iter());
    for (group, pairs) in pairs.chunks_mut(GROUP).enumerate() {
        if !is_kept(parts.kept, group) {
            continue;
        }
        for pair in pairs {
            let code = usize::from(parts.codes[value / 2] >> (value % 2 * 4) & 15);
            let high = parts.frequent.get(code).or_else(|| escaped.next());
            *pair = [parts.low[value], high.copied().unwrap_or(0)];
            value += 1;
        }
    }
}

#[cfg(test)]
#[path = "../../../build/pack.rs"]
mod pack;

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
