//! Linear layers and attention.

use std::sync::Arc;

use inkstone_tensor::ops::{self, Activation, Attention, Mask, Qkv, RowTable, Run, Term};
use inkstone_tensor::{DType, Device, Weight};

use crate::host::{ACTIVATIONS, Host, LAYOUTS, Layout, devices, gelu_tanh, random, silu, vector};
use crate::tolerance::{self, ACTIVATION, EXP, SLOPE, check, dot, store};

/// `x W^T + bias` with the magnitude of its terms; the weight has the precision of the activations.
fn product(x: &Host, weight: &Host, bias: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let weight = if x.dtype == DType::Bf16 {
        Host::new(weight.rows, weight.cols, DType::Bf16, &weight.values)
    } else {
        weight.clone()
    };
    let (mut sums, mut magnitudes) = (Vec::new(), Vec::new());
    for r in 0..x.rows {
        for (c, bias) in bias.iter().enumerate() {
            let terms = (0..x.cols).map(|k| x.at(r, k) * weight.at(c, k)).chain([f64::from(*bias)]);
            sums.push(terms.clone().sum());
            magnitudes.push(terms.map(f64::abs).sum());
        }
    }
    (sums, magnitudes)
}

fn linear_case(device: &Device, rows: usize, n: usize, k: usize, types: [DType; 3], layout: Layout) {
    let [dtype, stored, out] = types;
    let (x, w) = (Host::random(1, rows, k, dtype), Host::random(2, n, k, stored));
    let bias = random(3, n);
    let (sums, magnitudes) = product(&x, &w, &bias);
    let weight = Weight::Dense(w.tensor(device, layout));
    let (xt, bt) = (x.tensor(device, layout), vector(device, &bias));
    for activation in [Activation::None, Activation::Silu, Activation::GeluTanh] {
        let want: Vec<f64> = sums
            .iter()
            .map(|v| match activation {
                Activation::None => *v,
                Activation::Silu => silu(*v),
                Activation::GeluTanh => gelu_tanh(*v),
            })
            .collect();
        let got = ops::linear(&xt, &weight, Some(&bt), activation, out).unwrap().to_f32().unwrap();
        let what = format!("{} {rows}x{n}x{k} {types:?} {activation:?}", device.name());
        check(&what, &got, &want, |i| {
            SLOPE * dot(k, magnitudes[i]) + ACTIVATION * sums[i].abs() + store(out, want[i])
        });
    }
}

#[test]
fn linear_matches_its_definition() {
    use DType::{Bf16, F16, F32};
    let shapes = [
        (0, 5, 4),
        (1, 1, 1),
        (1, 33, 2),
        (13, 31, 7),
        (14, 32, 16),
        (15, 65, 1021),
        (29, 16, 514),
        (40, 13, 130),
        (57, 25, 64),
        (72, 7, 34),
        (3, 7, 0),
    ];
    for device in devices() {
        for (rows, n, k) in shapes {
            for layout in LAYOUTS {
                for dtype in ACTIVATIONS {
                    for stored in [F32, Bf16, F16] {
                        linear_case(&device, rows, n, k, [dtype, stored, F32], layout);
                    }
                    linear_case(&device, rows, n, k, [dtype, Bf16, Bf16], layout);
                }
            }
        }
        // More than one block of rows, columns and k.
        linear_case(&device, 601, 300, 1100, [Bf16, Bf16, F32], Layout::Plain);
        linear_case(&device, 601, 300, 1100, [F32, F32, F32], Layout::Plain);
    }
}

