//! Convolutions with weights of 8 bits: lines of pixels are rotated and rounded together.

use inkstone_tensor::ops::{self, Activation, ConvWeight, Padding, PixelNorm, Window};
use inkstone_tensor::{DType, Device, Error, Int8Weight, Shape, Tensor, Weight};

use crate::host::{ACTIVATIONS, Host, Layout, channel_norm, devices, make, random, silu, vector};
use crate::int8::{FACTOR, STEPS_OFF, dequantized, quantized, rotated, rounded};
use crate::taps::{Seen, Sizes};
use crate::tolerance::{U, check, store};

#[derive(Clone, Copy)]
struct Case {
    sizes: Sizes,
    norm: bool,
}

/// How far a value may be off in steps behind a norm and silu, which are good to a relative 1e-6 and 1.13 of what the
/// norm's 16 products and sums of some hundred squares are off, together less than 4e-6. The rotated value is off by that
/// times the sum of its group's magnitudes over the root of the group, up to the root of 128 times their root mean
/// square, which is below the line's largest value: 127 * 11.3 * 4e-6 steps.
const STEPS_OFF_BEHIND_NORM: f64 = 6e-3;
/// What a line's factor may be off behind a norm, relative: the same of its largest value.
const FACTOR_BEHIND_NORM: f64 = 5e-5;

/// The pixels of a line behind their norm, rotated.
fn pixels(case: &Case, x: &Host, gamma: &[f32], line: usize, group: usize) -> Vec<Vec<f64>> {
    let [_, _, w, _] = case.sizes.x;
    let pixel = |p: usize| {
        let mut values = x.row(line * w + p);
        if case.norm {
            values = channel_norm(&values, gamma).into_iter().map(silu).collect();
        }
        rotated(&values, group)
    };
    (0..w).map(pixel).collect()
}

/// A line as it is multiplied: the step, and for each pixel the whole numbers and which of them f32 may round otherwise.
type Line = (f64, Vec<f64>, Vec<bool>);

fn line(case: &Case, x: &Host, gamma: &[f32], i: usize, group: usize) -> Line {
    let all: Vec<f64> = pixels(case, x, gamma, i, group).concat();
    rounded(&all, if case.norm { STEPS_OFF_BEHIND_NORM } else { STEPS_OFF })
}

/// The output in f64: its sums, their terms' magnitudes, and what they may be off where f32 rounds a pixel the other way.
fn convolved(case: &Case, x: &Host, gamma: &[f32], weight: &Int8Weight) -> [Vec<f64>; 3] {
    let [n, h, w, c_in] = case.sizes.x;
    let lines: Vec<Line> = (0..n * h).map(|i| line(case, x, gamma, i, weight.group())).collect();
    let rows = dequantized(weight);
    case.sizes.sums(|Seen { pixel, row, col }| {
        let (step, numbers, edges) = &lines[pixel / w];
        let mut at = [0.0; 3];
        for k in 0..c_in {
            let (weight, number) = (rows[row][col + k], numbers[pixel % w * c_in + k]);
            let term = step * number * weight;
            at[0] += term;
            at[1] += term.abs();
            at[2] += if edges[pixel % w * c_in + k] { step * weight.abs() } else { 0.0 };
        }
        at
    })
}

