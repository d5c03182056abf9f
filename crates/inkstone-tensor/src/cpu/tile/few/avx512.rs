//! AVX-512. With products of bf16 a square takes 16 registers, sums up to 8.

use std::arch::x86_64::*;

use super::{Args, FewTile, SQUARE_BYTES, WEIGHTS, widened_tile};
use crate::DType;
use crate::cpu::lanes::{Avx512, columns};
use crate::cpu::tile::avx512::multiply_add_pairs;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn run<const ROWS: usize>(args: &Args) {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    // SAFETY: `FewTile::run` checked that C, the activations and the weight, whole squares of it, reach as far as these loops go.
    // Any address may be asked for.
    unsafe {
        if args.go_on {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = _mm512_loadu_ps(args.c.add(r * args.c_stride));
            }
        }
        for (square, first) in (0..args.words).step_by(WEIGHTS).enumerate() {
            let wanted = args.ahead.start.wrapping_add(square * args.ahead.step_bytes);
            let weights = args.w.add(square * SQUARE_BYTES);
            let columns = columns(weights, args.w_stride_bytes, wanted, args.ahead.stride_bytes);
            let x = args.x.add(first * 4);
            for (word, column) in columns.into_iter().enumerate().take(args.words - first) {
                let column = _mm512_castsi512_ps(column);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = x.add(r * args.x_stride_bytes + word * 4).cast::<f32>();
                    *sums = multiply_add_pairs(_mm512_set1_ps(x.read_unaligned()), column, *sums);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(args.c.add(r * args.c_stride), *sums);
        }
    }
}

/// bf16 operands, two in a word.
pub(in crate::cpu) static BF16: FewTile = FewTile {
    work: DType::Bf16,
    kernels: &[run::<1>, run::<2>, run::<3>, run::<4>, run::<5>, run::<6>, run::<7>, run::<8>],
};

/// bf16 operands that are widened to f32.
pub(in crate::cpu) static F32: FewTile =
    widened_tile!(Avx512<false>, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c");
