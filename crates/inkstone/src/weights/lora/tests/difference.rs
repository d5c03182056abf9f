//! Whole differences of weights, norms and biases.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Shape, Tensor};

use super::{LAYER, Made, Part, device, keys, paths, with};
use crate::Result;
use crate::error::LoraProblem;
use crate::weights::Loader;
use crate::weights::lora::Applied;
use crate::weights::lora::keys::Dialect;

const BIAS: &str = "transformer_blocks.0.attn.to_q.diff_b";
const NORM: &str = "transformer_blocks.0.attn.norm_q.diff";

#[test]
fn names_of_all_dialects_are_read() {
    for (name, dialect, layer, part) in [
        ("diffusion_model.a.b.diff", Dialect::DiffusionModel, "a.b", Part::Difference),
        ("diffusion_model.a.b.diff_b", Dialect::DiffusionModel, "a.b", Part::BiasDifference),
        ("lora_unet_a_b.diff_b", Dialect::Kohya, "a_b", Part::BiasDifference),
        ("lycoris_a_b.diff", Dialect::Lycoris, "a_b", Part::Difference),
    ] {
        assert_eq!(keys::parse(name), Some(keys::Key { dialect, layer, part }), "{name}");
    }
    for name in [".diff", "model.diffusion_model.a.weight", "a.diff.default", "a.diff_b.weight"] {
        assert_eq!(keys::parse(name), None, "{name}");
    }
}

/// A bias and a norm of a network, loaded with a file at a scale of 0.5.
fn vectors(file: &Made, stored: DType, len: usize) -> Result<[Vec<f32>; 2]> {
    let names = ["transformer_blocks.0.attn.to_q.bias", "transformer_blocks.0.attn.norm_q.weight"];
    let tensor = |value: f32| {
        let values = Tensor::from_f32(&device(), &vec![value; len], Shape::vector(len)).unwrap();
        inkstone_tensor::ops::convert(&values, stored).unwrap()
    };
    let tensors = names.iter().zip([1.0, 2.0]).map(|(name, value)| ((*name).to_owned(), tensor(value)));
    let loras = [Applied { lora: file.open()?.into(), scale: 0.5 }];
    let mut loader = Loader::new("transformer", &device(), DType::Bf16, tensors.collect()).with_loras(&loras);
    let vectors = names.map(|name| loader.vector(name, len).to_f32().unwrap());
    loader.side_paths(LAYER, 4, 6);
    loader.finish().map(|()| vectors)
}

#[test]
fn vectors_get_scale_times_the_difference() {
    let file = with("vectors", &[(BIAS, &[6], 3.0), (NORM, &[6], -2.0)]);
    for stored in [DType::F32, DType::Bf16] {
        assert_eq!(vectors(&file, stored, 6).unwrap(), [vec![2.5; 6], vec![1.0; 6]], "{stored}");
    }
    // Whatever stands for alpha: it has no rank to be divided by.
    let alpha = "transformer_blocks.0.attn.norm_q.weight.alpha";
    let file = with("alpha", &[(NORM, &[6], -2.0), (alpha, &[], 9.0)]);
    assert_eq!(vectors(&file, DType::F32, 6).unwrap(), [vec![1.0; 6], vec![1.0; 6]]);
}

#[test]
fn a_whole_difference_is_a_path() {
    let name = format!("diffusion_model.{LAYER}.diff");
    let file = Made::new("whole", &[(&name, &[6, 4], 3.0)], &[]);
    let path = paths(&file, [4, 6], DType::F32).unwrap().remove(0);
    assert!(path.left.is_empty() && path.down.is_none());
    assert_eq!((path.up.n_out(), path.up.n_in(), path.factor), (6, 4, 0.5));
    let summary = file.open().unwrap().summary().unwrap();
    assert_eq!(summary.adapters, BTreeMap::from([("difference", 1)]));
    assert!(summary.ranks.is_empty() && summary.alphas.is_empty());
    let both = with("both", &[(BIAS, &[6], 3.0)]).open().unwrap().summary().unwrap();
    assert_eq!(both.adapters, BTreeMap::from([("LoRA", 1), ("difference", 1)]));
}

#[test]
fn fault_24_differences_of_no_shape() {
    let whole = format!("{LAYER}.diff");
    for (name, dims) in
        [(BIAS, &[1, 6][..]), (BIAS, &[]), (BIAS, &[0]), (NORM, &[0, 6]), (NORM, &[6, 1, 1]), (NORM, &[])]
    {
        let problem = with("shapes", &[(name, dims, 1.0)]).problem();
        assert!(matches!(problem, LoraProblem::Difference { .. }), "{name} {dims:?}: {problem}");
    }
    let twice = with("twice", &[(&whole, &[6, 4], 1.0)]).problem();
    assert!(matches!(twice, LoraProblem::Twice { .. }), "{twice}");
    let misfit = with("misfit", &[(BIAS, &[5], 1.0)]);
    let said = vectors(&misfit, DType::F32, 6).unwrap_err().to_string();
    let want = "transformer_blocks.0.attn.to_q.bias is for a weight of [5, 1], this model's has [6, 1]";
    assert!(said.ends_with(want), "{said}");
    // Matrices for a vector, and what the network does not ask for.
    let a = "transformer_blocks.0.attn.to_q.bias.lora_A.weight";
    let b = "transformer_blocks.0.attn.to_q.bias.lora_B.weight";
    for more in [&[(a, &[1, 1][..], 1.0), (b, &[6, 1], 1.0)][..], &[("x.diff_b", &[6], 1.0)]] {
        let error = vectors(&with("rest", more), DType::F32, 6).unwrap_err();
        assert!(error.to_string().contains("1 of its 2 names do not match"), "{error}");
    }
}
