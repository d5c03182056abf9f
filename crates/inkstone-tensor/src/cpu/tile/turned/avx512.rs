//! AVX-512 with products of bf16: up to 24 of the 32 registers are sums.

use std::arch::x86_64::*;

use super::{Args, Kernel, LANES, TurnedTile};
use crate::cpu::tile::ahead::WORDS_BETWEEN;
use crate::cpu::tile::avx512::{multiply_add_pairs, opaque};

/// `N` rows of the weight times `V` full registers and `R` halves, 0 or 1, of activations. `N` is even.
#[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
unsafe fn run<const N: usize, const V: usize, const R: usize>(args: &Args) {
    const UPPER: u16 = 0xff00;
    let mut full = [[_mm512_setzero_ps(); V]; N];
    // The rest's sums with two weights each; half of the list is used.
    let mut rest = [_mm512_setzero_ps(); N];
    // SAFETY: `TurnedTile::run` checked that C, the weight and the panel reach as far as these loops go. Any address
    // may be asked for.
    unsafe {
        let c = |n: usize, i: usize| args.c.add(n * args.c_stride + i * LANES);
        if args.go_on {
            for (n, row) in full.iter_mut().enumerate() {
                for (v, sums) in row.iter_mut().enumerate() {
                    *sums = _mm512_loadu_ps(c(n, v));
                }
            }
            for (pair, sums) in rest.iter_mut().enumerate().take(N / 2 * R) {
                let lower = _mm512_castps256_ps512(_mm256_loadu_ps(c(2 * pair, V)));
                *sums = _mm512_insertf32x8::<1>(lower, _mm256_loadu_ps(c(2 * pair + 1, V)));
            }
        }
        let stride = args.w_stride_bytes;
        let mut x = args.x;
        // Address modes reach five rows from one pointer, see the other tile.
        let mut p0 = args.w;
        let mut p5 = p0.wrapping_add(5 * stride);
        let mut p10 = p0.wrapping_add(10 * stride);
        for (turn, word) in (0..args.words).step_by(WORDS_BETWEEN).enumerate() {
            let mine = turn % args.wanted.calls == args.wanted.call;
            let ahead = &args.wanted.rows;
            let mut wanted = if mine { ahead.start.wrapping_add(turn * ahead.step_bytes) } else { p0 };
            let wanted_stride = if mine { ahead.stride_bytes } else { 0 };
            for i in 0..WORDS_BETWEEN.min(args.words - word) {
                if i < N {
                    // A line of a row after the other: in a burst they would wait for each other.
                    _mm_prefetch::<_MM_HINT_T1>(wanted.cast());
                    wanted = wanted.wrapping_add(wanted_stride);
                }
                let mut panel = [_mm512_setzero_ps(); 4];
                for (v, words) in panel.iter_mut().enumerate().take(V + R) {
                    *words = _mm512_loadu_ps(x.add(v * LANES * 4).cast());
                }
                (p0, p5, p10) = (opaque(p0), opaque(p5), opaque(p10));
                let mut before = panel[0];
                for (n, row) in full.iter_mut().enumerate() {
                    let near = if n < 5 {
                        p0
                    } else if n < 10 {
                        p5
                    } else {
                        p10
                    };
                    let word = near.wrapping_add(n % 5 * stride).cast::<f32>();
                    let weight = _mm512_set1_ps(word.read_unaligned());
                    for (sums, words) in row.iter_mut().zip(panel) {
                        *sums = multiply_add_pairs(weight, words, *sums);
                    }
                    if R == 1 && n % 2 == 1 {
                        let both = _mm512_mask_blend_ps(UPPER, before, weight);
                        rest[n / 2] = multiply_add_pairs(both, panel[V], rest[n / 2]);
                    }
                    before = weight;
                }
                (p0, p5, p10) = (p0.wrapping_add(4), p5.wrapping_add(4), p10.wrapping_add(4));
                x = x.add((V + R) * LANES * 4);
            }
        }
        for (n, row) in full.iter().enumerate() {
            for (v, sums) in row.iter().enumerate() {
                _mm512_storeu_ps(c(n, v), *sums);
            }
        }
        for (pair, sums) in rest.iter().enumerate().take(N / 2 * R) {
            _mm256_storeu_ps(c(2 * pair, V), _mm512_castps512_ps256(*sums));
            _mm256_storeu_ps(c(2 * pair + 1, V), _mm512_extractf32x8_ps::<1>(*sums));
        }
    }
}

/// bf16 operands, two in a word. As many rows of the weight as give enough sums to never wait for one.
pub(in crate::cpu) static BF16: TurnedTile = TurnedTile {
    kernels: &[
        Kernel { weights: 12, run: run::<12, 1, 0> },
        Kernel { weights: 12, run: run::<12, 1, 1> },
        Kernel { weights: 12, run: run::<12, 2, 0> },
        Kernel { weights: 8, run: run::<8, 2, 1> },
        Kernel { weights: 8, run: run::<8, 3, 0> },
        Kernel { weights: 6, run: run::<6, 3, 1> },
        Kernel { weights: 6, run: run::<6, 4, 0> },
    ],
};
