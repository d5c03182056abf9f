//! AVX2: 3 rows by 16 columns, 12 of the 16 registers being sums.
//!
//! Bytes are widened to 16 bits, whose products and sums of two are exact. The instruction that multiplies bytes is not
//! used: it cuts off sums of two at 16 bits.

use std::arch::x86_64::*;

use super::{Args, Int8Tile};

const COLS: usize = 16;

/// Columns whose four bytes fill a register once widened.
const COLS_A_REGISTER: usize = 4;

/// Three rows.
pub(in crate::cpu) static INT8: Int8Tile = Int8Tile { cols: COLS, kernels: &[run::<1>, run::<2>, run::<3>] };

#[target_feature(enable = "avx2,fma")]
unsafe fn run<const ROWS: usize>(args: &Args<'_>) {
    // Each column has two sums, side by side.
    let mut sums = [[_mm256_setzero_si256(); COLS / COLS_A_REGISTER]; ROWS];
    // SAFETY: `Int8Tile::run` checked that all operands reach as far as these loops go.
    unsafe {
        let mut b = args.b;
        for tap in args.taps {
            let mut a = args.a.add(*tap);
            for _ in 0..args.words {
                let mut rows = [_mm256_setzero_si256(); ROWS];
                for (r, row) in rows.iter_mut().enumerate() {
                    let word = a.add(r * args.a_stride_bytes).cast::<i32>().read_unaligned();
                    *row = _mm256_cvtepi8_epi16(_mm_set1_epi32(word));
                }
                for i in 0..COLS / COLS_A_REGISTER {
                    let b = _mm256_cvtepu8_epi16(_mm_loadu_si128(b.add(16 * i).cast()));
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(row, b));
                    }
                }
                a = a.add(4);
                b = b.add(COLS * 4);
            }
        }
        for (r, row) in sums.iter().enumerate() {
            let at = *args.rows.add(r);
            for half in 0..2 {
                // Columns 0 1 4 5, 2 3 6 7.
                let pairs = _mm256_hadd_epi32(row[2 * half], row[2 * half + 1]);
                let whole = _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs);
                let whole = _mm256_add_epi32(whole, _mm256_set1_epi32(at.start));
                let factors = _mm256_loadu_ps(args.factors.add(8 * half));
                let v = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), factors);
                let v = _mm256_mul_ps(v, _mm256_set1_ps(at.scale));
                let c = args.c.add(r * args.c_stride + 8 * half);
                let held = if args.go_on { _mm256_loadu_ps(c) } else { _mm256_setzero_ps() };
                _mm256_storeu_ps(c, _mm256_add_ps(held, v));
            }
        }
    }
}
