//! Formats of 32 elements a block: a half as scale, perhaps one as minimum, codes of 4, 5 or 8 bits.
//!
//! Of 4 bits, the byte `j` holds the codes of the elements `j` (low half) and `j + 16`; fifth bits lie in a word of
//! their own, bit `i` for element `i`.

use super::Block;
use crate::quant::{Codes, f16_at};

/// Elements of a block.
pub(crate) const LEN: usize = 32;
const HALF: usize = LEN / 2;

pub(crate) const Q4_0_BYTES: usize = 2 + HALF;
pub(crate) const Q4_1_BYTES: usize = 4 + HALF;
pub(crate) const Q5_0_BYTES: usize = 2 + 4 + HALF;
pub(crate) const Q5_1_BYTES: usize = 4 + 4 + HALF;
pub(crate) const Q8_0_BYTES: usize = 2 + LEN;

/// The 16 bytes behind `at` as 32 codes of 4 bits.
#[inline(always)]
fn nibbles<const N: usize>(block: &[u8; N], at: usize, to: &mut Codes) {
    for j in 0..HALF {
        to.codes[j] = block[at + j] & 0x0f;
        to.codes[j + HALF] = block[at + j] >> 4;
    }
}

/// Adds the fifth bits from the word at `at`.
#[inline(always)]
fn fifth_bits<const N: usize>(block: &[u8; N], at: usize, to: &mut Codes) {
    const PLACES: [u8; LEN] = {
        let mut places = [0; LEN];
        let mut i = 0;
        while i < LEN {
            places[i] = 1 << (i % 8);
            i += 1;
        }
        places
    };
    // A byte for each code and a bit in it: vectors compare bytes, but have no shifts for each.
    let bytes: [u8; LEN] = std::array::from_fn(|i| block[at + i / 8]);
    for ((code, byte), place) in to.codes.iter_mut().zip(bytes).zip(PLACES) {
        *code |= if byte & place == 0 { 0 } else { 0x10 };
    }
}

/// `d * (code - zero)`, or `d * code + m`.
#[inline(always)]
fn scales(d: f32, offset: f32, to: &mut Codes) {
    for run in 0..2 {
        to.scale[run] = d;
        to.offset[run] = offset;
    }
}

/// `d`, 16 bytes: `d * (code - 8)`.
pub(crate) struct Q4_0;

impl Block<Q4_0_BYTES> for Q4_0 {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q4_0_BYTES], to: &mut Codes) {
        let d = f16_at(block, 0);
        scales(d, -8.0 * d, to);
        nibbles(block, 2, to);
    }
}

/// `d`, `m`, 16 bytes: `d * code + m`.
pub(crate) struct Q4_1;

impl Block<Q4_1_BYTES> for Q4_1 {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q4_1_BYTES], to: &mut Codes) {
        scales(f16_at(block, 0), f16_at(block, 2), to);
        nibbles(block, 4, to);
    }
}

/// `d`, a word of fifth bits, 16 bytes: `d * (code - 16)`.
pub(crate) struct Q5_0;

impl Block<Q5_0_BYTES> for Q5_0 {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q5_0_BYTES], to: &mut Codes) {
        let d = f16_at(block, 0);
        scales(d, -16.0 * d, to);
        nibbles(block, 6, to);
        fifth_bits(block, 2, to);
    }
}

/// `d`, `m`, a word of fifth bits, 16 bytes: `d * code + m`.
pub(crate) struct Q5_1;

impl Block<Q5_1_BYTES> for Q5_1 {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q5_1_BYTES], to: &mut Codes) {
        scales(f16_at(block, 0), f16_at(block, 2), to);
        nibbles(block, 8, to);
        fifth_bits(block, 4, to);
    }
}

/// `d`, 32 signed bytes: `d * code`.
pub(crate) struct Q8_0;

impl Block<Q8_0_BYTES> for Q8_0 {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q8_0_BYTES], to: &mut Codes) {
        let d = f16_at(block, 0);
        // Codes are unsigned here: 128 more than they are.
        scales(d, -128.0 * d, to);
        for (code, byte) in to.codes.iter_mut().zip(&block[2..]) {
            *code = byte ^ 0x80;
        }
    }
}
