//! AVX-512 with VNNI: 14 rows by 32 columns, 28 of the 32 registers being sums.

use std::arch::x86_64::*;

use super::super::ahead::WORDS_BETWEEN;
use super::super::avx512::{kernels, opaque};
use super::{Args, Int8Tile};

const COLS: usize = 32;

/// Fourteen rows.
pub(in crate::cpu) static VNNI: Int8Tile = Int8Tile { cols: COLS, kernels: kernels!(run) };

#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn run<const ROWS: usize>(args: &Args<'_>) {
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    // SAFETY: `Int8Tile::run` checked that all operands reach as far as these loops go.
    unsafe {
        for (r, row) in sums.iter_mut().enumerate() {
            *row = [_mm512_set1_epi32((*args.rows.add(r)).start); 2];
        }
        let (mut b, mut ahead) = (args.b, args.ahead);
        for tap in args.taps {
            // As in the tiles of floats: five rows from one pointer.
            let stride = args.a_stride_bytes;
            let mut p0 = args.a.wrapping_add(*tap);
            let mut p5 = p0.wrapping_add(5 * stride);
            let mut p10 = p0.wrapping_add(10 * stride);
            for word in (0..args.words).step_by(WORDS_BETWEEN) {
                ahead.fetch();
                for _ in 0..WORDS_BETWEEN.min(args.words - word) {
                    let (b0, b1) = (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(64).cast()));
                    (p0, p5, p10) = (opaque(p0), opaque(p5), opaque(p10));
                    for (r, row) in sums.iter_mut().enumerate() {
                        let near = if r < 5 {
                            p0
                        } else if r < 10 {
                            p5
                        } else {
                            p10
                        };
                        let word = near.wrapping_add(r % 5 * stride).cast::<i32>();
                        let a = _mm512_set1_epi32(word.read_unaligned());
                        row[0] = _mm512_dpbusd_epi32(row[0], b0, a);
                        row[1] = _mm512_dpbusd_epi32(row[1], b1, a);
                    }
                    (p0, p5, p10) = (p0.wrapping_add(4), p5.wrapping_add(4), p10.wrapping_add(4));
                    b = b.add(COLS * 4);
                }
            }
        }
        let factors = [_mm512_loadu_ps(args.factors), _mm512_loadu_ps(args.factors.add(16))];
        for (r, row) in sums.iter().enumerate() {
            let scale = _mm512_set1_ps((*args.rows.add(r)).scale);
            for (half, (sums, factors)) in row.iter().zip(factors).enumerate() {
                let v = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(*sums), factors), scale);
                let c = args.c.add(r * args.c_stride + 16 * half);
                let held = if args.go_on { _mm512_loadu_ps(c) } else { _mm512_setzero_ps() };
                _mm512_storeu_ps(c, _mm512_add_ps(held, v));
            }
        }
    }
}
