//! Bytes with a factor for the row: 8-bit floats, and signed bytes that were not rotated. Rows may have any length.

use std::arch::x86_64::*;

use super::{STEP, round, splat};
use crate::quant::{self, Float8Kind};

/// 8-bit floats without their signs: as halves that are [`Float8Kind::factor`] times too small.
const fn magnitudes(kind: Float8Kind) -> [u16; 128] {
    let mut halves = [0; 128];
    let mut byte = 0u8;
    while byte < 128 {
        halves[byte as usize] = quant::widen(kind, byte);
        byte += 1;
    }
    halves
}

const E4M3: [u16; 128] = magnitudes(Float8Kind::E4m3);
const E5M2: [u16; 128] = magnitudes(Float8Kind::E5m2);

/// # Safety
/// The processor has AVX512_VBMI and what the table `avx512bf16` needs; as many elements as bytes are at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
pub(super) unsafe fn float8(kind: Float8Kind, bytes: &[u8], factor: f32, to: *mut u16) {
    let halves = match kind {
        Float8Kind::E4m3 => &E4M3,
        Float8Kind::E5m2 => &E5M2,
    };
    // SAFETY: the caller's promise.
    unsafe {
        // The values of all magnitudes: signs pass through products and rounding.
        let factor = _mm512_set1_ps(factor);
        let sixteen = |i: usize| {
            let halves = _mm256_loadu_si256(halves[16 * i..].as_ptr().cast());
            _mm512_mul_ps(_mm512_cvtph_ps(halves), factor)
        };
        let table = [0, 2, 4, 6].map(|i| round(sixteen(i), sixteen(i + 1)));
        each(bytes, to, |bytes| {
            let words = _mm512_cvtepu8_epi16(bytes);
            let low = _mm512_permutex2var_epi16(table[0], words, table[1]);
            let high = _mm512_permutex2var_epi16(table[2], words, table[3]);
            let is_high = _mm512_test_epi16_mask(words, splat(0x40));
            let value = _mm512_mask_blend_epi16(is_high, low, high);
            let sign = _mm512_and_si512(_mm512_slli_epi16::<8>(words), splat(0x8000));
            _mm512_xor_si512(value, sign)
        });
    }
}

/// # Safety
/// As [`float8`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
pub(super) unsafe fn signed(bytes: &[u8], factor: f32, to: *mut u16) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = _mm512_set1_ps(factor);
        let values = |bytes| _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), factor);
        each(bytes, to, |bytes| {
            round(values(_mm256_castsi256_si128(bytes)), values(_mm256_extracti128_si256::<1>(bytes)))
        });
    }
}

/// Calls `values` for each 32 bytes, zeros behind the last.
///
/// # Safety
/// As [`float8`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn each(bytes: &[u8], to: *mut u16, values: impl Fn(__m256i) -> __m512i) {
    let (whole, rest) = bytes.as_chunks::<STEP>();
    // SAFETY: the caller's promise; masks have a bit for each byte of the rest.
    unsafe {
        for (i, chunk) in whole.iter().enumerate() {
            super::store(to.add(i * STEP), values(_mm256_loadu_si256(chunk.as_ptr().cast())));
        }
        if !rest.is_empty() {
            let mask = (1u32 << rest.len()) - 1;
            let last = values(_mm256_maskz_loadu_epi8(mask, rest.as_ptr().cast()));
            _mm512_mask_storeu_epi16(to.add(whole.len() * STEP).cast(), mask, last);
        }
    }
}