/// A layer and its terms are one product over the columns of all inputs, side by side.
#[test]
fn terms_are_a_part_of_the_sum() {
    for device in devices() {
        for (rows, n, k, ranks) in [
            (1, 1, 1, vec![1]),
            (15, 33, 7, vec![3, 4]),
            (29, 65, 130, vec![16]),
            (601, 530, 1100, vec![64, 1]),
        ] {
            for (dtype, layout) in ACTIVATIONS.into_iter().zip(LAYOUTS) {
                let part = |seed, k| {
                    (Host::random(seed, rows, k, dtype), Host::random(seed + 50, n, k, DType::Bf16))
                };
                let parts: Vec<(Host, Host)> =
                    [k].iter().chain(&ranks).zip(1..).map(|(k, seed)| part(seed, *k)).collect();
                let bias = random(3, n);
                let none = vec![0.0; n];
                let sums: Vec<_> = parts
                    .iter()
                    .enumerate()
                    .map(|(i, (x, w))| product(x, w, if i == 0 { &bias } else { &none }))
                    .collect();
                let want: Vec<f64> = (0..rows * n).map(|i| sums.iter().map(|s| s.0[i]).sum()).collect();
                let magnitude = |i: usize| sums.iter().map(|s| s.1[i]).sum::<f64>();
                let all = k + ranks.iter().sum::<usize>();
                let tensors: Vec<_> = parts
                    .iter()
                    .map(|(x, w)| (x.tensor(&device, layout), Weight::Dense(w.tensor(&device, layout))))
                    .collect();
                let terms: Vec<Term<'_>> =
                    tensors[1..].iter().map(|(x, weight)| Term { x, weight, groups: 1 }).collect();
                let (bt, (x, weight)) = (vector(&device, &bias), &tensors[0]);
                let what = format!("{} {rows}x{n}x{k} {ranks:?} {dtype}", device.name());
                let got = ops::linear_with(x, weight, Some(&bt), &terms, Activation::GeluTanh, DType::F32);
                let active: Vec<f64> = want.iter().map(|v| gelu_tanh(*v)).collect();
                check(&what, &got.unwrap().to_f32().unwrap(), &active, |i| {
                    SLOPE * dot(all, magnitude(i)) + ACTIVATION * want[i].abs() + store(DType::F32, active[i])
                });
                let residual = Host::random(9, rows, n, DType::F32);
                let added: Vec<f64> =
                    want.iter().zip(&residual.values).map(|(v, r)| v + f64::from(*r)).collect();
                let start = residual.tensor(&device, Layout::Plain);
                let got = ops::linear_add_with(start, None, x, weight, Some(&bt), &terms).unwrap();
                check(&what, &got.to_f32().unwrap(), &added, |i| {
                    dot(all, magnitude(i) + 1.0) + store(DType::F32, added[i])
                });
            }
        }
    }
}

/// A term of groups is for each of them a product of its own.
#[test]
fn terms_of_groups_are_block_diagonal() {
    for device in devices() {
        // Groups narrower than a tile, as wide, wider, and of more than a block of columns and of k.
        for (rows, groups, size, k, rank) in [
            (1, 1, 1, 1, 1),
            (3, 5, 3, 7, 2),
            (29, 2, 32, 16, 9),
            (15, 3, 43, 10, 6),
            (17, 33, 1, 5, 3),
            (61, 3, 177, 40, 601),
        ] {
            for (dtype, layout) in ACTIVATIONS.into_iter().zip(LAYOUTS) {
                let n = groups * size;
                let (x, w) = (Host::random(1, rows, k, dtype), Host::random(2, n, k, DType::Bf16));
                let (h, up) =
                    (Host::random(3, rows * groups, rank, dtype), Host::random(4, size, rank, DType::Bf16));
                let (base, base_magnitude) = product(&x, &w, &vec![0.0; n]);
                // Row `r * groups + g`, output `o` is row `r`, output `g * size + o`.
                let (added, magnitude) = product(&h, &up, &vec![0.0; size]);
                let want: Vec<f64> = base.iter().zip(&added).map(|(a, b)| a + b).collect();
                let weights = [w, up].map(|w| Weight::Dense(w.tensor(&device, layout)));
                let (x, h) = (x.tensor(&device, layout), h.tensor(&device, layout));
                let terms = [Term { x: &h, weight: &weights[1], groups }];
                let got = ops::linear_with(&x, &weights[0], None, &terms, Activation::None, DType::F32);
                let what = format!("{} {rows}x{groups}x{size} {k} {rank} {dtype}", device.name());
                check(&what, &got.unwrap().to_f32().unwrap(), &want, |i| {
                    dot(k + rank, base_magnitude[i] + magnitude[i]) + store(DType::F32, want[i])
                });
            }
        }
    }
}

#[test]
fn terms_that_do_not_fit_are_refused() {
    let device = &devices()[0];
    let tensor = |rows, cols| Host::random(1, rows, cols, DType::F32).tensor(device, Layout::Plain);
    let (x, weight) = (tensor(3, 5), Weight::Dense(tensor(7, 5)));
    for (rows, rank, outs, columns, groups) in [
        (2, 4, 7, 4, 1),
        (3, 4, 6, 4, 1),
        (3, 4, 7, 5, 1),
        (3, 4, 1, 4, 7),
        (21, 4, 1, 4, 6),
        (21, 4, 7, 4, 7),
        (0, 4, 7, 4, 0),
        (3, 4, 7, 4, usize::MAX),
    ] {
        let (h, up) = (tensor(rows, rank), Weight::Dense(tensor(outs, columns)));
        let terms = [Term { x: &h, weight: &up, groups }];
        assert!(ops::linear_with(&x, &weight, None, &terms, Activation::None, DType::F32).is_err());
    }
}

