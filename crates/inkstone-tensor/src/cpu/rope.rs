//! RMS norm of heads and rotation of their pairs.

use super::Cpu;
use super::elementwise::{for_lanes, known_types};
use super::lanes::Lanes;
use super::norm::{count, sum_of_squares};
use super::rows::{Matrix, MatrixMut, Row, RowMut, assert_cols};
use crate::ops::{RopeLayout, RopeNorm};
use crate::{DType, Result, Tensor};

/// Elements a thread handles in about a nanosecond, on the slow side.
const PER_NS: usize = 2;

/// What all heads of a row share.
#[derive(Clone, Copy)]
pub(super) struct Rotation<'a> {
    /// `[head_dim / 2]`
    pub(super) cos: Row<'a>,
    pub(super) sin: Row<'a>,
    pub(super) layout: RopeLayout,
    /// Weight `[head_dim]` and epsilon.
    pub(super) norm: Option<(Row<'a>, f32)>,
}

pub(super) fn rope_norm(cpu: &Cpu, args: &RopeNorm<'_>, out: &mut Tensor) -> Result<()> {
    let (x, to) = (Matrix::of(args.x), MatrixMut::of(out));
    let (cos, sin) = (Matrix::of(&args.rope.cos), Matrix::of(&args.rope.sin));
    let norm = args.norm.map(|(weight, eps)| (Matrix::of(weight).row(0), eps));
    let cols = x.cols();
    assert_cols(cols, &[to.cols()]);
    assert_cols(args.head_dim, &[2 * cos.cols(), 2 * sin.cols()]);
    assert_cols(args.head_dim, norm.map(|(weight, _)| weight.len()).as_slice());
    assert!(
        args.head_dim > 0 && cols.is_multiple_of(args.head_dim),
        "{cols} columns, heads of {}",
        args.head_dim
    );
    cpu.threads.rows(x.rows(), cols.div_ceil(PER_NS), |r| {
        let angle = r % cos.rows();
        let rotation = Rotation { cos: cos.row(angle), sin: sin.row(angle), layout: args.rope.layout, norm };
        // SAFETY: each row is one job's; rows are whole heads, and tables and weight fit a head.
        unsafe { (cpu.table.rows.rope_norm)(x.row(r), &rotation, to.part(r, 0..cols)) }
    })
}

/// # Safety
/// The processor has what `L` needs; rows are equally long and whole heads of twice the rotation's length.
#[inline(always)]
pub(super) unsafe fn rope_norm_row<L: Lanes>(x: Row<'_>, rotation: &Rotation<'_>, to: RowMut<'_>) {
    let (cos, sin) = (rotation.cos.known_as(DType::F32), rotation.sin.known_as(DType::F32));
    let rotation = Rotation { cos, sin, ..*rotation };
    // SAFETY: the caller's promise.
    unsafe { known_types!(x, to, |x, to| rope_norm_of::<L>(x, rotation, to)) }
}

#[inline(always)]
unsafe fn rope_norm_of<L: Lanes>(x: Row<'_>, rotation: Rotation<'_>, mut to: RowMut<'_>) {
    let half = rotation.cos.len();
    let mut head = 0;
    // SAFETY: the caller's promise; a pair's elements are `first` and `second` below, both within the head.
    unsafe {
        while head < to.len() {
            let factor = match rotation.norm {
                Some((_, eps)) => {
                    let squares = sum_of_squares::<L>(x.part(head..head + 2 * half));
                    L::splat(1.0 / (squares / count(2 * half) + eps).sqrt())
                }
                None => L::splat(1.0),
            };
            for_lanes!(L, half, |i, n| {
                let (cos, sin) = (rotation.cos.load::<L>(i, n), rotation.sin.load::<L>(i, n));
                let pairs = Pairs { i, n, half, layout: rotation.layout };
                let (mut a, mut b) = pairs.load::<L>(x, head);
                if let Some((weight, _)) = rotation.norm {
                    let (wa, wb) = pairs.load::<L>(weight, 0);
                    (a, b) = (a.mul(factor).mul(wa), b.mul(factor).mul(wb));
                }
                let first = a.mul(cos).sub(b.mul(sin));
                let second = a.mul(sin).add(b.mul(cos));
                pairs.store(&mut to, head, first, second);
            });
            head += 2 * half;
        }
    }
}

/// Pairs `i..i + n` of a head with `half` pairs.
#[derive(Clone, Copy)]
struct Pairs {
    i: usize,
    n: usize,
    half: usize,
    layout: RopeLayout,
}

impl Pairs {
    /// The first and the second elements of the pairs of the head that starts at `head`.
    #[inline(always)]
    unsafe fn load<L: Lanes>(self, x: Row<'_>, head: usize) -> (L, L) {
        let Self { i, n, half, layout } = self;
        // SAFETY: pairs `i..i + n` lie within the head.
        unsafe {
            match layout {
                RopeLayout::Halves => (x.load(head + i, n), x.load(head + i + half, n)),
                RopeLayout::Interleaved => {
                    let low = L::N.min(2 * n);
                    let start = head + 2 * i;
                    L::unzip(x.load(start, low), x.load(start + low, 2 * n - low))
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(self, to: &mut RowMut<'_>, head: usize, first: L, second: L) {
        let Self { i, n, half, layout } = self;
        // SAFETY: pairs `i..i + n` lie within the head.
        unsafe {
            match layout {
                RopeLayout::Halves => {
                    to.store(head + i, n, first);
                    to.store(head + i + half, n, second);
                }
                RopeLayout::Interleaved => {
                    let low = L::N.min(2 * n);
                    let start = head + 2 * i;
                    let (a, b) = L::zip(first, second);
                    to.store(start, low, a);
                    to.store(start + low, 2 * n - low, b);
                }
            }
        }
    }
}
