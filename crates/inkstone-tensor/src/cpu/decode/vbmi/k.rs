//! Formats of 256 elements a block, with scales of scales.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{STEP, bits, block_row, half_at, round, select, splat, store, table_16, table_32, words};
use crate::quant::k::{LEN, Q2_K_BYTES, Q3_K_BYTES, Q4_K_BYTES, Q5_K_BYTES, Q6_K_BYTES, six_bits};

/// Values for each lane, in memory.
#[repr(align(64))]
struct Lanes([f32; 16]);

/// The same values, to be read from memory one by one: that is free beside the arithmetic, where the compiler would take each from
/// its register by two exchanges of lanes.
#[inline(always)]
fn in_memory<T>(values: &T) -> &T {
    std::hint::black_box(values)
}

/// Sixteen bytes as floats.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn floats(bytes: __m128i) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
}

/// The values with their signs turned.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn negative(values: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(values), _mm512_set1_epi32(i32::MIN)))
}

/// The lanes from `RUNS * i` on, each `16 / RUNS` times.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn spread<const RUNS: usize>(lanes: __m512, i: usize) -> __m512 {
    const PLACES: [i32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    // SAFETY: the caller's processor has the instructions.
    unsafe {
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below 16")]
        let first = _mm512_set1_epi32((RUNS * i) as i32);
        let places = _mm512_loadu_si512(PLACES.as_ptr().cast());
        let places = match RUNS {
            4 => _mm512_srli_epi32::<2>(places),
            _ => _mm512_srli_epi32::<3>(places),
        };
        _mm512_permutexvar_ps(_mm512_add_epi32(places, first), lanes)
    }
}

/// 0, 1, 2, 3 again and again, or up to 7.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn small_numbers<const N: usize>() -> __m512 {
    const NUMBERS: [[f32; 16]; 2] = [
        [0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3.],
        [0., 1., 2., 3., 4., 5., 6., 7., 0., 1., 2., 3., 4., 5., 6., 7.],
    ];
    // SAFETY: the caller's processor has the instruction.
    unsafe { _mm512_loadu_ps(NUMBERS[usize::from(N == 8)].as_ptr()) }
}

/// In the first 16 words `first * step`, in the others `(first + 1) * step`: where a run's values begin in a table.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn runs(first: usize, step: usize) -> __m512i {
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below 32")]
    let [low, high] = [first * step, (first + 1) * step].map(|place| place as i16);
    _mm512_inserti64x4::<1>(_mm512_set1_epi16(low), _mm256_set1_epi16(high))
}

block_row! {
    /// Codes of 2 bits: value number `4 run + code` of a table for 8 runs.
    Q2K, Q2_K_BYTES, LEN, |block, to| {
        // SAFETY: the caller's promise; 16 bytes of scales and 64 of codes are in the block.
        unsafe {
            let (d, dmin) = (half_at(block, 80), half_at(block, 82));
            let packed = _mm_loadu_si128(block.as_ptr().cast());
            let low = _mm_set1_epi8(0x0f);
            let scale = _mm512_mul_ps(d, floats(_mm_and_si128(packed, low)));
            let high = _mm_and_si128(_mm_srli_epi16::<4>(packed), low);
            let offset = _mm512_mul_ps(negative(dmin), floats(high));
            let values = |four| {
                _mm512_fmadd_ps(small_numbers::<4>(), spread::<4>(scale, four), spread::<4>(offset, four))
            };
            for half in 0..2 {
                let table = round(values(2 * half), values(2 * half + 1));
                let codes = words(block[16 + 32 * half..].as_ptr());
                let part = |part: usize, codes: __m512i| {
                    let codes = bits(splat(3), codes, runs(2 * part, 4));
                    store(to.add(128 * half + STEP * part), select(table, codes));
                };
                part(0, codes);
                part(1, _mm512_srli_epi16::<2>(codes));
                part(2, _mm512_srli_epi16::<4>(codes));
                part(3, _mm512_srli_epi16::<6>(codes));
            }
        }
    }
}

