//! Sums of groups of columns, each with weights of its own: the first factor of a Kronecker product.

use super::Cpu;
use super::lanes::Lanes;
use super::rows::{Matrix, MatrixMut, RowMut, assert_cols};
use crate::DType::{self, Bf16, F32};
use crate::ops::Mix;
use crate::{Result, Tensor};

/// Products of elements that a thread computes in a nanosecond, on the slow side.
const PRODUCTS_PER_NS: usize = 8;
/// Sums that are worked on together: each element waits for the one before.
const TOGETHER: usize = 4;

/// Groups, and what they are multiplied with in a sum.
pub(super) struct Mixture<'a> {
    /// A group a row.
    groups: Matrix<'a>,
    weights: &'a [f32],
    factor: f32,
}

pub(super) fn mix(cpu: &Cpu, args: &Mix<'_>, out: &mut Tensor) -> Result<()> {
    let (x, to) = (Matrix::of(args.x), MatrixMut::of(out));
    let (groups, sums, width) = (args.weight.cols(), args.weight.rows(), args.width);
    assert_cols(width, &[to.cols()]);
    if sums == 0 || width == 0 {
        return Ok(());
    }
    let weight = args.weight.to_f32()?;
    let side_by_side = x.cols() == groups * width;
    cpu.threads.rows(to.rows() / sums, sums * groups * width / PRODUCTS_PER_NS + width, |r| {
        let groups = if side_by_side { x.parts(r, width) } else { x.rows_from(r * groups, groups) };
        for (i, weights) in weight.chunks_exact(groups.rows()).enumerate() {
            let mixture = Mixture { groups, weights, factor: args.factor };
            // SAFETY: each row is one job's, of `width` elements as the groups are.
            unsafe { (cpu.table.rows.mix)(&mixture, to.part(r * sums + i, 0..width)) }
        }
    })
}

/// `factor * sum of weight * group`
///
/// # Safety
/// The processor has what `L` needs; the groups have as many elements as `to`, and there is a weight for each.
#[inline(always)]
pub(super) unsafe fn mix_row<L: Lanes>(of: &Mixture<'_>, to: RowMut<'_>) {
    // SAFETY: the caller's promise. A loop for the common types, which are constants to it.
    unsafe {
        match (of.groups.dtype(), to.dtype()) {
            (F32, F32) => mix_of::<L>(of, F32, to.known_as(F32)),
            (Bf16, Bf16) => mix_of::<L>(of, Bf16, to.known_as(Bf16)),
            (dtype, _) => mix_of::<L>(of, dtype, to),
        }
    }
}

#[inline(always)]
unsafe fn mix_of<L: Lanes>(of: &Mixture<'_>, dtype: DType, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = L::splat(of.factor);
        for first in (0..to.len()).step_by(TOGETHER * L::N) {
            let mut sums = [L::splat(0.0); TOGETHER];
            for (g, weight) in of.weights.iter().enumerate() {
                let (group, weight) = (of.groups.row(g).known_as(dtype), L::splat(*weight));
                for (k, sum) in sums.iter_mut().enumerate() {
                    let i = first + k * L::N;
                    if i < to.len() {
                        *sum = group.load::<L>(i, L::N.min(to.len() - i)).mul_add(weight, *sum);
                    }
                }
            }
            for (k, sum) in sums.into_iter().enumerate() {
                let i = first + k * L::N;
                if i < to.len() {
                    to.store(i, L::N.min(to.len() - i), sum.mul(factor));
                }
            }
        }
    }
}
