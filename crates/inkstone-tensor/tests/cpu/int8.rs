//! Weights of 8 bits and products with them.

use std::sync::Arc;

use inkstone_tensor::ops::{self, Activation, ConvWeight, Padding, RowTable, Run, Window};
use inkstone_tensor::{ConvRot, DType, Device, Error, Int8Weight, Shape, Tensor, Weight};

use crate::host::{ACTIVATIONS, Host, LAYOUTS, Layout, devices, gelu_tanh, make, random, vector};
use crate::quantized::{noise, rotation, tensor};
use crate::tolerance::{ACTIVATION, SLOPE, U, check, store};

/// Values of k that share a scale.
const BLOCK: usize = 1024;

/// How far a rotated value may be off, in steps of its block, when it is computed in f32. A value is 7 rounds of sums,
/// so off by 7 U times the sum of its group's magnitudes, which is at most 128 times their root mean square. A step is
/// 1/127 of the largest rotated value, and that is at least the root mean square times the root of 128. So the error is
/// at most 7 * 127 * sqrt(128) U = 6e-4 steps.
pub(crate) const STEPS_OFF: f64 = 1e-3;
/// What a factor may be off, relative: the same error of its largest value (6e-4 / 127), and some products.
pub(crate) const FACTOR: f64 = 6e-6;

/// Each group of values times the orthogonal Hadamard matrix: entry `i, j` is -1 to the number of bits that both have.
pub(crate) fn rotated(row: &[f64], group: usize) -> Vec<f64> {
    let size = f64::from(u32::try_from(group).unwrap()).sqrt();
    let entry =
        |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 / size } else { -1.0 / size };
    let product = |(part, i): (&[f64], usize)| part.iter().enumerate().map(|(j, v)| v * entry(i, j)).sum();
    row.chunks(group).flat_map(|part| (0..group).map(move |i| (part, i))).map(product).collect()
}

/// Values as whole steps of the largest one over 127: the step, the numbers, and which of them f32 may round otherwise.
pub(crate) fn rounded(values: &[f64], steps_off: f64) -> (f64, Vec<f64>, Vec<bool>) {
    let step = values.iter().fold(0.0, |m: f64, v| m.max(v.abs())) / 127.0;
    let steps: Vec<f64> = values.iter().map(|v| if step > 0.0 { v / step } else { 0.0 }).collect();
    let on_edge = |t: &f64| ((t - t.floor()) - 0.5).abs() < steps_off;
    (step, steps.iter().map(|t| t.round()).collect(), steps.iter().map(on_edge).collect())
}

pub(crate) fn quantized(device: &Device, w: &Host, group: usize) -> ops::RoundedWeight {
    ops::quantize_int8(&w.tensor(device, Layout::View), group).unwrap()
}

/// The numbers of a weight times their factors, still rotated.
pub(crate) fn dequantized(weight: &Int8Weight) -> Vec<Vec<f64>> {
    let (bytes, k) = (weight.values().to_bytes(), weight.values().cols());
    let value = |scale: f32, byte: u8| f64::from(scale) * (f64::from(byte) - 128.0);
    let scales = weight.scales().to_f32().unwrap();
    let rows = scales.into_iter().enumerate();
    rows.map(|(r, scale)| bytes[r * k..(r + 1) * k].iter().map(|b| value(scale, *b)).collect()).collect()
}

#[test]
fn weights_are_rotated_and_rounded() {
    for device in devices() {
        for stored in [DType::F32, DType::Bf16, DType::F16] {
            for (n, k) in [(1, 1), (3, 2), (5, 12), (2, 16), (3, 48), (2, 96), (4, 192), (33, 384), (3, 1021)]
            {
                let w = Host::random(7, n, k, stored);
                for group in [1, Int8Weight::group_of(k)] {
                    let got = quantized(&device, &w, group);
                    let values = dequantized(&got.weight);
                    let (mut lost, mut all) = (0.0, 0.0);
                    for (r, values) in values.iter().enumerate() {
                        let want = rotated(&w.row(r), group);
                        let (step, numbers, edges) = rounded(&want, STEPS_OFF);
                        for (c, want) in want.iter().enumerate() {
                            let slack = if edges[c] { step } else { 0.0 };
                            let expected = step * numbers[c];
                            let off = (values[c] - expected).abs();
                            let what = format!("{} {stored} {n}x{k}/{group} at {r}, {c}", device.name());
                            assert!(off <= slack + FACTOR * expected.abs(), "{what}: off by {off}");
                            lost += (values[c] - want).powi(2);
                            all += want * want;
                        }
                    }
                    let (want, got) = ((lost / all).sqrt(), got.relative_error);
                    assert!((got - want).abs() <= 1e-3 * want + 1e-6, "{}: {got} for {want}", device.name());
                }
            }
        }
    }
}

