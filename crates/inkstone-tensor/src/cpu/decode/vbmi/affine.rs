//! Packed codes with a scale and a bias for each group.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{BlockRow, STEP, round, select, store, table_16, table_32};
use crate::DType;
use crate::quant::AffineRow;

/// Rows whose scales and biases are asked for before they are decoded, about as many as are decoded at a time: they are a few bytes
/// from each of many rows, and nothing else asks for them.
const ROWS_AHEAD: usize = 12;
const LINE_BYTES: usize = 64;

/// Codes of which `LEN` share a scale.
pub(super) struct Codes<'a, const BITS: usize, const LEN: usize>(pub(super) AffineRow<'a>);

impl<const BITS: usize, const LEN: usize> BlockRow for Codes<'_, BITS, LEN> {
    const LEN: usize = LEN;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
    #[inline]
    unsafe fn write(&self, blocks: Range<usize>, to: *mut u16) {
        let (packed, sides, dtype) = self.0.groups(blocks, LEN * BITS / 8);
        let wide = |stored: &[u8; 4]| _mm512_set1_ps(f32::from_le_bytes(*stored));
        let narrow = |stored: &[u8; 2]| {
            let bits = _mm512_set1_epi16(i16::from_le_bytes(*stored));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        };
        let ahead = ROWS_AHEAD * self.0.side_bytes();
        for side in sides {
            for line in (0..side.len()).step_by(LINE_BYTES) {
                _mm_prefetch::<_MM_HINT_T0>(side.as_ptr().wrapping_add(ahead + line).cast());
            }
        }
        // SAFETY: the caller's promise; `LEN` elements for each block are at `to`.
        unsafe {
            match dtype {
                DType::F32 => each::<BITS, LEN, 4>(packed, sides, wide, to),
                DType::F16 => each::<BITS, LEN, 2>(packed, sides, |stored| super::half(*stored), to),
                _ => each::<BITS, LEN, 2>(packed, sides, narrow, to),
            }
        }
    }
}

/// Writes the values of groups of `LEN` codes whose scales and biases have `SIZE` bytes; `splat` puts one of them into all lanes.
///
/// # Safety
/// As many elements are at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn each<const BITS: usize, const LEN: usize, const SIZE: usize>(
    packed: &[u8],
    [scales, biases]: [&[u8]; 2],
    splat: impl Fn(&[u8; SIZE]) -> __m512,
    to: *mut u16,
) {
    let (scales, biases) = (scales.as_chunks().0, biases.as_chunks().0);
    let groups = packed.chunks_exact(LEN * BITS / 8).zip(scales.iter().zip(biases));
    for ((packed, (scale, bias)), i) in groups.zip((0..).step_by(LEN)) {
        // SAFETY: the caller's promise.
        unsafe { write::<BITS, LEN>(packed, [splat(scale), splat(bias)], to.wrapping_add(i)) }
    }
}

/// Writes the values of a group of `LEN` codes.
///
/// # Safety
/// As many elements are at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn write<const BITS: usize, const LEN: usize>(
    packed: &[u8],
    [scale, bias]: [__m512; 2],
    to: *mut u16,
) {
    let table = table::<BITS>(scale, bias);
    for (chunk, i) in packed.chunks_exact(4 * BITS).zip((0..).step_by(STEP)) {
        let values = match BITS {
            8 => bytes(chunk, scale, bias),
            6 => _mm512_permutex2var_epi16(table[0], codes::<BITS>(chunk), table[1]),
            _ => select(table[0], codes::<BITS>(chunk)),
        };
        // SAFETY: the caller's promise.
        unsafe { store(to.wrapping_add(i), values) }
    }
}

/// The values of all codes: twice the same register for up to 5 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn table<const BITS: usize>(scale: __m512, bias: __m512) -> [__m512i; 2] {
    // SAFETY: the processor has the instructions.
    unsafe {
        match BITS {
            3 => {
                let numbers = _mm512_loadu_ps(EIGHT_NUMBERS.as_ptr());
                let values = _mm512_fmadd_ps(numbers, scale, bias);
                [round(values, values); 2]
            }
            4 => [table_16(scale, bias); 2],
            5 => [table_32(0, scale, bias); 2],
            _ => [table_32(0, scale, bias), table_32(32, scale, bias)],
        }
    }
}

/// 32 codes of 8 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn bytes(packed: &[u8], scale: __m512, bias: __m512) -> __m512i {
    let values = |packed: &[u8]| {
        // SAFETY: as many bytes are there.
        let codes = unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(packed.as_ptr().cast())) };
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), scale, bias)
    };
    round(values(&packed[..16]), values(&packed[16..STEP]))
}

/// 0 to 7, two times.
const EIGHT_NUMBERS: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 0., 1., 2., 3., 4., 5., 6., 7.];

/// Where the bits of 32 codes of `BITS` bits are: of each four codes, their bytes, and the first bit of each code among these.
struct Places<const BITS: usize>;

impl<const BITS: usize> Places<BITS> {
    const BYTES: [u8; 64] = Self::list(true);
    const SHIFTS: [u8; 64] = Self::list(false);

    const fn list(bytes: bool) -> [u8; 64] {
        let mut list = [0; 64];
        let mut i = 0;
        while i < 64 {
            let (four, byte) = (i / 8, i % 8);
            let first_bit = 4 * BITS * four;
            let place = if bytes { first_bit / 8 + byte } else { first_bit % 8 + byte / 2 * BITS };
            #[allow(clippy::cast_possible_truncation, reason = "below 64")]
            let place = place as u8;
            list[i] = place;
            i += 1;
        }
        list
    }
}

/// 32 codes as words of 16 bits, the bits of their neighbours behind theirs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn codes<const BITS: usize>(packed: &[u8]) -> __m512i {
    // SAFETY: the caller's processor has the instructions; as many bytes are there as are loaded.
    unsafe {
        let at = packed[..4 * BITS].as_ptr();
        // Two loads and no masked one, which may wait for memory that it does not want.
        let bytes = match BITS {
            3 => _mm256_castsi128_si256(_mm_unpacklo_epi64(_mm_loadu_si64(at), _mm_loadu_si32(at.add(8)))),
            4 => _mm256_castsi128_si256(_mm_loadu_si128(at.cast())),
            5 => _mm256_set_m128i(_mm_loadu_si32(at.add(16)), _mm_loadu_si128(at.cast())),
            _ => _mm256_set_m128i(_mm_loadu_si64(at.add(16)), _mm_loadu_si128(at.cast())),
        };
        let bytes = _mm512_castsi256_si512(bytes);
        let places = _mm512_loadu_si512(Places::<BITS>::BYTES.as_ptr().cast());
        let shifts = _mm512_loadu_si512(Places::<BITS>::SHIFTS.as_ptr().cast());
        _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(places, bytes))
    }
}
