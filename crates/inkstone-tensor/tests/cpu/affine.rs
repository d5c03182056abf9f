//! Quantizing to packed codes with scales and biases: what is left as error, measured from the decoded values, against
//! a plain rounding of the whole range in f64.

use inkstone_tensor::ops::{self, FittedMatrix};
use inkstone_tensor::{AffineBits, DType, Device, Error, Quantized, Weight, bf16};

use crate::host::{Host, LAYOUTS, Layout, device, devices, random};

const GROUP: usize = 64;
const BITS: [u8; 5] = [3, 4, 5, 6, 8];

fn bits(n: u8) -> AffineBits {
    AffineBits::new(n).unwrap()
}

/// Nearly normal values: sums of twelve uniform ones.
fn normal(seed: u64, n: usize) -> Vec<f32> {
    random(seed, 12 * n).chunks_exact(12).map(|twelve| twelve.iter().sum::<f32>() / 2.0).collect()
}

/// Student's t with 3 degrees of freedom: a normal value over the root of the mean square of three others. Its fourth
/// moment is infinite.
fn heavy_tailed(seed: u64, n: usize) -> Vec<f32> {
    let four = normal(seed, 4 * n);
    let value = |v: &[f32]| v[0] / (v[1..].iter().map(|w| w * w).sum::<f32>() / 3.0).sqrt().max(1e-3);
    four.chunks_exact(4).map(value).collect()
}

fn fitted(device: &Device, host: &Host, n_bits: u8, layout: Layout) -> FittedMatrix {
    ops::quantize_affine(&host.tensor(device, layout), bits(n_bits)).unwrap()
}

/// The values that a matrix stands for.
fn decoded(fitted: &FittedMatrix) -> Vec<f32> {
    let weight = Weight::from(Quantized::Affine(fitted.matrix.clone()));
    let ids: Vec<u32> = (0..u32::try_from(weight.n_out()).unwrap()).collect();
    ops::embedding(&weight, &ids, DType::F32).unwrap().to_f32().unwrap()
}

/// Root of the mean square of the difference, relative to that of the values.
fn relative_error(got: &[f32], host: &Host) -> f64 {
    let square = |v: f64| v * v;
    let pairs = got.iter().zip(&host.values);
    let error: f64 = pairs.map(|(g, v)| square(f64::from(*g) - f64::from(*v))).sum();
    (error / host.values.iter().map(|v| square(f64::from(*v))).sum::<f64>()).sqrt()
}

/// A group rounded to the codes between its smallest and largest value, scale and bias as bf16.
fn by_range(group: &[f32], top: f64) -> Vec<f32> {
    let stored = |v: f64| f64::from(bf16::from_f64(v).to_f32());
    let low = group.iter().copied().fold(f32::INFINITY, f32::min);
    let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (scale, bias) = (stored((f64::from(high) - f64::from(low)) / top), stored(f64::from(low)));
    let code =
        |v: f32| if scale > 0.0 { ((f64::from(v) - bias) / scale).round().clamp(0.0, top) } else { 0.0 };
    #[allow(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
    group.iter().map(|v| (scale * code(*v) + bias) as f32).collect()
}

#[test]
fn a_scale_chosen_by_error_beats_one_chosen_by_range() {
    let device = device(None, 2);
    // What least squares over a much finer grid of ranges reaches in f64, of the range's error: 0.85, 0.90, 0.92 and 0.92.
    // For 8 bits only the rounding of scale and bias to bf16 can be made up for. What a code of so many bits loses by
    // range in values of such tails is the last figure (0.28, 0.13, 0.064, 0.031, 0.008), so nothing is given up.
    for (n_bits, at_most, lost) in
        [(3, 0.87, 0.28), (4, 0.92, 0.14), (5, 0.94, 0.065), (6, 0.96, 0.032), (8, 1.0, 0.009)]
    {
        let top = 2f64.powi(i32::from(n_bits)) - 1.0;
        for (name, values) in [("normal", normal(1, 64 * 512)), ("heavy-tailed", heavy_tailed(2, 64 * 512))] {
            let host = Host::new(64, 512, DType::Bf16, &values);
            let got = relative_error(&decoded(&fitted(&device, &host, n_bits, Layout::Plain)), &host);
            let range: Vec<f32> = host.values.chunks(GROUP).flat_map(|group| by_range(group, top)).collect();
            let range = relative_error(&range, &host);
            let what = format!("{n_bits} bits, {name}: {got:.5} by error, {range:.5} by range");
            assert!(got <= at_most * range, "{what}");
            assert!(got > 0.0 && got < lost, "{what}");
        }
    }
}