fn conv_case(device: &Device, case: &Case, dtype: DType) -> Vec<u8> {
    let Case { sizes, norm } = *case;
    let (c_in, c_out) = (sizes.x[3], sizes.c_out);
    let x = Host::random(1, sizes.picture().rows(), c_in, dtype);
    let (bias, gamma) = (random(3, c_out), random(5, c_in));
    let [rows, k] = sizes.weight();
    let values = Host::random(2, rows, k, DType::Bf16);
    let weight = quantized(device, &values, Int8Weight::group_of(c_in)).weight;
    let [sums, magnitudes, edges] = convolved(case, &x, &gamma, &weight);
    let xt = make(device, &x.values, dtype, sizes.picture());
    let weight = ConvWeight { matrix: Weight::Int8(weight), kernel: sizes.kernel };
    let (bt, gt) = (vector(device, &bias), vector(device, &gamma));
    let pixel_norm = norm.then_some(PixelNorm { gamma: &gt, activation: Activation::Silu });
    let what = format!("{} {sizes:?}, norm {norm}, {dtype}", device.name());
    let (window, shape) = (sizes.window(), sizes.out());
    let factor = if norm { FACTOR_BEHIND_NORM } else { FACTOR };
    // Factors, then a sum for each line of the kernel and one with the bias.
    let allowed = |i: usize| edges[i] + (factor + 16.0 * U) * (magnitudes[i] + 1.0);
    let want: Vec<f64> = sums.iter().enumerate().map(|(i, s)| s + f64::from(bias[i % c_out])).collect();
    let result = ops::conv2d_of(&xt, pixel_norm, &weight, &bt, window, DType::F32).unwrap();
    assert_eq!(result.shape(), &shape, "{what}");
    check(&what, &result.to_f32().unwrap(), &want, allowed);
    let rounded = ops::conv2d_of(&xt, pixel_norm, &weight, &bt, window, DType::Bf16).unwrap();
    check(&what, &rounded.to_f32().unwrap(), &want, |i| allowed(i) + store(DType::Bf16, want[i]));
    let residual = Host::random(4, shape.rows(), c_out, dtype);
    let want: Vec<f64> = want.iter().zip(&residual.values).map(|(s, r)| s + f64::from(*r)).collect();
    let residual = make(device, &residual.values, dtype, shape);
    let added = ops::conv2d_add_of(residual, &xt, pixel_norm, &weight, &bt, window).unwrap();
    check(&what, &added.to_f32().unwrap(), &want, |i| allowed(i) + 2.0 * U + store(dtype, want[i]));
    result.to_bytes()
}

const CASES: [Sizes; 16] = {
    const NONE: Padding = Padding::all(0);
    const ONE: Padding = Padding::all(1);
    [
        Sizes::new([1, 1, 1, 1], 1, 3, ONE),
        Sizes::new([2, 3, 5, 3], 4, 1, NONE).halving(),
        Sizes::new([1, 2, 3, 8], 5, 1, Padding::behind(1)),
        Sizes::new([2, 5, 7, 6], 33, 3, ONE),
        Sizes::new([1, 9, 15, 16], 3, 3, ONE),
        Sizes::new([1, 6, 7, 5], 31, 3, Padding::behind(1)).halving(),
        Sizes::new([2, 4, 29, 24], 32, 3, Padding::behind(1)).halving(),
        Sizes::new([1, 5, 113, 4], 17, 3, Padding { above: 1, below: 0, left: 2, right: 0 }),
        Sizes::new([1, 5, 11, 12], 17, 3, Padding { above: 0, below: 1, left: 1, right: 3 }).halving(),
        Sizes::new([1, 1, 3, 2], 2, 3, Padding { above: 4, below: 4, left: 1, right: 1 }),
        Sizes::new([1, 3, 4, 384], 65, 3, NONE),
        Sizes::new([1, 4, 4, 96], 40, 3, ONE),
        Sizes::doubling([1, 1, 1, 1], 1, ONE),
        Sizes::doubling([2, 3, 5, 6], 33, ONE),
        Sizes::doubling([1, 3, 57, 4], 17, Padding { above: 2, below: 0, left: 1, right: 3 }),
        Sizes::doubling([1, 2, 3, 96], 40, NONE),
    ]
};

#[test]
fn convolutions_match_their_definition_and_are_the_same_on_every_table() {
    let devices = devices();
    for sizes in CASES {
        for dtype in ACTIVATIONS {
            let case = Case { sizes, norm: false };
            let all: Vec<_> = devices.iter().map(|device| conv_case(device, &case, dtype)).collect();
            assert!(all.iter().all(|bytes| *bytes == all[0]), "{sizes:?} {dtype}: tables differ");
        }
    }
}

#[test]
fn a_norm_in_front_is_part_of_the_rounding() {
    for device in devices() {
        for sizes in CASES {
            for dtype in ACTIVATIONS {
                conv_case(&device, &Case { sizes, norm: true }, dtype);
            }
        }
    }
}

