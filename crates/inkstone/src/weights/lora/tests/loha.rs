//! Elementwise products of two matrices: their paths against sums in f64, alpha, and what is refused.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Shape, Tensor};

use super::{LAYER, Made, Part, device, keys, notes, paths};
use crate::error::LoraProblem;
use crate::weights::lora::SidePath;
use crate::weights::lora::keys::Dialect;
use crate::weights::safetensors::serialize;

/// Unit roundoff of f32 and of bf16.
const F32: f64 = 1.0 / (1u64 << 24) as f64;
const BF16: f64 = 1.0 / 256.0;

type Matrix = (usize, Vec<f32>);

/// Numbers without a pattern.
fn matrix(seed: usize, rows: usize, cols: usize) -> Matrix {
    let one = |i: usize| ((i * 7919 + seed * 104_729) as f32 * 0.618).sin();
    (cols, (0..rows * cols).map(one).collect())
}

/// The matrices of a layer, `[n_out, r]`, `[r, n_in]`, `[n_out, s]`, `[s, n_in]`.
fn factors([n_out, n_in]: [usize; 2], [r, s]: [usize; 2]) -> [Matrix; 4] {
    [matrix(1, n_out, r), matrix(2, r, n_in), matrix(3, n_out, s), matrix(4, s, n_in)]
}

const ENDS: [&str; 4] = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];

/// A file as LyCORIS names its tensors, or as diffusers does if it notes something.
fn made(test: &str, parts: &[Matrix], alpha: Option<f32>, metadata: &[(&str, &str)]) -> Made {
    let layer = match metadata {
        [] => format!("lycoris_{}", keys::flat(LAYER)),
        _ => format!("transformer.{LAYER}"),
    };
    let tensor = |values: &[f32], shape| Tensor::from_f32(&device(), values, shape).unwrap();
    let matrices = parts.iter().zip(ENDS).map(|((cols, values), end)| {
        let shape = Shape::matrix(values.len() / (*cols).max(1), *cols);
        (format!("{layer}.{end}"), tensor(values, shape))
    });
    let alpha = alpha.map(|alpha| (format!("{layer}.alpha"), tensor(&[alpha], Shape::new(&[]).unwrap())));
    let tensors = matrices.chain(alpha).collect();
    Made::of(&format!("loha_{test}"), &serialize(&tensors, &notes(metadata)))
}

/// `(A B) * (C D)` at a place, and the same of magnitudes.
fn element([a, b, c, d]: &[Matrix; 4], row: usize, col: usize) -> [f64; 2] {
    let sum = |(rank, left): &Matrix, (cols, right): &Matrix, value: fn(f64) -> f64| -> f64 {
        let one = |k: usize| value(f64::from(left[row * rank + k]) * f64::from(right[k * cols + col]));
        (0..*rank).map(one).sum()
    };
    [|v| v, f64::abs].map(|value: fn(f64) -> f64| sum(a, b, value) * sum(c, d, value))
}

/// What a path adds to a weight.
fn delta(path: &SidePath) -> Vec<f64> {
    let values = |tensor: &Tensor| tensor.to_f32().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
    let (up, n_in) = (values(path.up.tensors()[0]), path.width());
    assert!(path.left.is_empty());
    let factor = f64::from(path.factor);
    let Some(down) = &path.down else {
        assert_eq!(path.factor, 1.0, "it is in the matrix");
        return up;
    };
    let (rank, down) = (path.up.n_in(), values(down.tensors()[0]));
    let one = |at: usize| -> f64 {
        (0..rank).map(|k| up[at / n_in * rank + k] * down[k * n_in + at % n_in]).sum::<f64>() * factor
    };
    (0..path.up.n_out() * n_in).map(one).collect()
}

/// Through `r s` columns, each matrix rounds each of its numbers once. Where that is longer than the weight, the product itself
/// rounds `2 (r + s) + 3` times in f32 and once more to its type.
#[test]
fn a_path_is_the_elementwise_product() {
    for (size, ranks, is_whole) in [
        ([10, 12], [1, 1], false),
        ([10, 12], [2, 2], false),
        ([10, 12], [3, 2], true),
        ([40, 36], [4, 3], false),
        ([40, 36], [2, 5], false),
        ([1, 9], [1, 1], true),
        ([2048, 8], [2, 2], false),
    ] {
        let parts = factors(size, ranks);
        let file = made("paths", &parts, Some(3.0), &[]);
        let scale = 0.5 * 3.0 / ranks[0] as f64;
        for (dtype, unit) in [(DType::F32, F32), (DType::Bf16, BF16)] {
            let path = paths(&file, [size[1], size[0]], dtype).unwrap().remove(0);
            assert_eq!((path.down.is_none(), path.up.dtype()), (is_whole, dtype), "{size:?} {ranks:?}");
            if !is_whole {
                assert_eq!(path.up.n_in(), ranks[0] * ranks[1]);
            }
            for (at, got) in delta(&path).into_iter().enumerate() {
                let [want, magnitude] = element(&parts, at / size[1], at % size[1]).map(|v| scale * v);
                let roundings = 2.0 * unit + 2.0 * ((ranks[0] + ranks[1]) as f64 + 2.0) * F32;
                assert!(
                    (got - want).abs() <= 1.01 * roundings * magnitude,
                    "{size:?} {at}: {got} for {want}"
                );
            }
        }
    }
}

