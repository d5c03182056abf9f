//! Kronecker products: whole matrices and such in two parts, what alpha is divided by, and what is refused.

use std::collections::BTreeMap;

use inkstone_tensor::DType;

use super::{LAYER, Made, Part, keys, paths, with};
use crate::error::LoraProblem;
use crate::weights::lora::keys::Dialect;
use crate::weights::lora::layers::Delta;
use crate::weights::lora::{Applied, Pending, SidePath};
use crate::{Error, Result};

/// What a tensor's name ends with, and its shape.
type Stored = (&'static str, &'static [usize]);

const WHOLE: [Stored; 2] = [("lokr_w1", &[2, 3]), ("lokr_w2", &[5, 4])];
const SECOND_IN_TWO: [Stored; 3] = [("lokr_w1", &[2, 3]), ("lokr_w2_a", &[5, 2]), ("lokr_w2_b", &[2, 4])];
const FIRST_IN_TWO: [Stored; 3] = [("lokr_w1_a", &[2, 1]), ("lokr_w1_b", &[1, 3]), ("lokr_w2", &[5, 4])];
const BOTH_IN_TWO: [Stored; 4] =
    [("lokr_w1_a", &[2, 1]), ("lokr_w1_b", &[1, 3]), ("lokr_w2_a", &[5, 2]), ("lokr_w2_b", &[2, 4])];

/// A file of a layer with 12 inputs and 10 outputs.
fn made(test: &str, parts: &[Stored], alpha: Option<f32>, notes: &[(&str, &str)]) -> Made {
    let names: Vec<String> = parts.iter().map(|(end, _)| format!("transformer.{LAYER}.{end}")).collect();
    let mut tensors: Vec<(&str, &[usize], f32)> =
        names.iter().zip(parts).map(|(name, (_, dims))| (name.as_str(), *dims, 0.5)).collect();
    let name = format!("transformer.{LAYER}.alpha");
    tensors.extend(alpha.map(|alpha| (name.as_str(), &[][..], alpha)));
    Made::new(&format!("lokr_{test}"), &tensors, notes)
}

fn path(file: &Made, size: [usize; 2]) -> Result<SidePath> {
    paths(file, size, DType::F32).map(|mut paths| paths.remove(0))
}

#[test]
fn names_of_all_dialects_are_read() {
    for (name, dialect, layer, part) in [
        ("lycoris_a_b.lokr_w1", Dialect::Lycoris, "a_b", Part::Left),
        ("lycoris_a_b.alpha", Dialect::Lycoris, "a_b", Part::Alpha),
        ("lora_unet_a_b.lokr_w1_a", Dialect::Kohya, "a_b", Part::LeftA),
        ("diffusion_model.a.b.lokr_w1_b", Dialect::DiffusionModel, "a.b", Part::LeftB),
        ("transformer.a.b.lokr_w2", Dialect::Diffusers, "a.b", Part::Right),
        ("base_model.model.a.b.lokr_w2_a", Dialect::Peft, "a.b", Part::RightA),
        ("a.b.lokr_w2_b", Dialect::Plain, "a.b", Part::RightB),
        // As PEFT's `state_dict()` has them.
        ("base_model.model.a.b.lokr_w1.default", Dialect::Peft, "a.b", Part::Left),
        ("base_model.model.a.b.lokr_w2_a.my-style_2", Dialect::Peft, "a.b", Part::RightA),
        ("transformer.a.b.lokr_w2_b.default.weight", Dialect::Diffusers, "a.b", Part::RightB),
    ] {
        assert_eq!(keys::parse(name), Some(keys::Key { dialect, layer, part }), "{name}");
    }
    for name in [".lokr_w1", "a.lokr_w3", "a.lokr_w1.weight", "a.lokr_w1_c", "lycoris_.lokr_w1"] {
        assert_eq!(keys::parse(name), None, "{name}");
    }
}

