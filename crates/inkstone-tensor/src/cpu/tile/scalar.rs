//! The definition of the f32 tile.

use super::{Args, Tile};

const COLS: usize = 8;

/// Four rows of f32.
pub(in crate::cpu) static F32: Tile = Tile { cols: COLS, kernels: &[run::<1>, run::<2>, run::<3>, run::<4>] };

unsafe fn run<const ROWS: usize>(args: &Args<'_>) {
    let mut sums = [[0.0f32; COLS]; ROWS];
    // SAFETY: `Tile::run` checked that C, A and B reach as far as these loops go.
    unsafe {
        for (r, row) in sums.iter_mut().enumerate().filter(|_| args.go_on) {
            *row = args.c.add(r * args.c_stride).cast::<[f32; COLS]>().read_unaligned();
        }
        let mut b = args.b;
        for tap in args.taps {
            for word in 0..args.words {
                let panel = b.cast::<[f32; COLS]>().read_unaligned();
                for (r, row) in sums.iter_mut().enumerate() {
                    let a =
                        args.a.add(r * args.a_stride_bytes + tap + word * 4).cast::<f32>().read_unaligned();
                    for (sum, b) in row.iter_mut().zip(panel) {
                        *sum += a * b;
                    }
                }
                b = b.add(COLS * 4);
            }
        }
        for (r, row) in sums.iter().enumerate() {
            args.c.add(r * args.c_stride).cast::<[f32; COLS]>().write_unaligned(*row);
        }
    }
}
