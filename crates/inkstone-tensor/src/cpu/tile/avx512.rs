//! AVX-512: 14 rows by 32 columns, 28 of the 32 registers being sums.

use std::arch::x86_64::*;

use super::ahead::WORDS_BETWEEN;
use super::{Args, Tile};

const COLS: usize = 32;

macro_rules! tile {
    ($name:ident, $features:literal, $multiply_add:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const ROWS: usize>(args: &Args<'_>) {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            // SAFETY: `Tile::run` checked that C, A and B reach as far as these loops go.
            unsafe {
                if args.go_on {
                    for (r, row) in sums.iter_mut().enumerate() {
                        let c = args.c.add(r * args.c_stride);
                        *row = [_mm512_loadu_ps(c), _mm512_loadu_ps(c.add(16))];
                    }
                }
                let (mut b, mut ahead) = (args.b, args.ahead);
                for tap in args.taps {
                    // Address modes reach five rows from one pointer: sums of addresses would take turns with the
                    // multiplications.
                    let stride = args.a_stride_bytes;
                    let mut p0 = args.a.wrapping_add(*tap);
                    let mut p5 = p0.wrapping_add(5 * stride);
                    let mut p10 = p0.wrapping_add(10 * stride);
                    for word in (0..args.words).step_by(WORDS_BETWEEN) {
                        ahead.fetch();
                        for _ in 0..WORDS_BETWEEN.min(args.words - word) {
                            let (b0, b1) = (_mm512_loadu_ps(b.cast()), _mm512_loadu_ps(b.add(64).cast()));
                            (p0, p5, p10) = (opaque(p0), opaque(p5), opaque(p10));
                            for (r, row) in sums.iter_mut().enumerate() {
                                let near = if r < 5 {
                                    p0
                                } else if r < 10 {
                                    p5
                                } else {
                                    p10
                                };
                                let word = near.wrapping_add(r % 5 * stride).cast::<f32>();
                                let a = _mm512_set1_ps(word.read_unaligned());
                                row[0] = $multiply_add(a, b0, row[0]);
                                row[1] = $multiply_add(a, b1, row[1]);
                            }
                            (p0, p5, p10) = (p0.wrapping_add(4), p5.wrapping_add(4), p10.wrapping_add(4));
                            b = b.add(COLS * 4);
                        }
                    }
                }
                for (r, row) in sums.iter().enumerate() {
                    let c = args.c.add(r * args.c_stride);
                    _mm512_storeu_ps(c, row[0]);
                    _mm512_storeu_ps(c.add(16), row[1]);
                }
            }
        }
    };
}

/// The same pointer, of unknown origin to the compiler.
#[allow(clippy::pointers_in_nomem_asm_block, reason = "the pointer is passed through, not followed")]
#[inline(always)]
pub(super) fn opaque(mut p: *const u8) -> *const u8 {
    // SAFETY: does nothing.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) p, options(pure, readonly, nostack, preserves_flags)) }
    p
}

tile!(f32_rows, "avx512f", _mm512_fmadd_ps);
tile!(bf16_rows, "avx512f,avx512bf16", multiply_add_pairs);

/// Adds the products of both bf16 in each word.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(super) unsafe fn multiply_add_pairs(a: __m512, b: __m512, c: __m512) -> __m512 {
    // SAFETY: all three types are 64 bytes without padding.
    unsafe {
        _mm512_dpbf16_ps(
            c,
            std::mem::transmute::<__m512, __m512bh>(a),
            std::mem::transmute::<__m512, __m512bh>(b),
        )
    }
}

macro_rules! kernels {
    ($name:ident) => {
        &[
            $name::<1>,
            $name::<2>,
            $name::<3>,
            $name::<4>,
            $name::<5>,
            $name::<6>,
            $name::<7>,
            $name::<8>,
            $name::<9>,
            $name::<10>,
            $name::<11>,
            $name::<12>,
            $name::<13>,
            $name::<14>,
        ]
    };
}
pub(super) use kernels;

/// f32 operands.
pub(in crate::cpu) static F32: Tile = Tile { cols: COLS, kernels: kernels!(f32_rows) };

/// bf16 operands, two in a word.
pub(in crate::cpu) static BF16: Tile = Tile { cols: COLS, kernels: kernels!(bf16_rows) };
