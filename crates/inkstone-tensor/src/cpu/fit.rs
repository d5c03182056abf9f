//! Rows to codes of 3 to 8 bits with a scale and a bias for each group, chosen by the error that they leave.
//!
//! The range of a group is seldom the best one: a value far from the others would take most codes for itself. So a few
//! other ranges are tried, for each the line through its codes is fitted by least squares, and the best is refitted
//! with the scale and bias as they are stored. What is stored never leaves a larger error than the whole range.
//!
//! Sums have one order and nothing is fused, so all instruction sets give the same bytes.

use super::Cpu;
use super::lanes::Lanes;
use super::rows::{Matrix, MatrixMut, Row, assert_cols};
use crate::ops::{AffineParts, QuantizeAffine};
use crate::{Result, bf16};

/// Codes that share a scale.
pub(super) const GROUP: usize = crate::quant::FITTED_GROUP;
/// Partial sums of a group.
const PARTS: usize = 16;
/// By how many steps either end of the range of a group is moved inwards. On normal and heavy-tailed values five moves leave
/// 0.4 % less error, none 5 % more (`bench/SPEED.md`).
const MOVES: [f32; 3] = [-0.4, 0.2, 0.8];
/// Of 8 bits, where moves change nothing: what is lost beside the steps is the rounding of scale and bias.
const NO_MOVES: [f32; 1] = [0.0];
/// Rounds of refitting; a fourth changes nothing in most groups.
const REFITS: usize = 3;
/// A step below this is taken for none: its inverse has to be finite.
const SMALLEST: f32 = 1e-37;
/// Nanoseconds of a value on the slow side.
const VALUE_NS: usize = 16;

type Group = [f32; GROUP];

pub(super) fn quantize_affine(cpu: &Cpu, args: &QuantizeAffine<'_>, out: AffineParts<'_>) -> Result<()> {
    let (x, fit) = (Matrix::of(args.matrix), cpu.table.rows.fit);
    let bits = usize::from(args.bits.get());
    let (n_in, groups) = (x.cols(), x.cols() / GROUP);
    let roots = MatrixMut::of(out.roots);
    let [packed, scales, biases] = [out.packed, out.scales, out.biases].map(MatrixMut::of);
    assert_cols(groups * bits * GROUP / 32, &[packed.cols()]);
    assert_cols(groups, &[scales.cols(), biases.cols()]);
    cpu.threads.rows(x.rows(), n_in * VALUE_NS, |r| {
        // SAFETY: each row is one job's, as long as the assertions say; the processor has what the table needs.
        unsafe {
            let to = FittedRow {
                packed: packed.part_bytes(r, 0..packed.cols()),
                scales: scales.part_bytes(r, 0..groups),
                biases: biases.part_bytes(r, 0..groups),
            };
            let sums = (fit)(x.row(r), bits, to);
            let root = |sum: f64| nearest((sum / n_in as f64).sqrt());
            roots.part_bytes(r, 0..2).copy_from_slice(&sums.map(root).map(f32::to_le_bytes).concat());
        }
    })
}

/// Where a row goes.
pub(super) struct FittedRow<'a> {
    packed: &'a mut [u8],
    scales: &'a mut [u8],
    biases: &'a mut [u8],
}

/// Quantizes a row of whole groups; sums of squares of what that changed, and of the values. They are not finite where
/// a value is not.
///
/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
pub(super) unsafe fn fit_row<L: Lanes>(row: Row<'_>, bits: usize, to: FittedRow<'_>) -> [f64; 2] {
    let top = f32::from((1u16 << bits) - 1);
    let moves = if bits == 8 { &NO_MOVES[..] } else { &MOVES[..] };
    let lines = to.scales.as_chunks_mut::<2>().0.iter_mut().zip(to.biases.as_chunks_mut::<2>().0);
    let packed = to.packed.chunks_exact_mut(bits * GROUP / 8);
    let (mut x, mut codes) = ([0.0; GROUP], [0.0; GROUP]);
    let mut sums = [0.0; 2];
    for (g, ((scale, bias), packed)) in lines.zip(packed).enumerate() {
        // SAFETY: the row has as many groups as scales; lanes divide a group; the caller's promise.
        let line = unsafe {
            for i in (0..GROUP).step_by(L::N) {
                row.load::<L>(g * GROUP + i, L::N).store(x.as_mut_ptr().add(i), L::N);
            }
            let line = fit::<L>(&x, top, moves);
            for i in (0..GROUP).step_by(L::N) {
                line.codes(L::load(x.as_ptr().add(i), L::N), top).store(codes.as_mut_ptr().add(i), L::N);
            }
            line
        };
        for (code, v) in codes.iter().zip(&x) {
            let (v, stands_for) =
                (f64::from(*v), f64::from(line.scale) * f64::from(*code) + f64::from(line.bias));
            sums[0] += (stands_for - v) * (stands_for - v);
            sums[1] += v * v;
        }
        *scale = bf16::from_f32(line.scale).to_le_bytes();
        *bias = bf16::from_f32(line.bias).to_le_bytes();
        pack(&codes, bits, packed);
    }
    sums
}

/// `value = scale * code + bias`
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    bias: f32,
}

/// What a line does to a group.
struct Look {
    /// The sum of squares that its codes leave.
    error: f32,
    /// The line with the least squares through the same codes.
    fitted: Line,
    /// How much of the sum of squares around the mean that one explains.
    explained: f32,
}