/// LyCORIS: alpha over the rank of the second matrix, or of the first where that one is whole; nothing counts where both are.
#[test]
fn alpha_counts_where_a_matrix_is_a_product() {
    let cases: [(&str, &[Stored], Option<f32>, f32); 8] = [
        ("whole", &WHOLE, None, 1.0),
        ("whole3", &WHOLE, Some(3.0), 1.0),
        ("whole0", &WHOLE, Some(0.0), 1.0),
        // What a number of ten digits becomes in f16.
        ("inf", &WHOLE, Some(f32::INFINITY), 1.0),
        ("second", &SECOND_IN_TWO, Some(3.0), 1.5),
        ("none", &SECOND_IN_TWO, None, 1.0),
        ("first", &FIRST_IN_TWO, Some(3.0), 3.0),
        ("both", &BOTH_IN_TWO, Some(3.0), 1.5),
    ];
    for (test, parts, alpha, want) in cases {
        let file = made(test, parts, alpha, &[]);
        let path = path(&file, [12, 10]).unwrap();
        assert!((path.factor - 0.5 * want).abs() < 1e-6, "{test}: {}", path.factor);
        assert_eq!((path.groups(), path.width(), path.up.n_out()), (2, 4, 5), "{test}");
        assert_eq!(path.left.len(), if test == "first" || test == "both" { 2 } else { 1 }, "{test}");
        assert_eq!(path.down.is_some(), parts.iter().any(|(end, _)| *end == "lokr_w2_b"), "{test}");
    }
}

