//! Operations on pictures.

use inkstone_tensor::ops::{self, Activation, ConvWeight, Padding, PixelNorm, Window};
use inkstone_tensor::{DType, Device, Int8Weight, Shape, Tensor, Weight};

use crate::host::{ACTIVATIONS, Host, Layout, devices, make, random, silu, vector};
use crate::taps::Sizes;
use crate::tolerance::{ACTIVATION, SLOPE, check, dot, norm, store};

/// The sums of an output in f64, and the magnitudes of their terms.
fn convolved(sizes: &Sizes, x: &Host, w: &Host, bias: &[f32]) -> [Vec<f64>; 2] {
    let c_in = sizes.x[3];
    let mut all = sizes.sums(|pixel, tap, c| {
        let terms = (0..c_in).map(|k| x.at(pixel, k) * w.at(c, tap * c_in + k));
        terms.fold([0.0; 2], |[sum, magnitude], term| [sum + term, magnitude + term.abs()])
    });
    for (i, bias) in (0..all[0].len()).zip(bias.iter().cycle()) {
        all[0][i] += f64::from(*bias);
        all[1][i] += f64::from(*bias).abs();
    }
    all
}

fn conv_case(device: &Device, sizes: &Sizes, dtype: DType) {
    let (c_in, c_out, k) = (sizes.x[3], sizes.c_out, sizes.k());
    let (x, w) = (Host::random(1, sizes.picture().rows(), c_in, dtype), Host::random(2, c_out, k, dtype));
    let bias = random(3, c_out);
    let [sums, magnitudes] = convolved(sizes, &x, &w, &bias);
    let xt = make(device, &x.values, dtype, sizes.picture());
    let weight = ConvWeight { matrix: Weight::Dense(w.tensor(device, Layout::View)), kernel: sizes.kernel };
    let bt = vector(device, &bias);
    let what = format!("{} {sizes:?} {dtype}", device.name());
    let (window, shape) = (sizes.window(), sizes.out());
    let got = ops::conv2d(&xt, &weight, &bt, window, DType::F32).unwrap();
    assert_eq!(got.shape(), &shape, "{what}");
    check(&what, &got.to_f32().unwrap(), &sums, |i| dot(k, magnitudes[i]));
    let got = ops::conv2d(&xt, &weight, &bt, window, DType::Bf16).unwrap();
    check(&what, &got.to_f32().unwrap(), &sums, |i| dot(k, magnitudes[i]) + store(DType::Bf16, sums[i]));
    if sizes.stride == 1 {
        let residual = Host::random(4, shape.rows(), c_out, dtype);
        let want: Vec<f64> = sums.iter().zip(&residual.values).map(|(s, r)| s + f64::from(*r)).collect();
        let got =
            ops::conv2d_add(make(device, &residual.values, dtype, shape), &xt, &weight, &bt, window).unwrap();
        check(&what, &got.to_f32().unwrap(), &want, |i| dot(k, magnitudes[i] + 1.0) + store(dtype, want[i]));
    }
}

#[test]
fn conv2d_matches_its_definition() {
    let none = Padding::all(0);
    let cases = [
        Sizes::new([1, 1, 1, 1], 1, 1, none),
        Sizes::new([2, 3, 5, 3], 4, 1, none),
        Sizes::new([1, 4, 5, 7], 33, 1, none).halving(),
        Sizes::new([1, 1, 1, 3], 2, 3, Padding::all(1)),
        Sizes::new([2, 5, 7, 3], 96, 3, Padding::all(1)),
        Sizes::new([1, 9, 15, 16], 3, 3, Padding::all(1)),
        Sizes::new([1, 6, 7, 5], 31, 3, Padding::behind(1)).halving(),
        Sizes::new([2, 8, 29, 8], 32, 3, Padding::behind(1)).halving(),
        Sizes::new([1, 13, 113, 4], 17, 3, Padding { above: 1, below: 0, left: 2, right: 0 }),
        Sizes::new([1, 5, 11, 4], 17, 3, Padding { above: 0, below: 1, left: 1, right: 3 }).halving(),
        Sizes::new([1, 3, 3, 130], 65, 3, none),
        Sizes::new([1, 1, 1, 1], 1, 3, Padding::all(1)).doubling(),
        Sizes::new([2, 3, 5, 6], 33, 3, Padding::all(1)).doubling(),
        Sizes::new([1, 7, 57, 4], 35, 3, Padding { above: 2, below: 0, left: 1, right: 3 }).doubling(),
        Sizes::new([1, 2, 3, 5], 4, 1, none).doubling(),
        Sizes::new([1, 2, 2, 130], 2, 3, none).doubling(),
    ];
    for device in devices() {
        for case in &cases {
            for dtype in ACTIVATIONS {
                conv_case(&device, case, dtype);
            }
        }
    }
}