/// The line that leaves the least error of those that are tried, as it is stored.
///
/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
unsafe fn fit<L: Lanes>(x: &Group, top: f32, moves: &[f32]) -> Line {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = range::<L>(x);
        let mean = mean::<L>(x);
        let step = high / top - low / top;
        let mut best = Line { scale: step, bias: low }.stored();
        let mut least = look::<L>(x, mean, best, top).error;
        let (mut line, mut most) = (best, f32::NEG_INFINITY);
        for below in moves {
            for above in moves {
                let moved = Line { scale: step * ((top - below - above) / top), bias: low + step * below };
                let look = look::<L>(x, mean, moved, top);
                if look.explained > most {
                    (line, most) = (look.fitted, look.explained);
                }
            }
        }
        for _ in 0..REFITS {
            let stored = line.stored();
            let look = look::<L>(x, mean, stored, top);
            if look.error < least {
                (best, least) = (stored, look.error);
            }
            line = look.fitted;
        }
        best
    }
}

impl Line {
    /// With the precision in which both are stored.
    #[inline(always)]
    fn stored(self) -> Self {
        Self { scale: stored(self.scale), bias: stored(self.bias) }
    }

    /// The nearest codes.
    #[inline(always)]
    unsafe fn codes<L: Lanes>(self, v: L, top: f32) -> L {
        let inverse = if self.scale > SMALLEST { 1.0 / self.scale } else { 0.0 };
        // SAFETY: the caller's promise that the processor has what `L` needs.
        unsafe {
            let code = v.sub(L::splat(self.bias)).mul(L::splat(inverse));
            code.max(L::splat(0.0)).min(L::splat(top)).round()
        }
    }
}

/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
unsafe fn look<L: Lanes>(x: &Group, mean: f32, line: Line, top: f32) -> Look {
    let mut parts = [[0.0; PARTS]; 4];
    // SAFETY: the caller's promise; lanes divide the parts, and parts the group.
    unsafe {
        let (scale, bias, mean) = (L::splat(line.scale), L::splat(line.bias), L::splat(mean));
        for i in (0..PARTS).step_by(L::N) {
            let mut sums = [L::splat(0.0); 4];
            for first in (0..GROUP).step_by(PARTS) {
                let v = L::load(x.as_ptr().add(first + i), L::N);
                let code = line.codes(v, top);
                let left = code.mul(scale).add(bias).sub(v);
                sums[0] = sums[0].add(code);
                sums[1] = sums[1].add(code.mul(code));
                sums[2] = sums[2].add(code.mul(v.sub(mean)));
                sums[3] = sums[3].add(left.mul(left));
            }
            for (to, sum) in parts.iter_mut().zip(sums) {
                sum.store(to.as_mut_ptr().add(i), L::N);
            }
        }
    }
    let [all, squares, common, error] = [sum(parts[0]), sum(parts[1]), sum(parts[2]), sum(parts[3])];
    // Sums of codes and of their squares are whole numbers below 2^24, so nothing is lost here.
    let middle = all / GROUP as f32;
    let spread = squares - all * middle;
    let scale = if spread > 0.0 { common / spread } else { 0.0 };
    Look { error, fitted: Line { scale, bias: mean - scale * middle }, explained: common * scale }
}

/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
unsafe fn mean<L: Lanes>(x: &Group) -> f32 {
    let mut parts = [0.0; PARTS];
    // SAFETY: as in `look`.
    unsafe {
        for i in (0..PARTS).step_by(L::N) {
            let mut sum = L::splat(0.0);
            for first in (0..GROUP).step_by(PARTS) {
                sum = sum.add(L::load(x.as_ptr().add(first + i), L::N));
            }
            sum.store(parts.as_mut_ptr().add(i), L::N);
        }
    }
    sum(parts) / GROUP as f32
}

/// The sum of partial sums, the same for registers of any width.
#[inline(always)]
fn sum(parts: [f32; PARTS]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| parts[i] + parts[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The smallest and the largest value.
///
/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
unsafe fn range<L: Lanes>(x: &Group) -> (f32, f32) {
    // SAFETY: the caller's promise; lanes divide a group.
    unsafe {
        let zero = L::splat(0.0);
        let (mut below, mut high) = (L::splat(f32::NEG_INFINITY), L::splat(f32::NEG_INFINITY));
        for i in (0..GROUP).step_by(L::N) {
            let v = L::load(x.as_ptr().add(i), L::N);
            (below, high) = (zero.sub(v).max(below), v.max(high));
        }
        (-below.largest(), high.largest())
    }
}

/// The nearest bf16, ties to even; never infinity.
#[inline(always)]
fn stored(v: f32) -> f32 {
    const LARGEST: f32 = f32::from_bits(0x7f7f_0000);
    let bits = v.to_bits();
    let rounded = f32::from_bits(bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000);
    rounded.clamp(-LARGEST, LARGEST)
}

/// Codes of so many bits, the first lowest: eight of them are as many bytes as a code has bits.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "codes are 0 to 255")]
fn pack(codes: &Group, bits: usize, to: &mut [u8]) {
    for (bytes, codes) in to.chunks_exact_mut(bits).zip(codes.as_chunks::<8>().0) {
        let word = codes.iter().rev().fold(0u64, |word, code| word << bits | u64::from(*code as u8));
        bytes.copy_from_slice(&word.to_le_bytes()[..bits]);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
fn nearest(v: f64) -> f32 {
    v as f32
}
