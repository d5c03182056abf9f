//! Formats of 32 elements a block.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{bits, block_row, half_at, round, select, splat, store, table_16, table_32};
use crate::quant::legacy::{LEN, Q4_0_BYTES, Q4_1_BYTES, Q5_0_BYTES, Q5_1_BYTES, Q8_0_BYTES};

/// 16 bytes as 32 words: in the lowest four bits the low halves, then the high halves.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn nibbles(bytes: *const u8) -> __m512i {
    const BYTES: [u8; 64] = {
        let mut bytes = [0; 64];
        let mut i = 0;
        while i < 64 {
            #[allow(clippy::cast_possible_truncation, reason = "below 16")]
            let byte = (i / 2 % 16) as u8;
            bytes[i] = byte;
            i += 1;
        }
        bytes
    };
    const SHIFTS: [u16; 32] = {
        let mut shifts = [4; 32];
        let mut i = 0;
        while i < 16 {
            shifts[i] = 0;
            i += 1;
        }
        shifts
    };
    // SAFETY: 16 bytes are there, as every caller's block has them behind `bytes`.
    unsafe {
        let twice = _mm512_castsi128_si512(_mm_loadu_si128(bytes.cast()));
        let twice = _mm512_permutexvar_epi8(_mm512_loadu_si512(BYTES.as_ptr().cast()), twice);
        _mm512_srlv_epi16(twice, _mm512_loadu_si512(SHIFTS.as_ptr().cast()))
    }
}

/// The same with fifth bits from the word at `fifth`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn five_bits<const N: usize>(block: &[u8; N], fifth: usize) -> __m512i {
    let word = u32::from_le_bytes([block[fifth], block[fifth + 1], block[fifth + 2], block[fifth + 3]]);
    // SAFETY: the codes are the block's last 16 bytes.
    unsafe { bits(splat(0x0f), nibbles(block[N - 16..].as_ptr()), _mm512_movm_epi16(word)) }
}

block_row! {
    /// `d * (code - 8)`
    Q4_0, Q4_0_BYTES, LEN, |block, to| {
        // SAFETY: the caller's promise.
        unsafe {
            let d = half_at(block, 0);
            let table = table_16(d, _mm512_mul_ps(d, _mm512_set1_ps(-8.0)));
            store(to, select(table, nibbles(block[2..].as_ptr())));
        }
    }
}

block_row! {
    /// `d * code + m`
    Q4_1, Q4_1_BYTES, LEN, |block, to| {
        // SAFETY: the caller's promise.
        unsafe {
            let table = table_16(half_at(block, 0), half_at(block, 2));
            store(to, select(table, nibbles(block[4..].as_ptr())));
        }
    }
}

block_row! {
    /// `d * (code - 16)`
    Q5_0, Q5_0_BYTES, LEN, |block, to| {
        // SAFETY: the caller's promise.
        unsafe {
            let d = half_at(block, 0);
            let table = table_32(0, d, _mm512_mul_ps(d, _mm512_set1_ps(-16.0)));
            store(to, select(table, five_bits(block, 2)));
        }
    }
}

block_row! {
    /// `d * code + m`
    Q5_1, Q5_1_BYTES, LEN, |block, to| {
        // SAFETY: the caller's promise.
        unsafe {
            let table = table_32(0, half_at(block, 0), half_at(block, 2));
            store(to, select(table, five_bits(block, 4)));
        }
    }
}

block_row! {
    /// `d * code`
    Q8_0, Q8_0_BYTES, LEN, |block, to| {
        /// 32768.0 as a float, whose second byte counts whole numbers.
        const BASE: i32 = 0x4700_0000;
        const SECOND: u64 = 0x2222_2222_2222_2222;
        /// Byte `k` is the second one of word `k`, from 0 and from 16 on.
        const PLACES: [[u8; 64]; 2] = {
            let mut places = [[0; 64]; 2];
            let mut i = 0;
            while i < 64 {
                #[allow(clippy::cast_possible_truncation, reason = "below 16")]
                let place = (i / 4) as u8;
                places[0][i] = place;
                places[1][i] = place + 16;
                i += 1;
            }
            places
        };
        // SAFETY: the caller's promise; the block has 32 bytes behind its scale.
        unsafe {
            let d = half_at(block, 0);
            // Codes are 128 more than they are, and 32768 more. All of it is exact: 11 bits times 257 times a power of two.
            let offset = _mm512_mul_ps(d, _mm512_set1_ps(-32896.0));
            let codes = _mm256_loadu_si256(block[2..].as_ptr().cast());
            let codes = _mm512_castsi256_si512(_mm256_xor_si256(codes, _mm256_set1_epi8(-128)));
            let value = |places: &[u8; 64]| {
                let places = _mm512_loadu_si512(places.as_ptr().cast());
                let code = _mm512_mask_permutexvar_epi8(_mm512_set1_epi32(BASE), SECOND, places, codes);
                _mm512_fmadd_ps(_mm512_castsi512_ps(code), d, offset)
            };
            store(to, round(value(&PLACES[0]), value(&PLACES[1])));
        }
    }
}
