//! The weights of a convolution that doubles the picture: sums of the taps that see the same pixel.

use std::ops::Range;

use inkstone_tensor::{DType, bf16, f16};

use super::ConvShape;

/// Which of three taps side by side see the same pixel, for both outputs of a pair.
const TOGETHER: [[Range<usize>; 2]; 2] = [[0..2, 2..3], [0..1, 1..3]];

/// Elements `[c_out, 3, 3, c_in]` to sums `[2, 2, c_out, 2, 2, c_in]`, made in f32 and rounded once.
///
/// In bf16 a sum is off by 2^-8 of it at most, so an output by 2^-8 of its terms' magnitudes: as much as by the rounding
/// of what it is made from.
pub(super) fn add_taps(from: &[u8], stored: DType, (to, sums): (&mut [u8], DType), shape: ConvShape) {
    match stored {
        DType::F32 => add(from.as_chunks().0, f32::from_le_bytes, to, sums, shape),
        DType::Bf16 => add(from.as_chunks().0, |v| bf16::from_le_bytes(v).to_f32(), to, sums, shape),
        _ => add(from.as_chunks().0, |v| f16::from_le_bytes(v).to_f32(), to, sums, shape),
    }
}

fn add<T: Copy>(from: &[T], read: impl Fn(T) -> f32, to: &mut [u8], sums: DType, shape: ConvShape) {
    let ConvShape { c_in, c_out, .. } = shape;
    for (i, to) in to.chunks_exact_mut((c_in * sums.size_bytes()).max(1)).enumerate() {
        let (place, out, tap) = (i / 4 / c_out, i / 4 % c_out, i % 4);
        let (lines, columns) = (&TOGETHER[place / 2][tap / 2], &TOGETHER[place % 2][tap % 2]);
        let taps = lines.clone().flat_map(|y| columns.clone().map(move |x| 3 * y + x));
        let taps: Vec<&[T]> = taps.map(|tap| &from[(out * 9 + tap) * c_in..][..c_in]).collect();
        for (c, to) in to.chunks_exact_mut(sums.size_bytes()).enumerate() {
            let sum: f32 = taps.iter().map(|tap| read(tap[c])).sum();
            match sums {
                DType::Bf16 => to.copy_from_slice(&bf16::from_f32(sum).to_le_bytes()),
                _ => to.copy_from_slice(&sum.to_le_bytes()),
            }
        }
    }
}
