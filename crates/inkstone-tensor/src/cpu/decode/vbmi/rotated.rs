//! Signed bytes of rows that were rotated.
//!
//! A place among 256 elements is four digits of base 4, and the rotation goes over one digit after the other. Those of
//! the last digit lie in one word of 32 bits, those of the third one in four words side by side, the second one chooses a
//! quarter of a register, the first one a register. Additions want what they add in different registers: so registers exchange
//! words, then quarters, and what is left in the wrong order at the end is put right where values are stored.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{BlockRow, round};
use crate::quant::{ConvRotRow, MAX_GROUP};

/// Rows rotated over the last `DIGITS` digits.
pub(super) struct Rotated<'a, const DIGITS: usize>(pub(super) ConvRotRow<'a>);

impl<const DIGITS: usize> BlockRow for Rotated<'_, DIGITS> {
    const LEN: usize = MAX_GROUP;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
    #[inline]
    unsafe fn write(&self, blocks: Range<usize>, to: *mut u16) {
        for (block, i) in blocks.zip((0..).step_by(MAX_GROUP)) {
            let bytes = &self.0.bytes[block * MAX_GROUP..];
            let to = to.wrapping_add(i);
            // SAFETY: the caller's promise.
            unsafe {
                match bytes.first_chunk() {
                    Some(bytes) => rotate::<DIGITS>(bytes, self.0.factor, to),
                    None => rotate::<DIGITS>(&padded(bytes), self.0.factor, to),
                }
            }
        }
    }
}

/// The bytes, zeros behind them.
#[cold]
fn padded(bytes: &[u8]) -> [u8; MAX_GROUP] {
    let mut padded = [0; MAX_GROUP];
    padded[..bytes.len()].copy_from_slice(bytes);
    padded
}

/// Four elements `a b c d` become `a + b + c - d`, `a + b - c + d`, `a - b + c + d`, `-a + b + c + d`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn step([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (sum, difference) = (_mm512_add_epi16(a, b), _mm512_sub_epi16(a, b));
    let (sum2, difference2) = (_mm512_add_epi16(c, d), _mm512_sub_epi16(c, d));
    [
        _mm512_add_epi16(sum, difference2),
        _mm512_sub_epi16(sum, difference2),
        _mm512_add_epi16(sum2, difference),
        _mm512_sub_epi16(sum2, difference),
    ]
}

/// Word `w` of each quarter of register `r` becomes word `r` of register `w`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn exchange_words([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(low, low2),
        _mm512_unpackhi_epi64(low, low2),
        _mm512_unpacklo_epi64(high, high2),
        _mm512_unpackhi_epi64(high, high2),
    ]
}

/// Quarter `q` of register `r` becomes quarter `r` of register `q`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn exchange_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low, high) =
        (_mm512_shuffle_i32x4::<0b01_00_01_00>(a, b), _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b));
    let (low2, high2) =
        (_mm512_shuffle_i32x4::<0b01_00_01_00>(c, d), _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d));
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low2),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low2),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high2),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high2),
    ]
}

/// Which words of `a b` and `c d` (each 16 words for elements of one last digit) are elements 0 to 15 of the first or third run of
/// 64, then those of the run behind: word `4 q + r` belongs to run `r` and quarter `q`.
const fn order(first_run: usize) -> [u16; 32] {
    let mut places = [0; 32];
    let mut i = 0;
    while i < 32 {
        let (run, quarter, digit) = (first_run + i / 16, i % 16 / 4, i % 4);
        #[allow(clippy::cast_possible_truncation, reason = "below 64")]
        let place = (16 * digit + 4 * quarter + run) as u16;
        places[i] = place;
        i += 1;
    }
    places
}

const FIRST_RUNS: [u16; 32] = order(0);
const LAST_RUNS: [u16; 32] = order(2);

/// # Safety
/// The processor has what [`BlockRow`] says; 256 elements are at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn rotate<const DIGITS: usize>(bytes: &[u8; MAX_GROUP], factor: f32, to: *mut u16) {
    /// In every second word of 16 bits.
    const SECOND: u32 = 0xaaaa_aaaa;
    // SAFETY: the caller's promise.
    unsafe {
        let load = |i: usize| _mm512_loadu_si512(bytes[64 * i..].as_ptr().cast());
        let bytes = [load(0), load(1), load(2), load(3)];
        // Sums and differences of neighbours: (a + b, c + d) and (a - b, c - d). The doubled first one less the sum is the difference.
        let (ones, firsts) = (_mm512_set1_epi16(0x0101), _mm512_set1_epi16(0x0002));
        let mut sums = bytes.map(|b| _mm512_maddubs_epi16(ones, b));
        let mut differences = bytes.map(|b| _mm512_maddubs_epi16(firsts, b));
        for (difference, sum) in differences.iter_mut().zip(sums) {
            *difference = _mm512_sub_epi16(*difference, sum);
        }
        let half = |mut x: [__m512i; 4]| {
            if DIGITS >= 4 {
                x = step(x);
            }
            x = exchange_words(x);
            if DIGITS >= 2 {
                x = step(x);
            }
            x = exchange_quarters(x);
            if DIGITS >= 3 { step(x) } else { x }
        };
        (sums, differences) = (half(sums), half(differences));
        let factor = _mm512_set1_ps(factor);
        let (plus, minus) = (_mm512_set1_epi16(1), _mm512_set1_epi32(-0xffff));
        let (behind, runs) = (_mm512_set1_epi32(0x1_ffff), [FIRST_RUNS, LAST_RUNS]);
        let value = |pairs, signs| _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, signs)), factor);
        for (second, (sum, difference)) in sums.into_iter().zip(differences).enumerate() {
            // (a + b, c - d) and (a - b, c + d)
            let outer = _mm512_mask_blend_epi16(SECOND, sum, difference);
            let inner = _mm512_mask_blend_epi16(SECOND, difference, sum);
            let low = round(value(outer, plus), value(outer, minus));
            let high = round(value(inner, plus), value(inner, behind));
            for (two, runs) in runs.iter().enumerate() {
                let places = _mm512_loadu_si512(runs.as_ptr().cast());
                let values = _mm512_permutex2var_epi16(low, places, high);
                let to = to.add(128 * two + 16 * second);
                _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(values));
                _mm256_storeu_si256(to.add(64).cast(), _mm512_extracti64x4_epi64::<1>(values));
            }
        }
    }
}