#[test]
fn linear_add_adds_to_the_residual_times_a_gate() {
    for device in devices() {
        for (rows, n, k) in [(1, 3, 5), (15, 33, 64), (29, 65, 130)] {
            for dtype in ACTIVATIONS {
                let (x, w) = (Host::random(1, rows, k, dtype), Host::random(2, n, k, dtype));
                let bias = random(3, n);
                let residual = Host::random(4, rows, n, dtype);
                let table = Host::random(5, 2, n, DType::F32);
                let (sums, magnitudes) = product(&x, &w, &bias);
                let weight = Weight::Dense(w.tensor(&device, Layout::Plain));
                let runs: Arc<[Run]> =
                    [Run { rows: rows / 2, entry: 1 }, Run { rows: rows - rows / 2, entry: 0 }].into();
                let gate = RowTable { table: table.tensor(&device, Layout::Plain), runs };
                for gated in [true, false] {
                    let factor = |i: usize| {
                        if gated { table.at(usize::from(i / n < rows / 2), i % n) } else { 1.0 }
                    };
                    let want: Vec<f64> =
                        (0..rows * n).map(|i| f64::from(residual.values[i]) + factor(i) * sums[i]).collect();
                    let got = ops::linear_add(
                        residual.tensor(&device, Layout::Plain),
                        gated.then_some(&gate),
                        &x.tensor(&device, Layout::View),
                        &weight,
                        Some(&vector(&device, &bias)),
                    );
                    let what = format!("{} {rows}x{n}x{k} {dtype} gated {gated}", device.name());
                    check(&what, &got.unwrap().to_f32().unwrap(), &want, |i| {
                        dot(k, magnitudes[i] + 1.0) + store(dtype, want[i])
                    });
                }
            }
        }
    }
}

/// In place, and into a copy where another tensor still needs the factor.
#[test]
fn linear_mul_multiplies_what_is_there() {
    for device in devices() {
        for (rows, n, k) in [(1, 3, 5), (9, 17, 34), (15, 33, 64), (29, 65, 130)] {
            for dtype in ACTIVATIONS {
                let (x, w) = (Host::random(1, rows, k, dtype), Host::random(2, n, k, dtype));
                let (bias, factor) = (random(3, n), Host::random(4, rows, n, dtype));
                let (sums, magnitudes) = product(&x, &w, &bias);
                let held = |i: usize| f64::from(factor.values[i]);
                let want: Vec<f64> = (0..rows * n).map(|i| held(i) * sums[i]).collect();
                let weight = Weight::Dense(w.tensor(&device, Layout::Plain));
                let (xt, bt) = (x.tensor(&device, Layout::View), vector(&device, &bias));
                for shared in [false, true] {
                    let own = factor.tensor(&device, Layout::Plain);
                    let keep = shared.then(|| own.clone());
                    let got = ops::linear_mul_with(own, &xt, &weight, Some(&bt), &[]).unwrap();
                    let what = format!("{} {rows}x{n}x{k} {dtype}", device.name());
                    check(&what, &got.to_f32().unwrap(), &want, |i| {
                        dot(k, held(i).abs() * magnitudes[i]) + store(dtype, want[i])
                    });
                    assert!(keep.is_none_or(|keep| keep.to_f32().unwrap() == factor.values));
                }
                let wrong = factor.tensor(&device, Layout::Plain);
                let other = Host::random(1, rows + 1, k, dtype).tensor(&device, Layout::Plain);
                assert!(ops::linear_mul_with(wrong, &other, &weight, None, &[]).is_err());
            }
        }
    }
}

#[test]
fn linear_without_inputs_is_the_bias() {
    for device in devices() {
        let x = Host::random(1, 3, 0, DType::F32).tensor(&device, Layout::Plain);
        let w = Weight::Dense(Host::random(1, 2, 0, DType::F32).tensor(&device, Layout::Plain));
        let got = ops::linear(&x, &w, Some(&vector(&device, &[1.5, -2.0])), Activation::None, DType::F32);
        assert_eq!(got.unwrap().to_f32().unwrap(), [1.5, -2.0, 1.5, -2.0, 1.5, -2.0]);
    }
}

/// Attention of one query of a sequence, by the book.
fn attend(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], scale: f64) -> Vec<f64> {
    let scores: Vec<f64> =
        keys.iter().map(|k| scale * q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>()).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..q.len()).map(|d| weights.iter().zip(values).map(|(w, v)| w * v[d]).sum::<f64>() / total).collect()
}

struct Heads {
    n_heads: usize,
    n_kv_heads: usize,
    dim: usize,
}

