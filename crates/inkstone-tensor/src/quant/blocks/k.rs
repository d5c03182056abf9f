//! Formats of 256 elements a block: a half scales the scales of 16 or 32 elements each.
//!
//! All values are `scale * code + offset` exactly as the reference computes them: a half (11 bits), a scale (up to 8)
//! and a code (up to 6) multiply without rounding in f32, so one rounding at the end is all there is.

use super::Block;
use crate::quant::{Codes, RUN, f16_at};

/// Elements of a block.
pub(crate) const LEN: usize = 256;

pub(crate) const Q2_K_BYTES: usize = LEN / 16 + LEN / 4 + 4;
pub(crate) const Q3_K_BYTES: usize = LEN / 8 + LEN / 4 + 12 + 2;
pub(crate) const Q4_K_BYTES: usize = 4 + 12 + LEN / 2;
pub(crate) const Q5_K_BYTES: usize = 4 + 12 + LEN / 8 + LEN / 2;
pub(crate) const Q6_K_BYTES: usize = LEN / 2 + LEN / 4 + LEN / 16 + 2;

/// The 64 bytes from `at` as 256 codes of 2 bits: of 32 bytes the lowest two bits are elements 0 to 31, and so on.
#[inline(always)]
fn pairs<const N: usize>(block: &[u8; N], at: usize, to: &mut Codes) {
    for half in 0..2 {
        for part in 0..4 {
            for l in 0..32 {
                to.codes[128 * half + 32 * part + l] = (block[at + 32 * half + l] >> (2 * part)) & 3;
            }
        }
    }
}

/// The 128 bytes from `at` as 256 codes of 4 bits: of 32 bytes the low halves, then the high ones.
#[inline(always)]
fn nibbles<const N: usize>(block: &[u8; N], at: usize, to: &mut Codes) {
    for chunk in 0..4 {
        for l in 0..32 {
            let byte = block[at + 32 * chunk + l];
            to.codes[64 * chunk + l] = byte & 0x0f;
            to.codes[64 * chunk + 32 + l] = byte >> 4;
        }
    }
}

/// Adds the 256 bits from `at` as bit `BIT` of the codes: bit `i` of 32 bytes for the run `i` of 32 elements.
#[inline(always)]
fn high_bits<const N: usize, const BIT: u8>(block: &[u8; N], at: usize, to: &mut Codes) {
    // Arrays of known lengths, or the compiler makes no vectors of the loops.
    let bytes: [u8; 32] = std::array::from_fn(|l| block[at + l]);
    for (part, codes) in to.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code |= ((byte >> part) & 1) << BIT;
        }
    }
}

/// 16 bytes of scale (low half) and minimum, 64 bytes of codes, `d`, `dmin`.
pub(crate) struct Q2K;

impl Block<Q2_K_BYTES> for Q2K {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q2_K_BYTES], to: &mut Codes) {
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (run, byte) in block[..LEN / RUN].iter().enumerate() {
            to.scale[run] = d * f32::from(byte & 0x0f);
            to.offset[run] = -dmin * f32::from(byte >> 4);
        }
        pairs(block, 16, to);
    }
}

/// 16 numbers of 6 bits: low halves of 8 bytes, then their high halves; two more bits of each in the last 4 bytes.
#[inline(always)]
pub(crate) fn six_bits(packed: &[u8; 12]) -> [u8; 16] {
    const LOW_HALVES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    const PAIRS: u64 = 0x0303_0303;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *packed;
    let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let high = u64::from(u32::from_le_bytes([i, j, k, l]));
    // Pair `n` of the four bytes for four numbers, pair `n + 1` for the next four.
    let pairs = |n: u32| ((high >> (2 * n)) & PAIRS) | ((high >> (2 * n + 2)) & PAIRS) << 32;
    let first = (low & LOW_HALVES) | pairs(0) << 4;
    let second = ((low >> 4) & LOW_HALVES) | pairs(2) << 4;
    let mut six = [0; 16];
    six[..8].copy_from_slice(&first.to_le_bytes());
    six[8..].copy_from_slice(&second.to_le_bytes());
    six
}

/// 32 bytes of third bits, 64 bytes of codes, 16 scales of 6 bits in 12 bytes, `d`: `d * (scale - 32) * (code - 4)`.
pub(crate) struct Q3K;

impl Block<Q3_K_BYTES> for Q3K {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q3_K_BYTES], to: &mut Codes) {
        let d = f16_at(block, 108);
        let packed: &[u8; 12] = block[96..].first_chunk().unwrap_or(&[0; 12]);
        to.scale = six_bits(packed).map(|six| d * (f32::from(six) - 32.0));
        to.offset = to.scale.map(|scale| -4.0 * scale);
        pairs(block, 32, to);
        high_bits::<_, 2>(block, 0, to);
    }
}

/// Scales and minima of the eight 32-element runs, 6 bits each in 12 bytes, times `d` and `dmin`.
#[inline(always)]
fn scales_and_minima(d: f32, dmin: f32, packed: &[u8; 12], to: &mut Codes) {
    for i in 0..8 {
        let (scale, minimum) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            // Four low bits from the last 4 bytes, the two high ones of the first 8 bytes.
            let low = packed[i + 4];
            ((low & 0x0f) | ((packed[i - 4] >> 6) << 4), (low >> 4) | ((packed[i] >> 6) << 4))
        };
        let (scale, offset) = (d * f32::from(scale), -dmin * f32::from(minimum));
        for run in 2 * i..2 * i + 2 {
            to.scale[run] = scale;
            to.offset[run] = offset;
        }
    }
}

/// `d`, `dmin`, scales and minima, 128 bytes of codes.
pub(crate) struct Q4K;

impl Block<Q4_K_BYTES> for Q4K {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q4_K_BYTES], to: &mut Codes) {
        let packed = block[4..].first_chunk().unwrap_or(&[0; 12]);
        scales_and_minima(f16_at(block, 0), f16_at(block, 2), packed, to);
        nibbles(block, 16, to);
    }
}

/// As [`Q4K`] with 32 bytes of fifth bits before the codes: bit `i` of them for the run `i` of 32 elements.
pub(crate) struct Q5K;

impl Block<Q5_K_BYTES> for Q5K {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q5_K_BYTES], to: &mut Codes) {
        let packed = block[4..].first_chunk().unwrap_or(&[0; 12]);
        scales_and_minima(f16_at(block, 0), f16_at(block, 2), packed, to);
        nibbles(block, 48, to);
        high_bits::<_, 4>(block, 16, to);
    }
}

/// 128 bytes of low halves, 64 bytes of the two high bits, 16 signed scales, `d`: `d * scale * (code - 32)`.
pub(crate) struct Q6K;

impl Block<Q6_K_BYTES> for Q6K {
    const LEN: usize = LEN;

    #[inline(always)]
    fn unpack(block: &[u8; Q6_K_BYTES], to: &mut Codes) {
        let d = f16_at(block, 208);
        for run in 0..LEN / RUN {
            let scale = d * f32::from(block[192 + run].cast_signed());
            to.scale[run] = scale;
            to.offset[run] = -32.0 * scale;
        }
        for half in 0..2 {
            for part in 0..4 {
                for l in 0..32 {
                    let low = block[64 * half + 32 * (part % 2) + l] >> (4 * (part / 2));
                    let high = block[128 + 32 * half + l] >> (2 * part);
                    to.codes[128 * half + 32 * part + l] = (low & 0x0f) | ((high & 3) << 4);
                }
            }
        }
    }
}
