//! Operations on matching elements.

use super::Cpu;
use super::activation;
use super::lanes::Lanes;
use super::rows::{Matrix, MatrixMut, Row, RowMut, assert_cols};
use crate::ops::{Activation, Elementwise, Rescale};
use crate::{DType, Result, Tensor};

/// Elements a thread handles in about a nanosecond, on the slow side.
const PER_NS: usize = 2;

pub(super) fn elementwise(cpu: &Cpu, args: &Elementwise<'_>, out: &mut Tensor) -> Result<()> {
    let kernels = &cpu.table.rows;
    let to = MatrixMut::of(out);
    let (rows, cols) = (to.rows(), to.cols());
    match *args {
        Elementwise::Convert(x) | Elementwise::Activate(x, _) | Elementwise::Scale(x, _) => {
            assert_cols(cols, &[x.cols()])
        }
        Elementwise::AddScaled { b, .. } => assert_cols(cols, &[b.cols()]),
        Elementwise::Add(a, b) | Elementwise::Guidance { cond: a, uncond: b, .. } => {
            assert_cols(cols, &[a.cols(), b.cols()])
        }
    }
    cpu.threads.rows(rows, cols.div_ceil(PER_NS), |r| {
        let row = |t| Matrix::of(t).row(r);
        // SAFETY: each row is one job's; all are of `cols` elements.
        unsafe {
            let to = to.part(r, 0..cols);
            match *args {
                Elementwise::Convert(x) => (kernels.convert)(row(x), to),
                Elementwise::Activate(x, activation) => (kernels.activate)(row(x), activation, to),
                Elementwise::Scale(x, factor) => (kernels.scale_to)(row(x), factor, to),
                Elementwise::Add(a, b) => (kernels.add)(row(a), row(b), to),
                Elementwise::AddScaled { b, factor } => (kernels.add_scaled)(row(b), factor, to),
                Elementwise::Guidance { cond, uncond, scale, rescale } => {
                    (kernels.guidance)(row(cond), row(uncond), scale, rescale, to);
                }
            }
        }
    })
}

/// Goes over `0..len` in steps of the lanes: `i` is the first element, `n` how many there are. The body is there twice, since
/// full registers need no mask: `n` is a constant for all but the last ones.
macro_rules! for_lanes {
    ($lanes:ty, $len:expr, |$i:ident, $n:ident| $body:block) => {
        let len = $len;
        let mut $i = 0;
        while $i + <$lanes>::N <= len {
            let $n = <$lanes>::N;
            $body
            $i += $n;
        }
        if $i < len {
            let $n = len - $i;
            $body
        }
    };
}
pub(super) use for_lanes;

/// The sum of all lanes over a row of `$len` elements: `$next` is what is behind the elements from `$i` on in the sum `$sum`.
/// There are four sums, since each addition waits for the one before.
macro_rules! sum_lanes {
    ($lanes:ty, $len:expr, |$i:ident, $n:ident, $sum:ident| $next:expr) => {{
        let (len, mut first, mut sums) = ($len, 0, [<$lanes>::splat(0.0); 4]);
        while first + 4 * <$lanes>::N <= len {
            for (k, sum) in sums.iter_mut().enumerate() {
                let ($i, $n, $sum) = (first + k * <$lanes>::N, <$lanes>::N, *sum);
                *sum = $next;
            }
            first += 4 * <$lanes>::N;
        }
        if first < len {
            for (k, sum) in sums.iter_mut().enumerate() {
                let $i = first + k * <$lanes>::N;
                if $i < len {
                    let ($n, $sum) = (<$lanes>::N.min(len - $i), *sum);
                    *sum = $next;
                }
            }
        }
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    }};
}
pub(super) use sum_lanes;

/// Calls `$kernel` with `$x` and `$to` of types that are constants to the compiler, where both are common ones.
macro_rules! known_types {
    ($x:ident, $to:ident, $kernel:expr) => {{
        use crate::DType::{Bf16, F32};
        match ($x.dtype(), $to.dtype()) {
            (F32, F32) => $kernel($x.known_as(F32), $to.known_as(F32)),
            (F32, Bf16) => $kernel($x.known_as(F32), $to.known_as(Bf16)),
            (Bf16, Bf16) => $kernel($x.known_as(Bf16), $to.known_as(Bf16)),
            _ => $kernel($x, $to),
        }
    }};
}
pub(super) use known_types;

/// # Safety
/// For all kernels: the processor has what `L` needs, and the rows are equally long.
#[inline(always)]
pub(super) unsafe fn convert_row<L: Lanes>(x: Row<'_>, to: RowMut<'_>) {
    use DType::{Bf16, F16, F32};
    // SAFETY: the caller's promise. One loop for each pair of types: there is nothing else to hide the choice behind.
    unsafe {
        match (x.dtype(), to.dtype()) {
            (a, b) if a == b => to.copy(x),
            (Bf16, F32) => copy_row::<L>(x.known_as(Bf16), to.known_as(F32)),
            (F32, Bf16) => copy_row::<L>(x.known_as(F32), to.known_as(Bf16)),
            (F16, Bf16) => copy_row::<L>(x.known_as(F16), to.known_as(Bf16)),
            _ => copy_row::<L>(x, to),
        }
    }
}

#[inline(always)]
unsafe fn copy_row<L: Lanes>(x: Row<'_>, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        for_lanes!(L, to.len(), |i, n| { to.store::<L>(i, n, x.load(i, n)) });
    }
}

/// # Safety
/// As [`convert_row`].
#[inline(always)]
pub(super) unsafe fn activate_row<L: Lanes>(x: Row<'_>, activation: Activation, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        for_lanes!(L, to.len(), |i, n| { to.store::<L>(i, n, activation::apply(activation, x.load(i, n))) });
    }
}

/// # Safety
/// As [`convert_row`].
#[inline(always)]
pub(super) unsafe fn add_row<L: Lanes>(a: Row<'_>, b: Row<'_>, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        for_lanes!(L, to.len(), |i, n| { to.store(i, n, a.load::<L>(i, n).add(b.load(i, n))) });
    }
}

/// # Safety
/// As [`convert_row`].
#[inline(always)]
pub(super) unsafe fn add_scaled_row<L: Lanes>(b: Row<'_>, factor: f32, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = L::splat(factor);
        for_lanes!(L, to.len(), |i, n| {
            let sum = b.load::<L>(i, n).mul_add(factor, to.load(i, n));
            to.store(i, n, sum);
        });
    }
}

/// # Safety
/// As [`convert_row`].
#[inline(always)]
pub(super) unsafe fn guidance_row<L: Lanes>(
    cond: Row<'_>,
    uncond: Row<'_>,
    scale: f32,
    rescale: Rescale,
    mut to: RowMut<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let scale = L::splat(scale);
        let mut cond_square = L::splat(0.0);
        let mut square = L::splat(0.0);
        if rescale == Rescale::ToConditional {
            for_lanes!(L, to.len(), |i, n| {
                let (c, u) = (cond.load::<L>(i, n), uncond.load::<L>(i, n));
                let v = c.sub(u).mul_add(scale, u);
                cond_square = c.mul_add(c, cond_square);
                square = v.mul_add(v, square);
            });
        }
        // A row of zeros keeps its length whatever the factor.
        let square = square.sum();
        let factor = L::splat(if square > 0.0 { (cond_square.sum() / square).sqrt() } else { 1.0 });
        for_lanes!(L, to.len(), |i, n| {
            let (c, u) = (cond.load::<L>(i, n), uncond.load::<L>(i, n));
            to.store(i, n, c.sub(u).mul_add(scale, u).mul(factor));
        });
    }
}
