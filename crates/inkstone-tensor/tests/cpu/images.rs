//! Operations on pictures.

use inkstone_tensor::ops::{self, Activation, ConvWeight, Padding, PixelNorm, Window};
use inkstone_tensor::{DType, Device, Shape, Tensor, Weight};

use crate::host::{ACTIVATIONS, Host, Layout, channel_norm, devices, make, random, silu, vector};
use crate::taps::{Seen, Sizes};
use crate::tolerance::{ACTIVATION, SLOPE, check, dot, norm, store};

/// The pixels as a convolution sees them, and how far each value may be off: nothing, or what a norm and silu leave.
fn seen(x: &Host, gamma: Option<&[f32]>) -> Vec<[f64; 2]> {
    let pixel = |row: usize| match gamma {
        None => x.row(row).into_iter().map(|v| [v, 0.0]).collect::<Vec<_>>(),
        Some(gamma) => {
            let behind = |v: f64| {
                let off = SLOPE * norm(x.cols, v) + ACTIVATION * silu(v).abs() + store(x.dtype, silu(v));
                [silu(v), off]
            };
            channel_norm(&x.row(row), gamma).into_iter().map(behind).collect()
        }
    };
    (0..x.rows).flat_map(pixel).collect()
}

/// The sums of an output in f64, the magnitudes of their terms, and what the sums are off for their terms' sake.
fn convolved(sizes: &Sizes, x: &[[f64; 2]], w: &Host, bias: &[f32]) -> [Vec<f64>; 3] {
    let c_in = sizes.x[3];
    let mut all = sizes.sums(|Seen { pixel, row, col }| {
        let mut at = [0.0; 3];
        for k in 0..c_in {
            let ([v, off], w) = (x[pixel * c_in + k], w.at(row, col + k));
            at[0] += v * w;
            at[1] += (v * w).abs();
            at[2] += off * w.abs();
        }
        at
    });
    for (i, bias) in (0..all[0].len()).zip(bias.iter().cycle()) {
        all[0][i] += f64::from(*bias);
        all[1][i] += f64::from(*bias).abs();
    }
    all
}

fn conv_case(device: &Device, sizes: &Sizes, dtype: DType, norm: bool) {
    let (c_in, c_out, [rows, k]) = (sizes.x[3], sizes.c_out, sizes.weight());
    let (x, w) = (Host::random(1, sizes.picture().rows(), c_in, dtype), Host::random(2, rows, k, dtype));
    let (bias, gamma) = (random(3, c_out), random(5, c_in));
    let [sums, magnitudes, off] = convolved(sizes, &seen(&x, norm.then_some(&gamma[..])), &w, &bias);
    let allowed = |i: usize, more: f64| dot(k, magnitudes[i] + off[i] + more) + off[i];
    let xt = make(device, &x.values, dtype, sizes.picture());
    let weight = ConvWeight { matrix: Weight::Dense(w.tensor(device, Layout::View)), kernel: sizes.kernel };
    let (bt, gt) = (vector(device, &bias), vector(device, &gamma));
    let norm = norm.then_some(PixelNorm { gamma: &gt, activation: Activation::Silu });
    let what = format!("{} {sizes:?} {dtype}, norm {}", device.name(), norm.is_some());
    let (window, shape) = (sizes.window(), sizes.out());
    let got = ops::conv2d_of(&xt, norm, &weight, &bt, window, DType::F32).unwrap();
    assert_eq!(got.shape(), &shape, "{what}");
    check(&what, &got.to_f32().unwrap(), &sums, |i| allowed(i, 0.0));
    let got = ops::conv2d_of(&xt, norm, &weight, &bt, window, DType::Bf16).unwrap();
    check(&what, &got.to_f32().unwrap(), &sums, |i| allowed(i, 0.0) + store(DType::Bf16, sums[i]));
    if sizes.stride == 1 {
        let residual = Host::random(4, shape.rows(), c_out, dtype);
        let want: Vec<f64> = sums.iter().zip(&residual.values).map(|(s, r)| s + f64::from(*r)).collect();
        let residual = make(device, &residual.values, dtype, shape);
        let got = ops::conv2d_add_of(residual, &xt, norm, &weight, &bt, window).unwrap();
        check(&what, &got.to_f32().unwrap(), &want, |i| allowed(i, 1.0) + store(dtype, want[i]));
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
        Sizes::doubling([1, 1, 1, 1], 1, Padding::all(1)),
        Sizes::doubling([2, 3, 5, 6], 33, Padding::all(1)),
        Sizes::doubling([1, 7, 57, 4], 35, Padding { above: 2, below: 0, left: 1, right: 3 }),
        Sizes::doubling([1, 2, 2, 130], 2, none),
    ];
    for device in devices() {
        for case in &cases {
            for dtype in ACTIVATIONS {
                conv_case(&device, case, dtype, false);
                conv_case(&device, case, dtype, true);
            }
        }
    }
}