/// Two streams, two sequences of the given lengths in each stream; all against the definition.
fn attention_case(device: &Device, lens: [[usize; 2]; 2], heads: &Heads, mask: Mask, dtype: DType) {
    let Heads { n_heads, n_kv_heads, dim } = *heads;
    let rows: Vec<usize> = (0..2).map(|s| lens[0][s] + lens[1][s]).collect();
    let host = |seed: u64, s: usize, n: usize| Host::random(seed + s as u64, rows[s], n * dim, dtype);
    let q: Vec<Host> = (0..2).map(|s| host(10, s, n_heads)).collect();
    let k: Vec<Host> = (0..2).map(|s| host(20, s, n_kv_heads)).collect();
    let v: Vec<Host> = (0..2).map(|s| host(30, s, n_kv_heads)).collect();
    let tensors = |h: &[Host]| h.iter().map(|h| h.tensor(device, Layout::View)).collect::<Vec<_>>();
    let (qt, kt, vt) = (tensors(&q), tensors(&k), tensors(&v));
    let streams: Vec<Qkv> = (0..2).map(|s| Qkv { q: &qt[s], k: &kt[s], v: &vt[s] }).collect();
    let sequences = [vec![0..lens[0][0], 0..lens[0][1]], vec![lens[0][0]..rows[0], lens[0][1]..rows[1]]];
    let scale = 3.0 / (dim as f32).sqrt();
    let args = Attention { streams: &streams, sequences: &sequences, n_heads, n_kv_heads, scale, mask };
    let got = ops::attention(&args, DType::F32).unwrap();
    let got: Vec<Vec<f32>> = got.iter().map(|t| t.to_f32().unwrap()).collect();
    // Scores are off by their dot product: a weight, and the sum that it is divided by, each by that part of themselves to
    // first order, twice that beyond it. Both also have the error of `exp`, and are sums over the keys. In bf16 weights are
    // rounded, by 2^-8 of each. The result is a weighted mean of values of at most 1.
    let score = f64::from(scale) * dot(dim, tolerance::count(dim));
    let sums = |keys: usize| 2.0 * (EXP + dot(keys, 1.0));
    let rounded = if dtype == DType::Bf16 { 2f64.powi(-8) } else { 0.0 };
    for sequence in &sequences {
        let place: Vec<(usize, usize)> =
            (0..2).flat_map(|s| sequence[s].clone().map(move |r| (s, r))).collect();
        for head in 0..n_heads {
            let part =
                |m: &[Host], h: usize, (s, r): (usize, usize)| m[s].row(r)[h * dim..(h + 1) * dim].to_vec();
            let kv = head / (n_heads / n_kv_heads);
            let keys: Vec<_> = place.iter().map(|p| part(&k, kv, *p)).collect();
            let values: Vec<_> = place.iter().map(|p| part(&v, kv, *p)).collect();
            for (i, p) in place.iter().enumerate() {
                let seen = if mask == Mask::Causal { i + 1 } else { place.len() };
                let want = attend(&part(&q, head, *p), &keys[..seen], &values[..seen], f64::from(scale));
                let got = &got[p.0][(p.1 * n_heads + head) * dim..][..dim];
                let what = format!(
                    "{} {lens:?} head {head} of {n_heads}/{n_kv_heads}x{dim} {mask:?} {dtype} query {i}",
                    device.name()
                );
                check(&what, got, &want, |_| 4.0 * score + sums(seen) + rounded);
            }
        }
    }
}

#[test]
fn attention_matches_its_definition() {
    let shapes = [
        ([[1, 0], [0, 0]], Heads { n_heads: 1, n_kv_heads: 1, dim: 1 }),
        ([[3, 5], [2, 7]], Heads { n_heads: 4, n_kv_heads: 2, dim: 6 }),
        ([[2, 14], [0, 29]], Heads { n_heads: 2, n_kv_heads: 2, dim: 16 }),
        ([[7, 113], [1, 1]], Heads { n_heads: 3, n_kv_heads: 1, dim: 32 }),
        ([[40, 260], [9, 250]], Heads { n_heads: 2, n_kv_heads: 1, dim: 33 }),
        ([[0, 530], [0, 3]], Heads { n_heads: 1, n_kv_heads: 1, dim: 40 }),
        ([[0, 40], [0, 3]], Heads { n_heads: 1, n_kv_heads: 1, dim: 384 }),
    ];
    for device in devices() {
        for (lens, heads) in &shapes {
            for mask in [Mask::Full, Mask::Causal] {
                for dtype in ACTIVATIONS {
                    attention_case(&device, *lens, heads, mask, dtype);
                }
            }
        }
    }
}

#[test]
fn attention_refuses_sequences_that_share_rows() {
    let device = devices().pop().unwrap();
    let x = Host::random(1, 4, 2, DType::F32).tensor(&device, Layout::Plain);
    let streams = [Qkv { q: &x, k: &x, v: &x }];
    let sequences = [0..3, 2..4].map(|rows| std::iter::once(rows).collect::<Vec<_>>());
    let args = Attention {
        streams: &streams,
        sequences: &sequences,
        n_heads: 1,
        n_kv_heads: 1,
        scale: 1.0,
        mask: Mask::Full,
    };
    assert!(ops::attention(&args, DType::F32).is_err());
}