block_row! {
    /// Codes of 3 bits: value number `8 run + code` of a table for 4 runs.
    Q3K, Q3_K_BYTES, LEN, |block, to| {
        let packed: &[u8; 12] = block[96..].first_chunk().unwrap_or(&[0; 12]);
        let six = six_bits(packed);
        // SAFETY: the caller's promise; 32 bytes of third bits and 64 of codes are in the block.
        unsafe {
            let six = floats(_mm_loadu_si128(six.as_ptr().cast()));
            let scale = _mm512_mul_ps(half_at(block, 108), _mm512_sub_ps(six, _mm512_set1_ps(32.0)));
            let offset = _mm512_mul_ps(scale, _mm512_set1_ps(-4.0));
            let values = |two| {
                _mm512_fmadd_ps(small_numbers::<8>(), spread::<2>(scale, two), spread::<2>(offset, two))
            };
            // Bit `4 half + part`, brought to the third place.
            let third = words(block.as_ptr());
            let third = [
                _mm512_slli_epi16::<2>(third),
                _mm512_slli_epi16::<1>(third),
                third,
                _mm512_srli_epi16::<1>(third),
                _mm512_srli_epi16::<2>(third),
                _mm512_srli_epi16::<3>(third),
                _mm512_srli_epi16::<4>(third),
                _mm512_srli_epi16::<5>(third),
            ];
            for half in 0..2 {
                let codes = words(block[32 + 32 * half..].as_ptr());
                let codes = [
                    codes,
                    _mm512_srli_epi16::<2>(codes),
                    _mm512_srli_epi16::<4>(codes),
                    _mm512_srli_epi16::<6>(codes),
                ];
                for two in 0..2 {
                    let first = 4 * half + 2 * two;
                    let table = round(values(first), values(first + 1));
                    for part in 2 * two..2 * two + 2 {
                        let codes = bits(splat(3), codes[part], third[4 * half + part]);
                        let codes = bits(splat(7), codes, runs(2 * (part % 2), 8));
                        store(to.add(128 * half + STEP * part), select(table, codes));
                    }
                }
            }
        }
    }
}

/// Scales of the eight runs of 32 elements, then their offsets.
struct Eight(Lanes);

