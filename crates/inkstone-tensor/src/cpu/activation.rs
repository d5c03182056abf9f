//! exp and the activations built on it.

use super::lanes::Lanes;
use crate::ops::Activation;

/// Below it `exp` stays at its value here, which is 0 or, where numbers that small exist, 6e-39.
const EXP_MIN: f32 = -88.0;
/// Beyond it `exp` stays at its value here, 1.65e38, so that nothing becomes infinite.
const EXP_MAX: f32 = 88.0;

/// ln 2 in two parts, the first with few bits, so that `x - n * ln 2` is exact enough (Cody and Waite).
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `(exp(r) - 1 - r) / r^2` for `|r| <= ln 2 / 2`, highest power first; with it exp is good to 1e-7 of its value.
/// Source: Cephes math library, `expf`.
const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5];

/// `exp(x)`; NaN stays NaN.
///
/// # Safety
/// The processor has what `L` needs.
#[inline(always)]
pub(super) unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let within = L::splat(EXP_MIN).max(L::splat(EXP_MAX).min(x));
        let n = within.mul(L::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(L::splat(-LN_2[1]), n.mul_add(L::splat(-LN_2[0]), within));
        let mut p = L::splat(EXP[0]);
        for c in &EXP[1..] {
            p = p.mul_add(r, L::splat(*c));
        }
        p.mul_add(r.mul(r), r).add(L::splat(1.0)).scale_by_power(n)
    }
}

/// `2^f - 1` over `f` for `|f| <= 1/2`, highest power first; `2^f` is good to 2e-7 of its value.
/// Source: a minimax fit with the constant term fixed.
const EXP2: [f32; 5] = [1.339_887_4e-3, 9.618_437e-3, 5.550_332_4e-2, 2.402_264_8e-1, 6.931_472e-1];

/// `2^x` for `x` of at most about 0: for the weights of a softmax, cheaper than [`exp`].
///
/// # Safety
/// As [`exp`].
#[inline(always)]
pub(super) unsafe fn exp2_down<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let x = L::splat(-127.0).max(x);
        let n = x.round();
        let f = x.sub(n);
        let mut p = L::splat(EXP2[0]);
        for c in &EXP2[1..] {
            p = p.mul_add(f, L::splat(*c));
        }
        p.mul_add(f, L::splat(1.0)).scale_by_power(n)
    }
}

/// `x * sigmoid(x)`
///
/// # Safety
/// As [`exp`].
#[inline(always)]
pub(super) unsafe fn silu<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let minus_x = L::splat(0.0).sub(x);
        x.div(L::splat(1.0).add(exp(minus_x)))
    }
}

/// GELU in its tanh form, by `0.5 (1 + tanh u) = sigmoid(2 u)`.
///
/// # Safety
/// As [`exp`].
#[inline(always)]
pub(super) unsafe fn gelu_tanh<L: Lanes>(x: L) -> L {
    const MINUS_2_SQRT_2_BY_PI: f32 = -2.0 * 0.797_884_6;
    const CUBE: f32 = 0.044_715;
    // SAFETY: the caller's promise.
    unsafe {
        let cube = x.mul(x).mul(x);
        let u = cube.mul_add(L::splat(CUBE), x).mul(L::splat(MINUS_2_SQRT_2_BY_PI));
        x.div(L::splat(1.0).add(exp(u)))
    }
}

/// The function that `activation` names.
///
/// # Safety
/// As [`exp`].
#[inline(always)]
pub(super) unsafe fn apply<L: Lanes>(activation: Activation, x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        match activation {
            Activation::None => x,
            Activation::Silu => silu(x),
            Activation::GeluTanh => gelu_tanh(x),
        }
    }
}