/// A product in f64 with the activations rounded as they should be; the magnitude of its terms; what it may be off where
/// f32 rounds an activation the other way.
fn product(x: &Host, weight: &Int8Weight) -> [Vec<f64>; 3] {
    multiplied(x, &dequantized(weight), |row| rotated(row, weight.group()))
}

/// The same with a weight's rows, still rotated, and a rotation.
fn multiplied(x: &Host, rows: &[Vec<f64>], rotated: impl Fn(&[f64]) -> Vec<f64>) -> [Vec<f64>; 3] {
    let mut all: [Vec<f64>; 3] = Default::default();
    for r in 0..x.rows {
        let blocks: Vec<_> = rotated(&x.row(r)).chunks(BLOCK).map(|v| rounded(v, STEPS_OFF)).collect();
        for w in rows {
            let mut at = [0.0; 3];
            for ((step, numbers, edges), w) in blocks.iter().zip(w.chunks(BLOCK)) {
                for ((number, edge), w) in numbers.iter().zip(edges).zip(w) {
                    let term = step * number * w;
                    at[0] += term;
                    at[1] += term.abs();
                    at[2] += if *edge { step * w.abs() } else { 0.0 };
                }
            }
            all.iter_mut().zip(at).for_each(|(all, v)| all.push(v));
        }
    }
    all
}

fn linear_case(device: &Device, [rows, n, k]: [usize; 3], dtype: DType, layout: Layout) -> Vec<u8> {
    let (x, w) = (Host::random(1, rows, k, dtype), Host::random(2, n, k, DType::Bf16));
    let bias = random(3, n);
    let weight = quantized(device, &w, Int8Weight::group_of(k)).weight;
    let [sums, magnitudes, edges] = product(&x, &weight);
    let weight = Weight::Int8(weight);
    let (xt, bt) = (x.tensor(device, layout), vector(device, &bias));
    let mut bytes = Vec::new();
    for (activation, out) in [(Activation::None, DType::F32), (Activation::GeluTanh, dtype)] {
        let want: Vec<f64> = (0..rows * n)
            .map(|i| sums[i] + f64::from(bias[i % n]))
            .map(|v| if activation == Activation::None { v } else { gelu_tanh(v) })
            .collect();
        let result = ops::linear(&xt, &weight, Some(&bt), activation, out).unwrap();
        let what = format!("{} {rows}x{n}x{k} {dtype} {activation:?}", device.name());
        check(&what, &result.to_f32().unwrap(), &want, |i| {
            // Factors, then one sum a block of k and one with the bias.
            let sum = edges[i] + (FACTOR + 16.0 * U) * (magnitudes[i] + 1.0);
            SLOPE * sum + ACTIVATION * want[i].abs() + store(out, want[i])
        });
        if activation == Activation::None {
            bytes = result.to_bytes();
        }
    }
    bytes
}

#[test]
fn linear_matches_its_definition_and_is_the_same_on_every_table() {
    let shapes = [
        [0, 5, 4],
        [1, 1, 1],
        [1, 33, 2],
        [13, 31, 7],
        [14, 32, 64],
        [15, 65, 127],
        [3, 33, 128],
        [29, 16, 514],
        [15, 33, 1021],
        [4, 40, 1024],
        [13, 31, 1152],
        [2, 3, 2100],
        [3, 7, 0],
    ];
    let devices = devices();
    for shape in shapes {
        for dtype in ACTIVATIONS {
            for layout in LAYOUTS {
                let all: Vec<_> = devices.iter().map(|d| linear_case(d, shape, dtype, layout)).collect();
                assert!(all.iter().all(|bytes| *bytes == all[0]), "{shape:?} {dtype}: tables differ");
            }
        }
    }
    // More than one block of rows and columns.
    let all: Vec<_> =
        devices.iter().map(|d| linear_case(d, [601, 70, 1100], DType::Bf16, Layout::Plain)).collect();
    assert!(all.iter().all(|bytes| *bytes == all[0]), "tables differ");
}

