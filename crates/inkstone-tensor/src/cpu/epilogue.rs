//! What happens to the sums of a matrix product or convolution on their way to the output.

use super::activation;
use super::elementwise::for_lanes;
use super::lanes::Lanes;
use super::rows::{Row, RowMut, RowsMut};
use crate::DType::{Bf16, F32};
use crate::ops::Activation;

/// `activation(sums + bias)`
///
/// # Safety
/// The processor has what `L` needs; all rows are at least as long as `to`; sums are f32.
#[inline(always)]
pub(super) unsafe fn store_row<L: Lanes>(
    sums: Row<'_>,
    bias: Option<Row<'_>>,
    activation: Activation,
    to: RowMut<'_>,
) {
    let sums = sums.known_as(F32);
    // SAFETY: the caller's promise. A loop for what nearly all outputs are: nothing else hides the choices behind.
    unsafe {
        match (bias, activation, to.dtype()) {
            (Some(bias), Activation::None, Bf16) if bias.dtype() == F32 => {
                store_as::<L>(sums, Some(bias.known_as(F32)), Activation::None, to.known_as(Bf16));
            }
            _ => store_as::<L>(sums, bias, activation, to),
        }
    }
}

#[inline(always)]
unsafe fn store_as<L: Lanes>(
    sums: Row<'_>,
    bias: Option<Row<'_>>,
    activation: Activation,
    mut to: RowMut<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for_lanes!(L, to.len(), |i, n| {
            let v = with_bias::<L>(sums, bias, i, n);
            to.store(i, n, activation::apply(activation, v));
        });
    }
}

/// `sums + bias` for rows of sums `stride` apart.
///
/// # Safety
/// The processor has what `L` needs; there are sums for all rows of `to`, whose length is the bias's.
#[inline(always)]
pub(super) unsafe fn store_rows<L: Lanes>(sums: &[f32], stride: usize, bias: Row<'_>, to: RowsMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        for (sums, to) in sums.chunks(stride).zip(to) {
            store_row::<L>(Row::f32s(&sums[..bias.len()]), Some(bias), Activation::None, to);
        }
    }
}

/// Adds `sums + bias` to what the rows hold.
///
/// # Safety
/// As [`store_rows`].
#[inline(always)]
pub(super) unsafe fn add_to_rows<L: Lanes>(sums: &[f32], stride: usize, bias: Row<'_>, to: RowsMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        for (sums, to) in sums.chunks(stride).zip(to) {
            let sums = Row::f32s(&sums[..bias.len()]);
            match to.dtype() {
                Bf16 => add_to_row::<L>(sums, Some(bias.known_as(F32)), None, to.known_as(Bf16)),
                _ => add_to_row::<L>(sums, Some(bias.known_as(F32)), None, to.known_as(F32)),
            }
        }
    }
}

/// Adds `gate * (sums + bias)` to what the output holds.
///
/// # Safety
/// As [`store_row`].
#[inline(always)]
pub(super) unsafe fn add_to_row<L: Lanes>(
    sums: Row<'_>,
    bias: Option<Row<'_>>,
    gate: Option<Row<'_>>,
    mut to: RowMut<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for_lanes!(L, to.len(), |i, n| {
            let v = with_bias::<L>(sums, bias, i, n);
            let held = to.load::<L>(i, n);
            let sum = match gate {
                Some(gate) => v.mul_add(gate.load(i, n), held),
                None => v.add(held),
            };
            to.store(i, n, sum);
        });
    }
}

/// Multiplies what the output holds by `sums + bias`.
///
/// # Safety
/// As [`store_row`].
#[inline(always)]
pub(super) unsafe fn mul_to_row<L: Lanes>(sums: Row<'_>, bias: Option<Row<'_>>, mut to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        for_lanes!(L, to.len(), |i, n| {
            let held = to.load::<L>(i, n);
            to.store(i, n, held.mul(with_bias::<L>(sums, bias, i, n)));
        });
    }
}

#[inline(always)]
unsafe fn with_bias<L: Lanes>(sums: Row<'_>, bias: Option<Row<'_>>, i: usize, n: usize) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let v = sums.load::<L>(i, n);
        match bias {
            Some(bias) => v.add(bias.load(i, n)),
            None => v,
        }
    }
}
