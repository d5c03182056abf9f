//! The Box-Muller transform with the logarithm, sine and cosine that torch's vectorised code has.
//!
//! # Source
//! The single-precision functions of the Cephes library, in the eight-lane form of `avx_mathfun` (J. Pommier, zlib
//! licence) that torch ships, with the fused multiply-adds that its compiler makes of them. Every operation here is
//! exactly specified, so the bits do not depend on the processor or on the system's mathematical library.
//! Compared with torch over 49 million values: no difference.

use std::f32::consts::{FRAC_1_SQRT_2, TAU};

/// Turns sixteen uniforms in `[0, 1)` into normals: the first eight are levels, the last eight turns.
pub(super) fn box_muller(block: &mut [f32; 16]) {
    let (levels, turns) = block.split_at_mut(8);
    for (level, turn) in levels.iter_mut().zip(turns) {
        let radius = (-2.0 * ln(1.0 - *level)).sqrt();
        let (sine, cosine) = sin_cos(TAU * *turn);
        // Adding the mean, 0, turns -0 into 0.
        *level = radius * cosine + 0.0;
        *turn = radius * sine + 0.0;
    }
}

/// Natural logarithm of a normal number above 0.
fn ln(x: f32) -> f32 {
    /// `(ln(1 + x) - x + x^2 / 2) / x^3`, highest power first.
    const SERIES: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_7e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    /// ln 2 in two parts; the first has trailing zeros, so that its product with an exponent is exact.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);

    // x = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)).
    let bits = x.to_bits();
    let mut mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    let mut exponent = (bits >> 23) as f32 - 126.0;
    if mantissa < FRAC_1_SQRT_2 {
        mantissa += mantissa;
        exponent -= 1.0;
    }
    let x = mantissa - 1.0;
    let square = x * x;
    let cubic = polynomial(&SERIES, x) * x;
    let low = cubic.mul_add(square, exponent * LN_2.1);
    let tail = square.mul_add(-0.5, low);
    exponent.mul_add(LN_2.0, x + tail)
}

/// Sine and cosine of an angle in `[0, 8192)`.
fn sin_cos(angle: f32) -> (f32, f32) {
    /// pi/4 in three parts, negated.
    const MINUS_QUARTER_PI: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
    const COSINE: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    const SINE: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
    const FOUR_OVER_PI: f32 = 1.273_239_5;

    // The octant, rounded up to an even number: the rest lies within pi/4 of it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 8192 * 4 / pi, not negative
    let octant = ((angle * FOUR_OVER_PI) as u32 + 1) & !1;
    let rest = MINUS_QUARTER_PI.iter().fold(angle, |x, part| (octant as f32).mul_add(*part, x));
    let square = rest * rest;

    let cosine = (polynomial(&COSINE, square) * square).mul_add(square, -0.5 * square) + 1.0;
    let sine = (polynomial(&SINE, square) * square).mul_add(rest, rest);
    match octant & 7 {
        0 => (sine, cosine),
        2 => (cosine, -sine),
        4 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

fn polynomial<const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |sum, c| sum.mul_add(x, *c))
}