/// PEFT: alpha over the rank that was asked for, whatever became of the matrices.
#[test]
fn pefts_settings_count_always() {
    for (test, parts, notes, want) in [
        ("a", &WHOLE[..], r#"{"peft_type": "LOKR", "r": 8, "alpha": 4}"#, 0.5),
        (
            "b",
            &WHOLE,
            r#"{"transformer.peft_type": "LOKR", "transformer.r": 8, "transformer.alpha": 4}"#,
            0.5,
        ),
        ("c", &WHOLE, r#"{"peft_type": "LOKR", "r": 8, "alpha": 4, "rank_pattern": {"to_q": 2}}"#, 2.0),
        (
            "d",
            &WHOLE,
            r#"{"peft_type": "LOKR", "r": 8, "alpha": 4, "alpha_pattern": {"attn.to_q": 2}}"#,
            0.25,
        ),
        ("e", &SECOND_IN_TWO, r#"{"peft_type": "LOKR", "r": 8, "alpha": 4}"#, 2.0),
        ("f", &WHOLE, r#"{"peft_type": "LOKR"}"#, 1.0),
        ("g", &WHOLE, r#"{"peft_type": "LOKR", "r": 0, "alpha": 4}"#, 1.0),
        ("h", &SECOND_IN_TWO, r#"{"r": 8, "lora_alpha": 4}"#, 2.0),
    ] {
        let file = made(test, parts, None, &[("lora_adapter_metadata", notes)]);
        let factor = path(&file, [12, 10]).unwrap().factor;
        assert!((factor - 0.5 * want).abs() < 1e-6, "{notes}: {factor}");
    }
    let regex = r#"{"peft_type": "LOKR", "r": 8, "alpha": 4, "rank_pattern": {"to_.*": 2}}"#;
    let file = made("regex", &WHOLE, None, &[("lora_adapter_metadata", regex)]);
    assert!(matches!(file.problem(), LoraProblem::Metadata { .. }));
}

#[test]
fn fault_24_matrices_that_are_none() {
    let problem = |test: &str, parts: &[Stored]| made(test, parts, None, &[]).problem();
    let shapes: [&[Stored]; 7] = [
        &[("lokr_w1", &[2]), ("lokr_w2", &[5, 4])],
        &[("lokr_w1", &[2, 0]), ("lokr_w2", &[5, 4])],
        &[("lokr_w1", &[2, 3]), ("lokr_w2", &[5, 4, 1, 1])],
        &[("lokr_w1", &[2, 3]), ("lokr_w2_a", &[5, 2]), ("lokr_w2_b", &[3, 4])],
        &[("lokr_w1", &[2, 3]), ("lokr_w2_a", &[5, 0]), ("lokr_w2_b", &[0, 4])],
        &[("lokr_w1_a", &[2, 1]), ("lokr_w1_b", &[2, 3]), ("lokr_w2", &[5, 4])],
        &[("lokr_w1", &[2, 3]), ("lokr_w2_a", &[1, 3073]), ("lokr_w2_b", &[3073, 1])],
    ];
    for parts in shapes {
        let problem = problem("shapes", parts);
        assert!(matches!(problem, LoraProblem::Kronecker { .. }), "{parts:?}: {problem}");
    }
    let halves: [(&str, &[Stored]); 4] = [
        ("lokr_w2", &WHOLE[..1]),
        ("lokr_w1", &WHOLE[1..]),
        ("lokr_w2_b", &SECOND_IN_TWO[..2]),
        ("lokr_w1_a", &FIRST_IN_TWO[1..]),
    ];
    for (want, parts) in halves {
        let problem = problem("half", parts);
        assert!(matches!(problem, LoraProblem::Half { missing, .. } if missing == want), "{problem}");
    }
    for more in [("lokr_w1_a", &[2usize, 1][..]), ("lora_A.weight", &[2, 12])] {
        let problem = problem("twice", &[WHOLE[0], WHOLE[1], more]);
        assert!(matches!(problem, LoraProblem::Twice { .. }), "{problem}");
    }
}

#[test]
fn fault_24_numbers_that_cannot_be_used() {
    for alpha in [0.0, f32::NAN, f32::INFINITY, -1e9] {
        let problem = made("alpha", &SECOND_IN_TWO, Some(alpha), &[]).problem();
        assert!(matches!(problem, LoraProblem::Alpha { .. }), "{alpha}: {problem}");
    }
    let problem = made("nan", &WHOLE, Some(f32::NAN), &[]).problem();
    assert!(matches!(problem, LoraProblem::Alpha { .. }), "{problem}");
    let names = WHOLE.map(|(end, _)| format!("{LAYER}.{end}"));
    let tensors: Vec<(&str, &[usize], f32)> =
        names.iter().zip([1.0, f32::NAN]).map(|(name, v)| (name.as_str(), &[2usize, 2][..], v)).collect();
    let problem = Made::new("lokr_nan", &tensors, &[]).problem();
    assert_eq!(problem, LoraProblem::NotFinite { tensor: format!("{LAYER}.lokr_w2") });
}

/// A small header may promise a product of any size: none is made of it.
#[test]
fn fault_24_products_that_are_not_the_weights() {
    let refused = |test: &str, parts: &[Stored], size| {
        let Error::Lora { problem, .. } = path(&made(test, parts, None, &[]), size).unwrap_err() else {
            panic!("another error")
        };
        *problem
    };
    let misfit = refused("misfit", &WHOLE, [12, 11]);
    let LoraProblem::Misfit { have: [10, 12], want: [11, 12], .. } = misfit else { panic!("{misfit}") };
    let tall: [Stored; 4] = [
        ("lokr_w1_a", &[3000, 1]),
        ("lokr_w1_b", &[1, 3000]),
        ("lokr_w2_a", &[3000, 1]),
        ("lokr_w2_b", &[1, 3000]),
    ];
    let misfit = refused("tall", &tall, [12, 10]);
    assert!(matches!(misfit, LoraProblem::Misfit { have: [9_000_000, 9_000_000], .. }), "{misfit}");
    // As large as the weight, but a row of 40 inputs would become 40 x 40 columns.
    let wide = refused("wide", &[("lokr_w1", &[40, 1]), ("lokr_w2", &[1, 40])], [40, 40]);
    assert!(matches!(wide, LoraProblem::Wide { columns: 1600, .. }), "{wide}");
    // A first matrix that is only a little larger stays below.
    path(&made("unbalanced", &[("lokr_w1", &[5, 3]), ("lokr_w2", &[2, 4])], None, &[]), [12, 10]).unwrap();
}

#[test]
fn a_summary_tells_what_is_in_a_file() {
    let summary = made("summary", &BOTH_IN_TWO, Some(3.0), &[]).open().unwrap().summary().unwrap();
    assert_eq!(
        (summary.layers, summary.dialect.as_str(), summary.family),
        (1, "diffusers", Some("Qwen-Image"))
    );
    assert_eq!(summary.adapters, BTreeMap::from([("LoKr", 1)]));
    assert_eq!(summary.blocks, BTreeMap::from([("2x3 of 5x4".to_owned(), 1)]));
    assert_eq!((summary.ranks, summary.alphas.len()), (BTreeMap::from([(2, 1)]), 1));
    let summary = made("summary", &WHOLE, Some(1e10), &[]).open().unwrap().summary().unwrap();
    assert!(summary.ranks.is_empty() && summary.alphas.is_empty(), "neither has an effect");
    let lora = with("adapters", &[]).open().unwrap().summary().unwrap();
    assert_eq!((lora.adapters, lora.blocks.len()), (BTreeMap::from([("LoRA", 1)]), 0));
}

#[test]
fn a_file_may_have_both_kinds() {
    let k = "transformer_blocks.0.attn.to_k";
    let names = [format!("{k}.lokr_w1"), format!("{k}.lokr_w2")];
    let file = with("both", &[(&names[0], &[2, 2], 0.5), (&names[1], &[3, 2], 0.5)]);
    let mut pending = Pending::from(Applied { lora: file.open().unwrap().into(), scale: 1.0 });
    assert!(matches!(pending.layer(LAYER, 4, 6).unwrap().delta, Delta::LowRank(_)));
    assert!(matches!(pending.layer(k, 4, 6).unwrap().delta, Delta::Kronecker(..)));
    pending.finish().unwrap();
}