#[test]
fn linear_add_adds_to_the_residual_times_a_gate() {
    for device in devices() {
        let (rows, n, k) = (15, 33, 192);
        let (x, w) = (Host::random(1, rows, k, DType::F32), Host::random(2, n, k, DType::F32));
        let residual = Host::random(4, rows, n, DType::F32);
        let table = Host::random(5, 2, n, DType::F32);
        let weight = quantized(&device, &w, 64).weight;
        let [sums, magnitudes, edges] = product(&x, &weight);
        let runs: Arc<[Run]> = [Run { rows: 7, entry: 1 }, Run { rows: rows - 7, entry: 0 }].into();
        let gate = RowTable { table: table.tensor(&device, Layout::Plain), runs };
        let want: Vec<f64> = (0..rows * n)
            .map(|i| f64::from(residual.values[i]) + table.at(usize::from(i / n < 7), i % n) * sums[i])
            .collect();
        let (residual, x) = (residual.tensor(&device, Layout::Plain), x.tensor(&device, Layout::View));
        let got = ops::linear_add(residual, Some(&gate), &x, &Weight::Int8(weight), None).unwrap();
        check(&device.name(), &got.to_f32().unwrap(), &want, |i| {
            edges[i] + (FACTOR + 16.0 * U) * (magnitudes[i] + 1.0)
        });
    }
}

/// A product of activations with bytes that another program rotated and rounded, over `group` inputs each.
fn foreign_case(
    device: &Device,
    [rows, n, k]: [usize; 3],
    [group, scales]: [usize; 2],
    dtype: DType,
) -> Vec<u8> {
    let x = Host::random(1, rows, k, dtype);
    let bytes = noise(3, n * k);
    let scales: Vec<f32> = (0..scales).map(|i| 0.01 + f32::from(u8::try_from(i).unwrap()) / 900.0).collect();
    let of = |r: usize| f64::from(scales[r % scales.len()]);
    let weights: Vec<Vec<f64>> = bytes
        .chunks(k)
        .enumerate()
        .map(|(r, row)| row.iter().map(|byte| of(r) * f64::from(byte.cast_signed())).collect())
        .collect();
    let root = f64::from(u32::try_from(group).unwrap()).sqrt();
    let rotated = |row: &[f64]| -> Vec<f64> {
        let at =
            |i: usize| (0..group).map(move |j| rotation(group, i % group, j) * row[i / group * group + j]);
        (0..k).map(|i| at(i).sum::<f64>() / root).collect()
    };
    let [sums, magnitudes, edges] = multiplied(&x, &weights, rotated);
    let matrix =
        ConvRot::new(tensor(device, DType::I8, n, k, &bytes), vector(device, &scales), group).unwrap();
    let weight = Weight::Int8((&matrix).into());
    let result =
        ops::linear(&x.tensor(device, Layout::View), &weight, None, Activation::None, DType::F32).unwrap();
    let what = format!("{} {rows}x{n}x{k}/{group} {dtype}", device.name());
    check(&what, &result.to_f32().unwrap(), &sums, |i| {
        edges[i] + (FACTOR + 16.0 * U) * (magnitudes[i] + 1.0)
    });
    result.to_bytes()
}

/// The tolerances are those of our own rotation: a value is 8 rounds of sums of at most 256 elements instead of 7 of 128, off by
/// 8 * 127 * sqrt(256) U = 1e-3 steps at most, the 1e-3 that `STEPS_OFF` allows.
#[test]
fn bytes_of_another_program_are_multiplied_as_they_are() {
    let devices = devices();
    for group in ConvRot::GROUPS {
        for (rows, n, k) in [(1, 1, 256), (15, 33, 768), (29, 70, 2304)] {
            for (dtype, scales) in [(DType::F32, 1), (DType::Bf16, n)] {
                let case = |device| foreign_case(device, [rows, n, k], [group, scales], dtype);
                let all: Vec<_> = devices.iter().map(case).collect();
                assert!(all.iter().all(|bytes| *bytes == all[0]), "{group} {n}x{k} {dtype}: tables differ");
            }
        }
    }
    // Rows that are no whole words.
    for device in &devices {
        foreign_case(device, [3, 5, 1027], [1, 5], DType::F32);
    }
}

#[test]
fn convolutions_take_no_bytes_of_another_program() {
    let device = devices().pop().unwrap();
    let values = tensor(&device, DType::I8, 4, 36, &[0; 144]);
    let matrix = ConvRot::new(values, vector(&device, &[1.0]), 4).unwrap();
    let weight = ConvWeight { matrix: Weight::Int8((&matrix).into()), kernel: 3 };
    let x = Tensor::empty(&device, DType::F32, Shape::nhwc(1, 3, 3, 4)).unwrap();
    let window = Window::whole(Padding::all(1));
    let error = ops::conv2d(&x, &weight, &vector(&device, &[0.0; 4]), window, DType::F32).unwrap_err();
    assert!(matches!(error, Error::DType { what: "the weight", got: DType::I8, .. }), "{error:?}");
}

