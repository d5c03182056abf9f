//! AVX2 with FMA: 6 rows by 16 columns, 12 of the 16 registers being sums.

use std::arch::x86_64::*;

use super::ahead::WORDS_BETWEEN;
use super::{Args, Tile};

const COLS: usize = 16;

/// f32 operands.
pub(in crate::cpu) static F32: Tile =
    Tile { cols: COLS, kernels: &[run::<1>, run::<2>, run::<3>, run::<4>, run::<5>, run::<6>] };

#[target_feature(enable = "avx2,fma")]
unsafe fn run<const ROWS: usize>(args: &Args<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    // SAFETY: `Tile::run` checked that C, A and B reach as far as these loops go.
    unsafe {
        if args.go_on {
            for (r, row) in sums.iter_mut().enumerate() {
                let c = args.c.add(r * args.c_stride);
                *row = [_mm256_loadu_ps(c), _mm256_loadu_ps(c.add(8))];
            }
        }
        let (mut b, mut ahead) = (args.b, args.ahead);
        for tap in args.taps {
            let mut a = args.a.add(*tap);
            for word in (0..args.words).step_by(WORDS_BETWEEN) {
                ahead.fetch();
                for _ in 0..WORDS_BETWEEN.min(args.words - word) {
                    let (b0, b1) = (_mm256_loadu_ps(b.cast()), _mm256_loadu_ps(b.add(32).cast()));
                    for (r, row) in sums.iter_mut().enumerate() {
                        let a = _mm256_set1_ps(a.add(r * args.a_stride_bytes).cast::<f32>().read_unaligned());
                        row[0] = _mm256_fmadd_ps(a, b0, row[0]);
                        row[1] = _mm256_fmadd_ps(a, b1, row[1]);
                    }
                    a = a.add(4);
                    b = b.add(COLS * 4);
                }
            }
        }
        for (r, row) in sums.iter().enumerate() {
            let c = args.c.add(r * args.c_stride);
            _mm256_storeu_ps(c, row[0]);
            _mm256_storeu_ps(c.add(8), row[1]);
        }
    }
}
