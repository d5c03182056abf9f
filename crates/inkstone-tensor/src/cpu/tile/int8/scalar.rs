//! The definition of the int8 tile.

use super::{Args, Int8Tile};

const COLS: usize = 8;

/// Four rows.
pub(in crate::cpu) static INT8: Int8Tile =
    Int8Tile { cols: COLS, kernels: &[run::<1>, run::<2>, run::<3>, run::<4>] };

unsafe fn run<const ROWS: usize>(args: &Args<'_>) {
    // SAFETY: `Int8Tile::run` checked that all operands reach as far as these loops go.
    unsafe {
        let mut sums = [[0i32; COLS]; ROWS];
        for (r, row) in sums.iter_mut().enumerate() {
            *row = [(*args.rows.add(r)).start; COLS];
        }
        let mut b = args.b;
        for tap in args.taps {
            for word in 0..args.words {
                let panel = b.cast::<[[u8; 4]; COLS]>().read_unaligned();
                for (r, row) in sums.iter_mut().enumerate() {
                    let a = args.a.add(r * args.a_stride_bytes + tap + word * 4).cast::<[i8; 4]>().read();
                    for (sum, b) in row.iter_mut().zip(panel) {
                        *sum += (0..4).map(|i| i32::from(a[i]) * i32::from(b[i])).sum::<i32>();
                    }
                }
                b = b.add(COLS * 4);
            }
        }
        let factors = args.factors.cast::<[f32; COLS]>().read_unaligned();
        for (r, row) in sums.iter().enumerate() {
            let c = args.c.add(r * args.c_stride).cast::<[f32; COLS]>();
            let scale = (*args.rows.add(r)).scale;
            let held = if args.go_on { c.read_unaligned() } else { [0.0; COLS] };
            c.write_unaligned(std::array::from_fn(|i| held[i] + value(row[i], factors[i], scale)));
        }
    }
}

/// What a whole sum stands for.
#[allow(clippy::cast_precision_loss, reason = "below 2^24")]
fn value(sum: i32, factor: f32, scale: f32) -> f32 {
    sum as f32 * factor * scale
}