#[test]
fn channel_norm_matches_its_definition() {
    for device in devices() {
        for c in [1, 3, 15, 16, 17, 96, 127] {
            for (dtype, out) in
                [(DType::F32, DType::F32), (DType::Bf16, DType::F32), (DType::Bf16, DType::Bf16)]
            {
                let mut x = Host::random(c as u64, 6, c, dtype);
                x.values[..c].fill(0.0); // a pixel of zeros stays one
                let gamma = random(7, c);
                let shape = Shape::nhwc(1, 2, 3, c);
                let xt = make(&device, &x.values, dtype, shape);
                for activation in [Activation::None, Activation::Silu] {
                    let mut plain = Vec::new();
                    for r in 0..6 {
                        let row = x.row(r);
                        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
                        let root = f64::from(u32::try_from(c).unwrap()).sqrt();
                        plain.extend((0..c).map(|i| row[i] / length * root * f64::from(gamma[i])));
                    }
                    let want: Vec<f64> = plain
                        .iter()
                        .map(|v| if activation == Activation::Silu { silu(*v) } else { *v })
                        .collect();
                    let got = ops::channel_norm(&xt, &vector(&device, &gamma), activation, out).unwrap();
                    check(
                        &format!("{} {c} {dtype} {activation:?}", device.name()),
                        &got.to_f32().unwrap(),
                        &want,
                        |i| SLOPE * norm(c, plain[i]) + ACTIVATION * want[i].abs() + store(out, want[i]),
                    );
                }
            }
        }
    }
}

/// Every pixel of `x`, of this shape, twice in both directions.
fn doubled(x: &Host, [n, h, w, c]: [usize; 4]) -> Host {
    let rows = (0..n * 2 * h * 2 * w).map(|p| (p / (2 * w) / 2) * w + p % (2 * w) / 2);
    let values: Vec<f32> = rows.flat_map(|row| x.values[row * c..(row + 1) * c].to_vec()).collect();
    Host::new(4 * x.rows, c, x.dtype, &values)
}

#[test]
fn a_doubled_picture_that_is_never_made_gives_the_same_bytes() {
    for device in devices() {
        for dtype in ACTIVATIONS {
            for [n, h, w, c] in [[1, 1, 1, 4], [2, 5, 3, 6], [1, 9, 60, 96]] {
                let x = Host::random(1, n * h * w, c, dtype);
                let large = doubled(&x, [n, h, w, c]);
                let small = make(&device, &x.values, dtype, Shape::nhwc(n, h, w, c));
                let large = make(&device, &large.values, dtype, Shape::nhwc(n, 2 * h, 2 * w, c));
                let (bias, gamma) = (vector(&device, &random(3, 35)), vector(&device, &random(4, c)));
                let norm = PixelNorm { gamma: &gamma, activation: Activation::Silu };
                let matrix = Host::random(2, 35, 9 * c, dtype).tensor(&device, Layout::Plain);
                let bytes = ops::quantize_int8(&matrix, Int8Weight::group_of(c)).unwrap().weight;
                for matrix in [Weight::Dense(matrix), Weight::Int8(bytes)] {
                    let weight = ConvWeight { matrix, kernel: 3 };
                    let run = |x: &Tensor, zoom: usize| {
                        let window = Window { zoom, ..Window::whole(Padding::all(1)) };
                        ops::conv2d_of(x, Some(norm), &weight, &bias, window, dtype).unwrap().to_bytes()
                    };
                    assert!(run(&small, 2) == run(&large, 1), "{} {dtype} {h}x{w}", device.name());
                }
            }
        }
    }
}