#[test]
fn names_of_all_dialects_are_read() {
    for (name, dialect, layer, part) in [
        ("lycoris_a_b.hada_w1_a", Dialect::Lycoris, "a_b", Part::FirstA),
        ("lora_unet_a_b.hada_w1_b", Dialect::Kohya, "a_b", Part::FirstB),
        ("diffusion_model.a.b.hada_w2_a", Dialect::DiffusionModel, "a.b", Part::SecondA),
        ("transformer.a.b.hada_w2_b", Dialect::Diffusers, "a.b", Part::SecondB),
        ("base_model.model.a.b.hada_w1_a", Dialect::Peft, "a.b", Part::FirstA),
        // As PEFT's `state_dict()` has it.
        ("base_model.model.a.b.hada_w1_b.default", Dialect::Peft, "a.b", Part::FirstB),
        ("a.b.hada_w2_b", Dialect::Plain, "a.b", Part::SecondB),
    ] {
        assert_eq!(keys::parse(name), Some(keys::Key { dialect, layer, part }), "{name}");
    }
    for name in [".hada_w1_a", "a.hada_w1", "a.hada_w3_a", "a.hada_w1_a.x.y"] {
        assert_eq!(keys::parse(name), None, "{name}");
    }
}

/// Over the rank of the first matrix, as in LyCORIS; PEFT notes it in its settings.
#[test]
fn alpha_is_divided_by_the_rank() {
    let peft = |text| [("lora_adapter_metadata", text)];
    for (alpha, notes, want) in [
        (None, &[][..], 1.0),
        (Some(3.0), &[], 0.75),
        (None, &peft(r#"{"peft_type": "LOHA", "r": 8, "alpha": 2}"#), 0.5),
        (None, &peft(r#"{"peft_type": "LOHA", "alpha": 2, "alpha_pattern": {"to_q": 6}}"#), 1.5),
        // That of a LoRA.
        (None, &peft(r#"{"peft_type": "LOHA", "lora_alpha": 2}"#), 1.0),
    ] {
        let file = made("alpha", &factors([40, 36], [4, 2]), alpha, notes);
        let factor = paths(&file, [36, 40], DType::F32).unwrap()[0].factor;
        assert!((factor - 0.5 * want).abs() < 1e-6, "{alpha:?} {notes:?}: {factor}");
    }
}

#[test]
fn fault_24_matrices_that_do_not_fit_each_other() {
    let good = factors([10, 12], [2, 3]);
    let problem = |test: &str, parts: &[Matrix]| made(test, parts, None, &[]).problem();
    for (i, bad) in [
        (0, matrix(1, 9, 2)),
        (1, matrix(1, 3, 12)),
        (1, matrix(1, 2, 11)),
        (2, matrix(1, 10, 2)),
        (3, matrix(1, 3, 13)),
        (0, (2, Vec::new())),
    ] {
        let mut parts = good.clone();
        parts[i] = bad;
        let problem = problem("shapes", &parts);
        assert!(matches!(problem, LoraProblem::Hadamard { .. }), "{i}: {problem}");
    }
    let many = factors([1, 1], [3073, 1]);
    assert!(matches!(problem("rank", &many), LoraProblem::Hadamard { .. }));
    for missing in 1..4 {
        let problem = problem("half", &good[..missing]);
        assert!(matches!(problem, LoraProblem::Half { missing: m, .. } if m == ENDS[missing]), "{problem}");
    }
    let names = ENDS.map(|end| format!("{LAYER}.{end}"));
    for (more, shape) in [("lokr_w1", &[2usize, 2][..]), ("lora_A.weight", &[2, 12])] {
        let more = format!("{LAYER}.{more}");
        let mut tensors: Vec<(&str, &[usize], f32)> =
            names.iter().map(|name| (name.as_str(), &[2usize, 2][..], 0.5)).collect();
        tensors.push((&more, shape, 0.5));
        let problem = Made::new("loha_twice", &tensors, &[]).problem();
        assert!(matches!(problem, LoraProblem::Twice { .. }), "{problem}");
    }
    let misfit = paths(&made("misfit", &good, None, &[]), [12, 11], DType::F32).unwrap_err().to_string();
    assert!(misfit.ends_with("is for a weight of [10, 12], this model's has [11, 12]"), "{misfit}");
}

#[test]
fn fault_24_numbers_that_cannot_be_used() {
    let good = factors([10, 12], [2, 2]);
    for alpha in [0.0, f32::NAN, f32::INFINITY, -1e9] {
        let problem = made("alphas", &good, Some(alpha), &[]).problem();
        assert!(matches!(problem, LoraProblem::Alpha { .. }), "{alpha}: {problem}");
    }
    let mut parts = good;
    parts[2].1[3] = f32::NAN;
    let problem = made("nan", &parts, None, &[]).problem();
    assert!(matches!(problem, LoraProblem::NotFinite { .. }), "{problem}");
}

#[test]
fn a_summary_tells_what_is_in_a_file() {
    let summary =
        made("summary", &factors([40, 36], [4, 4]), Some(2.0), &[]).open().unwrap().summary().unwrap();
    assert_eq!((summary.dialect.as_str(), summary.family), ("lycoris", Some("Qwen-Image")));
    assert_eq!(summary.adapters, BTreeMap::from([("LoHa", 1)]));
    assert_eq!(summary.ranks, BTreeMap::from([(4, 1)]));
    assert_eq!(summary.alphas, BTreeMap::from([("2".to_owned(), 1)]));
}
