//! Operations on pictures.

use inkstone_tensor::ops::{self, Activation, ConvWeight, Padding, Window};
use inkstone_tensor::{DType, Device, Shape, Weight};

use crate::host::{ACTIVATIONS, Host, Layout, devices, make, random, silu, vector};
use crate::tolerance::{ACTIVATION, SLOPE, check, dot, norm, store};

struct Case {
    size: [usize; 4],
    c_out: usize,
    kernel: usize,
    stride: usize,
    padding: Padding,
}

/// The output's side lengths, its values before anything is added, and the magnitude of their terms.
fn convolved(case: &Case, x: &Host, w: &Host, bias: &[f32]) -> (Shape, Vec<f64>, Vec<f64>) {
    let Case { size: [n, h, width, c_in], c_out, kernel, stride, padding } = *case;
    let side = |padded: usize| (padded - kernel) / stride + 1;
    let h_out = side(h + padding.above + padding.below);
    let w_out = side(width + padding.left + padding.right);
    let (mut sums, mut magnitudes) = (Vec::new(), Vec::new());
    for (i, y, x_out, c) in (0..n * h_out * w_out * c_out)
        .map(|e| (e / c_out / w_out / h_out, e / c_out / w_out % h_out, e / c_out % w_out, e % c_out))
    {
        let (mut sum, mut magnitude) = (f64::from(bias[c]), f64::from(bias[c]).abs());
        for tap in 0..kernel * kernel {
            let (sy, sx) = (y * stride + tap / kernel, x_out * stride + tap % kernel);
            let (Some(sy), Some(sx)) = (sy.checked_sub(padding.above), sx.checked_sub(padding.left)) else {
                continue;
            };
            if sy >= h || sx >= width {
                continue;
            }
            for k in 0..c_in {
                let term = x.at((i * h + sy) * width + sx, k) * w.at(c, tap * c_in + k);
                sum += term;
                magnitude += term.abs();
            }
        }
        sums.push(sum);
        magnitudes.push(magnitude);
    }
    (Shape::nhwc(n, h_out, w_out, c_out), sums, magnitudes)
}

fn conv_case(device: &Device, case: &Case, dtype: DType) {
    let Case { size: [n, h, width, c_in], c_out, kernel, stride, padding } = *case;
    let k = kernel * kernel * c_in;
    let (x, w) = (Host::random(1, n * h * width, c_in, dtype), Host::random(2, c_out, k, dtype));
    let bias = random(3, c_out);
    let (shape, sums, magnitudes) = convolved(case, &x, &w, &bias);
    let xt = make(device, &x.values, dtype, Shape::nhwc(n, h, width, c_in));
    let weight = ConvWeight { matrix: Weight::Dense(w.tensor(device, Layout::View)), kernel };
    let bt = vector(device, &bias);
    let what = format!(
        "{} {:?} -> {c_out}, kernel {kernel}, stride {stride}, {padding:?}, {dtype}",
        device.name(),
        case.size
    );
    let window = Window { above: None, stride, padding };
    let got = ops::conv2d(&xt, &weight, &bt, window, DType::F32).unwrap();
    assert_eq!(got.shape(), &shape, "{what}");
    check(&what, &got.to_f32().unwrap(), &sums, |i| dot(k, magnitudes[i]));
    let got = ops::conv2d(&xt, &weight, &bt, window, DType::Bf16).unwrap();
    check(&what, &got.to_f32().unwrap(), &sums, |i| dot(k, magnitudes[i]) + store(DType::Bf16, sums[i]));
    if stride == 1 {
        let residual = Host::random(4, shape.rows(), c_out, dtype);
        let want: Vec<f64> = sums.iter().zip(&residual.values).map(|(s, r)| s + f64::from(*r)).collect();
        let got =
            ops::conv2d_add(make(device, &residual.values, dtype, shape), &xt, &weight, &bt, window).unwrap();
        check(&what, &got.to_f32().unwrap(), &want, |i| dot(k, magnitudes[i] + 1.0) + store(dtype, want[i]));
    }
}

#[test]
fn conv2d_matches_its_definition() {
    let case = |size, c_out, kernel, stride, padding| Case { size, c_out, kernel, stride, padding };
    let none = Padding::all(0);
    let cases = [
        case([1, 1, 1, 1], 1, 1, 1, none),
        case([2, 3, 5, 3], 4, 1, 1, none),
        case([1, 4, 5, 7], 33, 1, 2, none),
        case([1, 1, 1, 3], 2, 3, 1, Padding::all(1)),
        case([2, 5, 7, 3], 96, 3, 1, Padding::all(1)),
        case([1, 9, 15, 16], 3, 3, 1, Padding::all(1)),
        case([1, 6, 7, 5], 31, 3, 2, Padding::behind(1)),
        case([2, 8, 29, 8], 32, 3, 2, Padding::behind(1)),
        case([1, 13, 113, 4], 17, 3, 1, Padding { above: 1, below: 0, left: 2, right: 0 }),
        case([1, 5, 11, 4], 17, 3, 2, Padding { above: 0, below: 1, left: 1, right: 3 }),
        case([1, 3, 3, 130], 65, 3, 1, none),
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

#[test]
fn upsample_repeats_every_pixel() {
    for device in devices() {
        for dtype in ACTIVATIONS {
            let x = Host::random(1, 2 * 2 * 3, 5, dtype);
            let xt = make(&device, &x.values, dtype, Shape::nhwc(2, 2, 3, 5));
            let got = ops::upsample_nearest(&xt).unwrap();
            assert_eq!(got.shape(), &Shape::nhwc(2, 4, 6, 5));
            let got = got.to_f32().unwrap();
            for (e, v) in got.iter().enumerate() {
                let (image, y, column, c) = (e / 120, e / 30 % 4, e / 5 % 6, e % 5);
                assert_eq!(*v, x.values[((image * 2 + y / 2) * 3 + column / 2) * 5 + c], "{}", device.name());
            }
        }
    }
}