#[test]
fn a_pixel_convolution_is_a_linear_layer() {
    for device in devices() {
        let x = Host::random(1, 2 * 3 * 5, 48, DType::Bf16);
        let weight = Weight::Int8(quantized(&device, &Host::random(2, 33, 48, DType::F32), 16).weight);
        let bias = vector(&device, &random(3, 33));
        let rows = ops::linear(
            &x.tensor(&device, Layout::Plain),
            &weight,
            Some(&bias),
            Activation::None,
            DType::F32,
        );
        let weight = ConvWeight { matrix: weight, kernel: 1 };
        let picture = make(&device, &x.values, DType::Bf16, Shape::nhwc(2, 3, 5, 48));
        let window = Window::whole(Padding::all(0));
        let pixels = ops::conv2d(&picture, &weight, &bias, window, DType::F32).unwrap();
        assert!(pixels.to_bytes() == rows.unwrap().to_bytes(), "{}", device.name());
    }
}

#[test]
fn a_value_that_is_not_finite_spoils_its_line_and_no_other() {
    const SIZE: [usize; 4] = [1, 5, 4, 16];
    for device in devices() {
        let weight = quantized(&device, &Host::random(2, 3, 144, DType::F32), 16).weight;
        let weight = ConvWeight { matrix: Weight::Int8(weight), kernel: 3 };
        let bias = vector(&device, &[0.0; 3]);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = random(1, SIZE.iter().product());
            values[5] = bad;
            let x = make(&device, &values, DType::F32, Shape::nhwc(1, 5, 4, 16));
            let got = ops::conv2d(&x, &weight, &bias, Window::whole(Padding::all(1)), DType::F32).unwrap();
            let got = got.to_f32().unwrap();
            let (seen, others) = got.split_at(2 * 4 * 3);
            assert!(seen.iter().all(|v| v.is_nan()), "{} {bad}: {seen:?}", device.name());
            assert!(others.iter().all(|v| v.is_finite()), "{} {bad}: {others:?}", device.name());
        }
    }
}

#[test]
fn weights_that_do_not_fit_the_pixels_are_refused() {
    let device = devices().pop().unwrap();
    let run = |c_in: usize, group: usize| {
        let values = Tensor::empty(&device, DType::U8, Shape::matrix(1, 9 * c_in)).unwrap();
        let weight = Int8Weight::new(values, vector(&device, &[1.0]), group).unwrap();
        let x = Tensor::empty(&device, DType::F32, Shape::nhwc(1, 1, 1, c_in)).unwrap();
        let weight = ConvWeight { matrix: Weight::Int8(weight), kernel: 3 };
        ops::conv2d(&x, &weight, &vector(&device, &[0.0]), Window::whole(Padding::all(1)), DType::F32)
    };
    assert!(run(24, 8).is_ok());
    // Four taps of 24 channels are three groups of 32, but no pixel is.
    let values = Tensor::empty(&device, DType::U8, Shape::matrix(4, 96)).unwrap();
    let weight = Int8Weight::new(values, vector(&device, &[1.0; 4]), 32).unwrap();
    let weight = ConvWeight { matrix: Weight::Int8(weight), kernel: ConvWeight::DOUBLING };
    let x = Tensor::empty(&device, DType::F32, Shape::nhwc(1, 1, 1, 24)).unwrap();
    let bias = vector(&device, &[0.0]);
    let error = ops::conv2d(&x, &weight, &bias, Window::whole(Padding::all(1)), DType::F32).unwrap_err();
    assert!(matches!(error, Error::Range { what: "group", .. }), "{error}");
    assert!(matches!(run(0, 1).unwrap_err(), Error::Range { what: "channels", .. }));
    assert!(matches!(run(21_848, 8).unwrap_err(), Error::Range { what: "channels", .. }));
    let x = Tensor::empty(&device, DType::F32, Shape::nhwc(1, 3, 3, 8)).unwrap();
    let weight = quantized(&device, &Host::random(1, 2, 72, DType::F32), 8).weight;
    let weight = ConvWeight { matrix: Weight::Int8(weight), kernel: 3 };
    let bias = vector(&device, &[0.0; 2]);
    let norm = PixelNorm { gamma: &bias, activation: Activation::Silu };
    let error = ops::conv2d_of(&x, Some(norm), &weight, &bias, Window::whole(Padding::all(1)), DType::F32);
    assert!(matches!(error.unwrap_err(), Error::Shape { what: "gamma", .. }));
}