#[test]
fn no_group_is_worse_than_by_range() {
    let device = device(None, 1);
    for (n_bits, top) in BITS.map(|n| (n, 2f64.powi(n.into()) - 1.0)) {
        let mut values = heavy_tailed(3, 16 * GROUP);
        values[5] = 1000.0; // alone in its group, far from all others
        values[GROUP..2 * GROUP].fill(0.25);
        values[2 * GROUP..3 * GROUP].fill(0.0);
        values[3 * GROUP] = -1e-30;
        values[4 * GROUP..5 * GROUP].iter_mut().for_each(|v| *v *= 1e20);
        let host = Host::new(16, GROUP, DType::F32, &values);
        let got = decoded(&fitted(&device, &host, n_bits, Layout::Plain));
        for (g, (group, got)) in values.chunks(GROUP).zip(got.chunks(GROUP)).enumerate() {
            let square = |to: &[f32]| -> f64 {
                group.iter().zip(to).map(|(v, t)| (f64::from(*v) - f64::from(*t)).powi(2)).sum()
            };
            // Sums of 64 squares in f32 decide, so near ties may go the other way: 64 roundings of 2^-24.
            let (got, range) = (square(got), square(&by_range(group, top)));
            assert!(got <= range * (1.0 + 64.0 * 2f64.powi(-24)), "{n_bits} bits, group {g}: {got} {range}");
        }
    }
}

#[test]
fn all_tables_layouts_and_thread_counts_give_the_same_bytes() {
    for (rows, groups) in [(1, 1), (3, 2), (17, 5)] {
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            let host = Host::new(rows, groups * GROUP, dtype, &heavy_tailed(4, rows * groups * GROUP));
            for n_bits in BITS {
                let bytes = |device: &Device, layout| -> Vec<Vec<u8>> {
                    let matrix = Quantized::Affine(fitted(device, &host, n_bits, layout).matrix);
                    matrix.tensors().iter().map(|t| t.to_bytes()).collect()
                };
                let want = bytes(&device(Some("scalar".into()), 1), Layout::Plain);
                for device in devices() {
                    for layout in LAYOUTS {
                        let what = format!("{} {dtype} {rows}x{groups} {n_bits} bits", device.name());
                        assert!(bytes(&device, layout) == want, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_error_that_is_told_is_the_one_that_is_left() {
    for device in devices() {
        for n_bits in BITS {
            let host = Host::new(5, 3 * GROUP, DType::F32, &normal(5, 15 * GROUP));
            let fitted = fitted(&device, &host, n_bits, Layout::View);
            let left = relative_error(&decoded(&fitted), &host);
            // Roots of rows are told in f32; the decoder rounds once.
            let difference = (fitted.relative_error - left).abs();
            assert!(difference <= left * 1e-4, "{n_bits} bits: {} told, {left} left", fitted.relative_error);
        }
    }
}

#[test]
fn values_that_are_not_finite_give_an_error_that_is_not_and_large_ones_do_not() {
    let device = device(None, 1);
    for (bad, finite) in [(f32::NAN, false), (f32::INFINITY, false), (f32::MIN, true), (3e38, true)] {
        let mut values = normal(6, 2 * GROUP);
        values[70] = bad;
        let host = Host::new(1, 2 * GROUP, DType::F32, &values);
        for n_bits in BITS {
            let error = fitted(&device, &host, n_bits, Layout::Plain).relative_error;
            assert_eq!(error.is_finite(), finite, "{bad}: {error}");
        }
    }
}

#[test]
fn what_cannot_be_quantized_is_refused() {
    let device = device(None, 1);
    let matrix = |cols| Host::random(1, 2, cols, DType::F32).tensor(&device, Layout::Plain);
    assert!(matches!(ops::quantize_affine(&matrix(96), bits(4)), Err(Error::Shape { .. })));
    let fitted = ops::quantize_affine(&matrix(64), bits(4)).unwrap();
    let packed = Quantized::Affine(fitted.matrix).tensors()[0].clone();
    assert!(matches!(ops::quantize_affine(&packed, bits(4)), Err(Error::DType { .. })));
    let none = Host::random(1, 0, 64, DType::F32).tensor(&device, Layout::Plain);
    assert_eq!(ops::quantize_affine(&none, bits(8)).unwrap().relative_error, 0.0);
}