/// Relative error of a product whose activations have one channel a hundred times as large as the others.
fn outlier_error(device: &Device, group: usize) -> f64 {
    let (rows, n, k) = (8, 64, 512);
    let mut x = Host::random(1, rows, k, DType::F32);
    x.values.iter_mut().skip(77).step_by(k).for_each(|v| *v *= 100.0);
    // That channel's weights are small, as those of trained networks are, so that the others count.
    let mut w = Host::random(2, n, k, DType::F32);
    w.values.iter_mut().skip(77).step_by(k).for_each(|v| *v *= 0.01);
    let weight = Weight::Int8(quantized(device, &w, group).weight);
    let got = ops::linear(&x.tensor(device, Layout::Plain), &weight, None, Activation::None, DType::F32);
    let (mut lost, mut all) = (0.0, 0.0);
    for (i, got) in got.unwrap().to_f32().unwrap().into_iter().enumerate() {
        let want: f64 = x.row(i / n).iter().zip(w.row(i % n)).map(|(a, b)| a * b).sum();
        lost += (f64::from(got) - want).powi(2);
        all += want * want;
    }
    f64::sqrt(lost / all)
}

#[test]
fn rotation_saves_what_an_outlier_would_take() {
    let device = devices().pop().unwrap();
    // Plain, the step is 100/127 where the outlier is largest: the other channels, uniform up to 1, keep one bit.
    // Rotated, the outlier is 100/sqrt(128) in its group, and the step a tenth.
    let (rotated, plain) = (outlier_error(&device, 128), outlier_error(&device, 1));
    assert!(rotated < 0.06 && plain > 0.2, "{rotated} with rotation, {plain} without");
}

#[test]
fn a_row_with_a_value_that_is_not_finite_is_not_finite() {
    for device in devices() {
        let weight = Weight::Int8(quantized(&device, &Host::random(2, 5, 256, DType::F32), 128).weight);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = Host::random(1, 3, 256, DType::F32);
            x.values[256 + 200] = bad;
            let x = x.tensor(&device, Layout::Plain);
            let got = ops::linear(&x, &weight, None, Activation::None, DType::F32).unwrap().to_f32().unwrap();
            assert!(got[5..10].iter().all(|v| v.is_nan()), "{} {bad}", device.name());
            assert!(got[..5].iter().chain(&got[10..]).all(|v| v.is_finite()), "{} {bad}", device.name());
        }
    }
}

#[test]
fn rows_of_zeros_give_the_bias() {
    for device in devices() {
        let weight = Weight::Int8(quantized(&device, &Host::random(2, 2, 96, DType::F32), 32).weight);
        let x = make(&device, &[0.0; 96], DType::F32, Shape::matrix(1, 96));
        let bias = vector(&device, &[1.5, -2.0]);
        let got = ops::linear(&x, &weight, Some(&bias), Activation::None, DType::F32).unwrap();
        assert_eq!(got.to_f32().unwrap(), [1.5, -2.0], "{}", device.name());
        let zeros = make(&device, &[0.0; 96], DType::F32, Shape::matrix(1, 96));
        let quantized = ops::quantize_int8(&zeros, 32).unwrap();
        assert_eq!(quantized.relative_error, 0.0);
        assert_eq!(quantized.weight.values().to_bytes(), [Int8Weight::ZERO; 96]);
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let device = devices().pop().unwrap();
    let bytes = |rows, cols| Tensor::empty(&device, DType::U8, Shape::matrix(rows, cols)).unwrap();
    let refused = |values: Tensor, scales: &[f32], group: usize| {
        Int8Weight::new(values, vector(&device, scales), group).unwrap_err()
    };
    assert!(matches!(refused(bytes(2, 64), &[1.0], 64), Error::Shape { what: "scales", .. }));
    for group in [0, 3, 128, 256] {
        assert!(matches!(refused(bytes(1, 64), &[1.0], group), Error::Range { what: "group", .. }));
    }
    let floats = vector(&device, &[1.0]);
    let error = Int8Weight::new(floats.clone(), floats, 1).unwrap_err();
    assert!(matches!(error, Error::DType { what: "values", got: DType::F32, .. }));
    let error = ops::quantize_int8(&bytes(1, 64), 64).unwrap_err();
    assert!(matches!(error, Error::DType { what: "matrix", got: DType::U8, .. }));
}