impl Eight {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
    #[inline]
    fn of<const N: usize>(block: &[u8; N]) -> Self {
        const SIX: u32 = 0x3f3f_3f3f;
        const FOUR: u32 = 0x0f0f_0f0f;
        const PAIRS: u32 = 0x0303_0303;
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let (first, second, third) = (word(4), word(8), word(12));
        let join =
            |low: u32, high: u32| i64::from_le_bytes((u64::from(high) << 32 | u64::from(low)).to_le_bytes());
        let scales = join(first & SIX, (third & FOUR) | ((first >> 6) & PAIRS) << 4);
        let minima = join(second & SIX, ((third >> 4) & FOUR) | ((second >> 6) & PAIRS) << 4);
        // SAFETY: the caller's processor has the instructions.
        unsafe {
            let codes = floats(_mm_set_epi64x(minima, scales));
            let (d, dmin) = (half_at(block, 0), half_at(block, 2));
            let both = _mm512_mul_ps(_mm512_mask_blend_ps(0xff00, d, negative(dmin)), codes);
            let mut eight = Self(Lanes([0.0; 16]));
            _mm512_store_ps(eight.0.0.as_mut_ptr(), both);
            eight
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
    #[inline]
    fn run(&self, i: usize) -> (__m512, __m512) {
        (_mm512_set1_ps(self.0.0[i]), _mm512_set1_ps(self.0.0[8 + i]))
    }
}

block_row! {
    /// Codes of 4 bits.
    Q4K, Q4_K_BYTES, LEN, |block, to| {
        // SAFETY: the caller's promise; 128 bytes of codes are in the block.
        unsafe {
            let eight = Eight::of(block);
            let eight = in_memory(&eight);
            for chunk in 0..4 {
                let codes = words(block[16 + 32 * chunk..].as_ptr());
                let part = |part: usize, codes: __m512i| {
                    let (scale, offset) = eight.run(2 * chunk + part);
                    store(to.add(64 * chunk + STEP * part), select(table_16(scale, offset), codes));
                };
                part(0, codes);
                part(1, _mm512_srli_epi16::<4>(codes));
            }
        }
    }
}

block_row! {
    /// Codes of 5 bits.
    Q5K, Q5_K_BYTES, LEN, |block, to| {
        // SAFETY: the caller's promise; 32 bytes of fifth bits and 128 of codes are in the block.
        unsafe {
            let eight = Eight::of(block);
            let eight = in_memory(&eight);
            // Bit `run`, brought to the fifth place.
            let fifth = words(block[16..].as_ptr());
            let fifth = [
                _mm512_slli_epi16::<4>(fifth),
                _mm512_slli_epi16::<3>(fifth),
                _mm512_slli_epi16::<2>(fifth),
                _mm512_slli_epi16::<1>(fifth),
                fifth,
                _mm512_srli_epi16::<1>(fifth),
                _mm512_srli_epi16::<2>(fifth),
                _mm512_srli_epi16::<3>(fifth),
            ];
            for chunk in 0..4 {
                let codes = words(block[48 + 32 * chunk..].as_ptr());
                let part = |run: usize, codes: __m512i| {
                    let (scale, offset) = eight.run(run);
                    let codes = bits(splat(0x0f), codes, fifth[run]);
                    store(to.add(STEP * run), select(table_32(0, scale, offset), codes));
                };
                part(2 * chunk, codes);
                part(2 * chunk + 1, _mm512_srli_epi16::<4>(codes));
            }
        }
    }
}

/// Where the floats of 64 codes of 6 bits begin: 128, whose fraction has room for a code in its third byte.
const LIFTED: f32 = 128.0;

block_row! {
    /// Codes of 6 bits, as floats 16 at a time, four of each of four runs: no table pays for 16 elements.
    Q6K, Q6_K_BYTES, LEN, |block, to| {
        const fn shifts(low: i64, high: i64) -> [i64; 8] {
            [low, low, low, low, high, high, high, high]
        }
        const HIGH_BITS: i8 = 0x30;
        // SAFETY: the caller's promise; 128, 64 and 16 bytes are at these places of the block.
        unsafe {
            let signed = _mm512_cvtepi8_epi32(_mm_loadu_si128(block[192..].as_ptr().cast()));
            let scales = _mm512_mul_ps(half_at(block, 208), _mm512_cvtepi32_ps(signed));
            for half in 0..2 {
                let low = _mm512_loadu_si512(block[64 * half..].as_ptr().cast());
                let high = _mm256_loadu_si256(block[128 + 32 * half..].as_ptr().cast());
                let high = _mm512_broadcast_i64x4(high);
                for two in 0..2 {
                    // 64 elements: two bits for each from their places to the fifth and sixth.
                    let (low, left) = if two == 0 {
                        (low, shifts(4, 2))
                    } else {
                        (_mm512_srli_epi16::<4>(low), shifts(0, 62))
                    };
                    let high = _mm512_rolv_epi64(high, _mm512_loadu_si512(left.as_ptr().cast()));
                    let high = _mm512_and_si512(high, _mm512_set1_epi8(HIGH_BITS));
                    let codes = bits(_mm512_set1_epi8(0x0f), low, high);
                    // A run is a quarter of the register.
                    let scale = spread::<4>(scales, 2 * half + two);
                    let offset = _mm512_mul_ps(scale, _mm512_set1_ps(-32.0 - LIFTED));
                    let values = lifted(codes).map(|lifted| _mm512_fmadd_ps(lifted, scale, offset));
                    let [low, high] = in_order(round(values[0], values[1]), round(values[2], values[3]));
                    let to = to.add(128 * half + 64 * two);
                    store(to, low);
                    store(to.add(STEP), high);
                }
            }
        }
    }
}

/// 64 codes of up to 6 bits as floats, [`LIFTED`] more than they are: of each quarter of a register the first four, and so on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn lifted(codes: __m512i) -> [__m512; 4] {
    // The upper byte of 128.
    let exponent = _mm512_set1_epi8(0x43);
    let (low, high) = (_mm512_unpacklo_epi8(codes, exponent), _mm512_unpackhi_epi8(codes, exponent));
    let zero = _mm512_setzero_si512();
    [
        _mm512_unpacklo_epi16(zero, low),
        _mm512_unpackhi_epi16(zero, low),
        _mm512_unpacklo_epi16(zero, high),
        _mm512_unpackhi_epi16(zero, high),
    ]
    .map(|words| _mm512_castsi512_ps(words))
}

/// 64 values of four runs, four of each and four of each again in either half of a register, run by run.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn in_order(first: __m512i, second: __m512i) -> [__m512i; 2] {
    const PLACES: [[i64; 8]; 2] = [[0, 4, 8, 12, 1, 5, 9, 13], [2, 6, 10, 14, 3, 7, 11, 15]];
    // SAFETY: the caller's processor has the instructions.
    unsafe {
        PLACES.map(|places| {
            let places = _mm512_loadu_si512(places.as_ptr().cast());
            _mm512_permutex2var_epi64(first, places, second)
        })
    }
}