/// A norm belongs to its pixel, so a picture in two pieces has the bytes of the whole one.
#[test]
fn lines_above_go_through_the_norm_too() {
    for device in devices() {
        for dtype in ACTIVATIONS {
            let values = random(1, 7 * 9 * 6);
            let picture = |lines: std::ops::Range<usize>| {
                let shape = Shape::nhwc(1, lines.len(), 9, 6);
                make(&device, &values[lines.start * 54..lines.end * 54], dtype, shape)
            };
            let (gamma, bias) = (vector(&device, &random(3, 6)), vector(&device, &random(4, 5)));
            let matrix = Weight::Dense(Host::random(5, 5, 54, dtype).tensor(&device, Layout::Plain));
            let weight = ConvWeight { matrix, kernel: 3 };
            let norm = Some(PixelNorm { gamma: &gamma, activation: Activation::Silu });
            let run = |x: &Tensor, above: Option<&Tensor>| {
                let window = Window { above, ..Window::whole(Padding::all(1)) };
                ops::conv2d_of(x, norm, &weight, &bias, window, dtype).unwrap().to_bytes()
            };
            let whole = run(&picture(0..7), None);
            let pieces = run(&picture(3..7), Some(&picture(0..3)));
            assert!(pieces == whole, "{} {dtype}", device.name());
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
                        plain.extend(channel_norm(&x.row(r), &gamma));
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

/// A kernel `[c_out, 3, 3, c]` as the four that double: which of its taps see the same pixel is written out.
fn doubling(kernel: &Host, c: usize) -> Host {
    const FIRST: [&[usize]; 2] = [&[0, 1], &[2]];
    const SECOND: [&[usize]; 2] = [&[0], &[1, 2]];
    let mut values = Vec::new();
    for (lines, columns) in [(FIRST, FIRST), (FIRST, SECOND), (SECOND, FIRST), (SECOND, SECOND)] {
        for out in 0..kernel.rows {
            for (ys, xs) in lines.iter().flat_map(|ys| columns.iter().map(move |xs| (ys, xs))) {
                let at = |k: usize, y: usize, x: usize| kernel.values[out * 9 * c + (3 * y + x) * c + k];
                let sum =
                    |k: usize| ys.iter().flat_map(|y| xs.iter().map(move |x| at(k, *y, *x))).sum::<f32>();
                values.extend((0..c).map(sum));
            }
        }
    }
    Host::new(4 * kernel.rows, 4 * c, kernel.dtype, &values)
}

/// With whole numbers all sums are exact, so that their order and number do not matter.
#[test]
fn a_kernel_that_doubles_gives_the_bytes_of_one_over_a_doubled_picture() {
    let whole = |host: Host| {
        let values: Vec<f32> = host.values.iter().map(|v| (v * 8.0).round()).collect();
        Host::new(host.rows, host.cols, host.dtype, &values)
    };
    for device in devices() {
        for dtype in ACTIVATIONS {
            for [n, h, w, c] in [[1, 1, 1, 4], [2, 5, 3, 6], [1, 9, 60, 96]] {
                let x = whole(Host::random(1, n * h * w, c, dtype));
                let large = doubled(&x, [n, h, w, c]);
                let small = make(&device, &x.values, dtype, Shape::nhwc(n, h, w, c));
                let large = make(&device, &large.values, dtype, Shape::nhwc(n, 2 * h, 2 * w, c));
                let bias = vector(&device, &whole(Host::random(3, 1, 35, DType::F32)).values);
                let kernel = whole(Host::random(2, 35, 9 * c, dtype));
                let run = |x: &Tensor, kernel: &Host, side: usize| {
                    let matrix = Weight::Dense(kernel.tensor(&device, Layout::Plain));
                    let weight = ConvWeight { matrix, kernel: side };
                    ops::conv2d(x, &weight, &bias, Window::whole(Padding::all(1)), dtype).unwrap().to_bytes()
                };
                let (got, want) = (run(&small, &doubling(&kernel, c), 2), run(&large, &kernel, 3));
                assert!(got == want, "{} {dtype} {h}x{w}", device.name());
            }
        }
    }
}
