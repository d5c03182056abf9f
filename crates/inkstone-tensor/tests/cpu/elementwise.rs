//! Operations on matching elements.

use inkstone_tensor::ops::{self, Activation, Rescale};
use inkstone_tensor::{DType, Shape, bf16};

use crate::host::{ACTIVATIONS, Host, LAYOUTS, Layout, devices, gelu_tanh, make, random, silu};
use crate::tolerance::{ACTIVATION, U, check, norm, store};

const COLS: [usize; 9] = [0, 1, 7, 8, 9, 15, 16, 17, 211];

#[test]
fn convert_rounds_to_nearest_even() {
    for device in devices() {
        for cols in COLS {
            for from in [DType::F32, DType::Bf16, DType::F16] {
                let x = Host::random(1, 3, cols, from);
                for layout in LAYOUTS {
                    let xt = x.tensor(&device, layout);
                    assert_eq!(ops::convert(&xt, DType::F32).unwrap().to_f32().unwrap(), x.values);
                    let want: Vec<f32> = x.values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
                    assert_eq!(
                        ops::convert(&xt, DType::Bf16).unwrap().to_f32().unwrap(),
                        want,
                        "{}",
                        device.name()
                    );
                }
            }
        }
        // Ties both ways, the largest finite, infinities, signed zeros.
        let edges: Vec<f32> =
            [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0000, 0, 0x8000_0000u32]
                .iter()
                .cycle()
                .take(19)
                .map(|bits| f32::from_bits(*bits))
                .collect();
        let got = ops::convert(&make(&device, &edges, DType::F32, Shape::vector(19)), DType::Bf16).unwrap();
        let want: Vec<u8> = edges.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        assert_eq!(got.to_bytes(), want, "{}", device.name());
        // A NaN whose payload lies in the lost bits must not become an infinity.
        let nan = make(&device, &[f32::from_bits(0x7f80_0001); 9], DType::F32, Shape::vector(9));
        let got = ops::convert(&nan, DType::Bf16).unwrap().to_f32().unwrap();
        assert!(got.iter().all(|v| v.is_nan()), "{}", device.name());
    }
}

#[test]
fn activations_match_their_definitions() {
    let wide: Vec<f32> = (-2000..=2000i16).map(|i| f32::from(i) / 20.0).collect();
    for device in devices() {
        let x = make(&device, &wide, DType::F32, Shape::vector(wide.len()));
        for (activation, f) in [
            (Activation::Silu, silu as fn(f64) -> f64),
            (Activation::GeluTanh, gelu_tanh),
            (Activation::None, |v| v),
        ] {
            let got = ops::activate(&x, activation, DType::F32).unwrap().to_f32().unwrap();
            let want: Vec<f64> = wide.iter().map(|v| f(f64::from(*v))).collect();
            // Far out on the left both vanish: in the definition by cancellation, here by a large divisor.
            check(&format!("{} {activation:?}", device.name()), &got, &want, |i| {
                8.0 * U * want[i].abs() * (1.0 + f64::from(wide[i]).abs())
                    + ACTIVATION * want[i].abs()
                    + 1e-15
            });
        }
        for dtype in ACTIVATIONS {
            for cols in COLS {
                let x = Host::random(1, 2, cols, dtype);
                let got = ops::activate(&x.tensor(&device, Layout::View), Activation::Silu, dtype).unwrap();
                let want: Vec<f64> = x.values.iter().map(|v| silu(f64::from(*v))).collect();
                let allowed = |i: usize| ACTIVATION * want[i].abs() + store(dtype, want[i]);
                check(&device.name(), &got.to_f32().unwrap(), &want, allowed);
            }
        }
    }
}

