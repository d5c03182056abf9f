//! Norms and rotations.

use std::sync::Arc;

use inkstone_tensor::DType;
use inkstone_tensor::ops::{self, Rope, RopeLayout, RowTable, Run};

use crate::host::{ACTIVATIONS, Host, LAYOUTS, Layout, devices, random, vector};
use crate::tolerance::{check, count, norm, store};

const COLS: [usize; 9] = [1, 7, 8, 9, 15, 16, 17, 127, 1031];

#[test]
fn layer_norm_matches_its_definition() {
    // The second pair has the residuals of a deep block: large, on a larger mean.
    for (spread, mean) in [(1.0f32, 0.25f32), (5e7, 2e8)] {
        for device in devices() {
            for cols in COLS {
                for dtype in ACTIVATIONS {
                    let values: Vec<f32> = random(1, 3 * cols).iter().map(|v| v * spread + mean).collect();
                    let x = Host::new(3, cols, dtype, &values);
                    let (scale, shift) =
                        (Host::random(2, 2, cols, DType::F32), Host::random(3, 1, cols, DType::F32));
                    let runs: Arc<[Run]> = [Run { rows: 1, entry: 1 }, Run { rows: 2, entry: 0 }].into();
                    let scales = RowTable { table: scale.tensor(&device, Layout::View), runs };
                    let shifts = RowTable {
                        table: shift.tensor(&device, Layout::View),
                        runs: [Run { rows: 3, entry: 0 }].into(),
                    };
                    let (mut want, mut allowed) = (Vec::new(), Vec::new());
                    for r in 0..3 {
                        let row = x.row(r);
                        let mean = row.iter().sum::<f64>() / count(cols);
                        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count(cols);
                        let deviation = (variance + 1e-6).sqrt();
                        // The mean is off by the rounding of its sum, and so is every difference from it.
                        let mean_error =
                            norm(cols, row.iter().map(|v| v.abs()).fold(0.0, f64::max)) / deviation;
                        for (c, v) in row.iter().enumerate() {
                            let normal = (v - mean) / deviation;
                            let factor = 1.0 + scale.at(usize::from(r == 0), c);
                            want.push(normal * factor + shift.at(0, c));
                            allowed.push(
                                norm(cols, normal.abs() * factor + 2.0)
                                    + mean_error * (factor + normal.abs() * 2.0),
                            );
                        }
                    }
                    for (layout, out) in [(LAYOUTS[0], DType::F32), (LAYOUTS[1], DType::Bf16)] {
                        let got =
                            ops::layer_norm(&x.tensor(&device, layout), 1e-6, &scales, &shifts, out).unwrap();
                        let what = format!("layer_norm {} {cols} {dtype} {spread}", device.name());
                        check(&what, &got.to_f32().unwrap(), &want, |i| allowed[i] + store(out, want[i]));
                    }
                }
            }
        }
    }
}

#[test]
fn layer_norm_keeps_small_differences_on_a_large_mean() {
    // Values 1e4 + {-1, 1}: exact in f32; E[x^2] - E[x]^2 would lose all of the variance.
    for device in devices() {
        let values: Vec<f32> = (0..64).map(|i| if i % 2 == 0 { 9_999.0 } else { 10_001.0 }).collect();
        let x = Host::new(1, 64, DType::F32, &values).tensor(&device, Layout::Plain);
        let zero = RowTable { table: vector(&device, &[0.0; 64]), runs: [Run { rows: 1, entry: 0 }].into() };
        let got = ops::layer_norm(&x, 0.0, &zero, &zero, DType::F32).unwrap().to_f32().unwrap();
        let want: Vec<f64> = (0..64).map(|i| if i % 2 == 0 { -1.0 } else { 1.0 }).collect();
        check(&device.name(), &got, &want, |_| 1e-6);
    }
}

#[test]
fn rms_norm_matches_its_definition() {
    for device in devices() {
        for cols in COLS {
            for dtype in ACTIVATIONS {
                let x = Host::random(1, 5, cols, dtype);
                let weight = random(2, cols);
                let mut want = Vec::new();
                for r in 0..5 {
                    let row = x.row(r);
                    let root = (row.iter().map(|v| v * v).sum::<f64>() / count(cols) + 1e-6).sqrt();
                    want.extend((0..cols).map(|c| row[c] / root * f64::from(weight[c])));
                }
                for (layout, out) in [(LAYOUTS[0], DType::F32), (LAYOUTS[1], DType::Bf16)] {
                    let (xt, wt) = (x.tensor(&device, layout), vector(&device, &weight));
                    let got = ops::rms_norm(&xt, &wt, 1e-6, out).unwrap().to_f32().unwrap();
                    let what = format!("rms_norm {} {cols} {dtype}", device.name());
                    check(&what, &got, &want, |i| norm(cols, want[i]) + store(out, want[i]));
                }
            }
        }
    }
}

#[test]
fn rope_norm_matches_its_definition() {
    for device in devices() {
        for half in [1, 3, 4, 8, 9, 16, 17, 64] {
            for layout in [RopeLayout::Interleaved, RopeLayout::Halves] {
                for dtype in ACTIVATIONS {
                    // The second number is more than find their factors side by side.
                    rope_case(&device, 3, half, layout, dtype);
                    rope_case(&device, 33, half, layout, dtype);
                }
            }
        }
    }
}

fn rope_case(device: &inkstone_tensor::Device, heads: usize, half: usize, layout: RopeLayout, dtype: DType) {
    let dim = 2 * half;
    // Four rows over a table of two: a batch shares it.
    let x = Host::random(1, 4, heads * dim, dtype);
    let weight = random(2, dim);
    let (cos, sin) = (Host::random(3, 2, half, DType::F32), Host::random(4, 2, half, DType::F32));
    let rope = Rope { cos: cos.tensor(device, Layout::View), sin: sin.tensor(device, Layout::Plain), layout };
    for normed in [true, false] {
        let (mut want, mut allowed) = (vec![0.0; 4 * heads * dim], vec![0.0; 4 * heads * dim]);
        for (r, head, pair) in (0..4 * heads * half).map(|e| (e / half / heads, e / half % heads, e % half)) {
            let row = &x.row(r)[head * dim..(head + 1) * dim];
            let root = (row.iter().map(|v| v * v).sum::<f64>() / count(dim) + 1e-6).sqrt();
            let at = |i: usize| if normed { row[i] / root * f64::from(weight[i]) } else { row[i] };
            let (i, j) = match layout {
                RopeLayout::Interleaved => (2 * pair, 2 * pair + 1),
                RopeLayout::Halves => (pair, pair + half),
            };
            let (a, b, c, s) = (at(i), at(j), cos.at(r % 2, pair), sin.at(r % 2, pair));
            let base = (r * heads + head) * dim;
            want[base + i] = a * c - b * s;
            want[base + j] = a * s + b * c;
            allowed[base + i] = norm(dim, (a * c).abs() + (b * s).abs());
            allowed[base + j] = norm(dim, (a * s).abs() + (b * c).abs());
        }
        let wt = vector(device, &weight);
        for (at, out) in [(LAYOUTS[0], DType::F32), (LAYOUTS[1], DType::Bf16)] {
            let got =
                ops::rope_norm(&x.tensor(device, at), normed.then_some((&wt, 1e-6)), &rope, out).unwrap();
            let what =
                format!("rope_norm {} {heads} of {dim} {layout:?} {dtype} normed {normed}", device.name());
            check(&what, &got.to_f32().unwrap(), &want, |i| allowed[i] + store(out, want[i]));
        }
    }
}
