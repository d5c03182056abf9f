//! How far a result may be from its f64 definition, and why.
//!
//! All inputs are exact in f64, so only the kernel rounds. With u = 2^-24, half the distance between 1 and the next
//! f32:
//!
//! - A sum of K products in f32, in any order, fused or not, is off by at most 2 K u times the sum of the products'
//!   magnitudes (each product and each addition rounds once, first order in u; the 2 covers what is beyond it).
//! - Storing as bf16 keeps 8 significant bits: off by at most half a step, 2^-8 of a value just above a power of two.
//! - `exp` is good to 1e-7 of its value, so `silu` and GELU are good to `ACTIVATION` of theirs for the f32 argument
//!   they are given; both change by at most 1.13 times what their argument changes.
//! - A norm is a sum of squares (as above, relative K u since nothing cancels), a root, a division, two products.

use inkstone_tensor::DType;

/// Half a unit in the last place of f32, relative.
pub(crate) const U: f64 = 5.960_464_477_539_063e-8;
/// Relative error of an exponential.
pub(crate) const EXP: f64 = 1e-7;
/// Relative error of an activation.
pub(crate) const ACTIVATION: f64 = 1e-6;
/// The largest slope of silu and GELU.
pub(crate) const SLOPE: f64 = 1.13;
/// Below the smallest normal f32 some instructions flush to zero.
pub(crate) const TINY: f64 = 1.2e-38;

/// A sum of `k` products whose magnitudes add up to `magnitude`.
pub(crate) fn dot(k: usize, magnitude: f64) -> f64 {
    2.0 * count(k + 2) * U * magnitude + TINY
}

/// Storing `value` as `dtype`.
pub(crate) fn store(dtype: DType, value: f64) -> f64 {
    let relative = if dtype == DType::Bf16 { 2f64.powi(-8) } else { U };
    relative * value.abs() + TINY
}

/// A norm over `k` elements, and a few products behind it, giving `value`.
pub(crate) fn norm(k: usize, value: f64) -> f64 {
    (count(k) + 16.0) * U * value.abs() + TINY
}

pub(crate) fn count(k: usize) -> f64 {
    f64::from(u32::try_from(k).unwrap())
}

/// Fails with the place of the first value that is farther from `want` than `allowed` there.
pub(crate) fn check(what: &str, got: &[f32], want: &[f64], allowed: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let distance = (f64::from(*got) - want).abs();
        assert!(
            distance <= allowed(i),
            "{what}: at {i} got {got}, want {want}, off by {distance:e} > {:e}",
            allowed(i)
        );
    }
}