#[test]
fn nan_stays_nan() {
    for device in devices() {
        let mut values = random(1, 20);
        values[3] = f32::NAN;
        values[18] = f32::NAN;
        let x = make(&device, &values, DType::F32, Shape::vector(20));
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let got = ops::activate(&x, activation, DType::F32).unwrap().to_f32().unwrap();
            assert!(
                got.iter().enumerate().all(|(i, v)| v.is_nan() == (i == 3 || i == 18)),
                "{}",
                device.name()
            );
        }
    }
}

#[test]
fn sums_and_products_match_their_definitions() {
    for device in devices() {
        for cols in COLS {
            for (da, db) in [(DType::F32, DType::F32), (DType::F32, DType::Bf16), (DType::Bf16, DType::Bf16)]
            {
                let (a, b) = (Host::random(1, 3, cols, da), Host::random(2, 3, cols, db));
                let (at, bt) = (a.tensor(&device, Layout::View), b.tensor(&device, Layout::Plain));
                let pairs: Vec<(f64, f64)> =
                    a.values.iter().zip(&b.values).map(|(a, b)| (f64::from(*a), f64::from(*b))).collect();
                for out in ACTIVATIONS {
                    let what = format!("{} {cols} {da} {db} {out}", device.name());
                    let want: Vec<f64> = pairs.iter().map(|(a, b)| a + b).collect();
                    let got = ops::add(&at, &bt, out).unwrap().to_f32().unwrap();
                    check(&what, &got, &want, |i| store(out, want[i]));
                }
                let want: Vec<f64> = pairs.iter().map(|(a, _)| -0.3 * a).collect();
                let got = ops::scale(&at, -0.3, db).unwrap().to_f32().unwrap();
                check("scale", &got, &want, |i| 2.0 * U * want[i].abs() + store(db, want[i]));
                let want: Vec<f64> = pairs.iter().map(|(a, b)| a - 0.75 * b).collect();
                // In place, and into a copy where another tensor still needs the values.
                for shared in [false, true] {
                    let own = a.tensor(&device, Layout::Plain);
                    let keep = shared.then(|| own.clone());
                    let got = ops::scaled_add(own, &bt, -0.75).unwrap().to_f32().unwrap();
                    check("scaled_add", &got, &want, |i| store(da, want[i]) + 4.0 * U);
                    assert!(keep.is_none_or(|keep| keep.to_f32().unwrap() == a.values));
                }
            }
        }
    }
}

#[test]
fn guidance_matches_its_definition() {
    for device in devices() {
        for cols in COLS {
            for dtype in ACTIVATIONS {
                let (cond, uncond) = (Host::random(1, 3, cols, dtype), Host::random(2, 3, cols, dtype));
                let (ct, ut) = (cond.tensor(&device, Layout::View), uncond.tensor(&device, Layout::Plain));
                for rescale in [Rescale::None, Rescale::ToConditional] {
                    let mut want = Vec::new();
                    for r in 0..3 {
                        let (c, u) = (cond.row(r), uncond.row(r));
                        let raw: Vec<f64> = c.iter().zip(&u).map(|(c, u)| u + 4.0 * (c - u)).collect();
                        let length = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
                        let factor = if rescale == Rescale::None { 1.0 } else { length(&c) / length(&raw) };
                        want.extend(raw.iter().map(|v| v * factor));
                    }
                    let got = ops::guidance(&ct, &ut, 4.0, rescale).unwrap();
                    check(
                        &format!("{} {cols} {rescale:?}", device.name()),
                        &got.to_f32().unwrap(),
                        &want,
                        |i| norm(cols, want[i]) + 40.0 * U + store(dtype, want[i]),
                    );
                }
            }
        }
    }
}

#[test]
fn guidance_of_nothing_is_nothing() {
    for device in devices() {
        let zero = make(&device, &[0.0; 4], DType::F32, Shape::matrix(1, 4));
        let got = ops::guidance(&zero, &zero, 4.0, Rescale::ToConditional).unwrap();
        assert_eq!(got.to_f32().unwrap(), [0.0; 4]);
    }
}
