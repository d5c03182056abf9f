//! RMS norm of heads and rotation of their pairs.

use super::Cpu;
use super::elementwise::for_lanes;
use super::lanes::Lanes;
use super::norm::{count, sum_of_squares};
use super::rows::{Matrix, MatrixMut, Row, RowMut, assert_cols};
use crate::DType::{Bf16, F32};
use crate::ops::{RopeLayout, RopeNorm};
use crate::{Result, Tensor};

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
    let (cos, sin) = (rotation.cos.known_as(F32), rotation.sin.known_as(F32));
    let rotation = Rotation { cos, sin, ..*rotation };
    // SAFETY: the caller's promise. A loop for what the transformer has, whose choices the compiler knows.
    unsafe {
        match (x.dtype(), to.dtype(), rotation.layout, rotation.norm) {
            (Bf16, Bf16, layout @ RopeLayout::Interleaved, Some((weight, eps))) => {
                let norm = Some((weight.known_as(F32), eps));
                rotate_heads::<L>(x.known_as(Bf16), Rotation { layout, norm, ..rotation }, to.known_as(Bf16));
            }
            (F32, F32, layout @ RopeLayout::Interleaved, Some((weight, eps))) => {
                let norm = Some((weight.known_as(F32), eps));
                rotate_heads::<L>(x.known_as(F32), Rotation { layout, norm, ..rotation }, to.known_as(F32));
            }
            _ => rotate_heads::<L>(x, rotation, to),
        }
    }
}

/// Heads whose factors are found side by side, before any of them is used: each waits for two divisions and a root.
const TURNS: usize = 32;

#[inline(always)]
unsafe fn rotate_heads<L: Lanes>(x: Row<'_>, rotation: Rotation<'_>, mut to: RowMut<'_>) {
    let half = rotation.cos.len();
    let dim = 2 * half;
    // SAFETY: the caller's promise; a pair's elements are `first` and `second` below, both within the head.
    unsafe {
        for start in (0..to.len()).step_by(TURNS * dim) {
            let end = to.len().min(start + TURNS * dim);
            let mut factors = [1.0; TURNS];
            if let Some((_, eps)) = rotation.norm {
                for (head, squares) in (start..end).step_by(dim).zip(&mut factors) {
                    *squares = sum_of_squares::<L>(x.part(head..head + dim));
                }
                factors = factors.map(|squares| 1.0 / (squares / count(dim) + eps).sqrt());
            }
            for (head, factor) in (start..end).step_by(dim).zip(factors) {
                let factor = L::splat(factor);
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
            }
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
                RopeLayout::Interleaved => x.load_pairs(head + 2 * i, n),
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
                RopeLayout::Interleaved => to.store_pairs(head + 2 * i, n, (first, second)),
            }
        }
    }
}
