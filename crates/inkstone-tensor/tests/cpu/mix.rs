//! Sums of groups of columns.

use inkstone_tensor::{DType, Device, ops};

use crate::host::{ACTIVATIONS, Host, LAYOUTS, Layout, devices};
use crate::tolerance::{check, dot, store};

/// Rows, groups, sums and columns of a group.
type Sizes = [usize; 4];

fn mix_case(device: &Device, [rows, groups, sums, width]: Sizes, types: [DType; 3], layout: Layout) {
    const FACTOR: f32 = -0.375;
    let [dtype, stored, out] = types;
    let weight = Host::random(2, sums, groups, stored);
    let beside = Host::random(1, rows, groups * width, dtype);
    let below = Host { rows: rows * groups, cols: width, ..beside.clone() };
    let (mut want, mut magnitudes) = (Vec::new(), Vec::new());
    for at in 0..rows * sums * width {
        let (r, i, c) = (at / width / sums, at / width % sums, at % width);
        let parts = (0..groups).map(|g| weight.at(i, g) * beside.at(r, g * width + c) * f64::from(FACTOR));
        want.push(parts.clone().sum());
        magnitudes.push(parts.map(f64::abs).sum::<f64>());
    }
    let weight = weight.tensor(device, layout);
    for x in [beside, below] {
        let got = ops::mix(&x.tensor(device, layout), width, &weight, FACTOR, out).unwrap();
        assert_eq!((got.rows(), got.cols()), (rows * sums, width));
        let what = format!("{} {:?} {types:?} of {}", device.name(), [rows, groups, sums, width], x.rows);
        check(&what, &got.to_f32().unwrap(), &want, |i| dot(groups + 1, magnitudes[i]) + store(out, want[i]));
    }
}

#[test]
fn mix_matches_its_definition() {
    use DType::{Bf16, F16, F32};
    let sizes = [
        [0, 2, 2, 4],
        [1, 1, 1, 1],
        [3, 2, 0, 5],
        [2, 5, 3, 7],
        [5, 3, 8, 16],
        [4, 8, 8, 17],
        [3, 2, 3, 63],
        [2, 4, 1, 64],
        [2, 3, 2, 65],
        [1, 7, 9, 384],
        [37, 16, 12, 90],
    ];
    for device in devices() {
        for (sizes, layout) in sizes.iter().flat_map(|sizes| LAYOUTS.map(|layout| (*sizes, layout))) {
            for (dtype, out) in ACTIVATIONS.into_iter().flat_map(|dtype| ACTIVATIONS.map(|out| (dtype, out)))
            {
                for stored in [F32, Bf16, F16] {
                    mix_case(&device, sizes, [dtype, stored, out], layout);
                }
            }
        }
    }
}

#[test]
fn groups_that_do_not_fit_are_refused() {
    let device = &devices()[0];
    let tensor = |rows, cols| Host::random(1, rows, cols, DType::F32).tensor(device, Layout::Plain);
    let weight = tensor(2, 3);
    for (x, width) in [
        (tensor(4, 12), 5),
        (tensor(4, 12), 12),
        (tensor(4, 4), 4),
        (tensor(3, 12), 0),
        (tensor(4, 12), usize::MAX),
    ] {
        assert!(ops::mix(&x, width, &weight, 1.0, DType::F32).is_err(), "{} {width}", x.shape());
    }
    assert!(ops::mix(&tensor(4, 4), 4, &tensor(2, 0), 1.0, DType::F32).is_err(), "no groups");
    assert!(ops::mix(&tensor(4, 12), 4, &weight, 1.0, DType::F16).is_err(), "no type of activations");
}
