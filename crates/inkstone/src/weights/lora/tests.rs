mod lokr;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inkstone_tensor::{DType, Device, Shape, Tensor, cpu, ops};
use sha2::{Digest as _, Sha256};

use super::file::lightning_steps;
use super::keys::{self, Dialect, Part};
use super::{Applied, Lora, LoraSource, Pending, check};
use crate::error::LoraProblem;
use crate::weights::safetensors::serialize;
use crate::{Error, Result};

fn device() -> Device {
    Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap()
}

/// A file of these tensors: name, rows, columns (none for a scalar), the value of all elements.
struct Made(tempfile::File);

mod tempfile {
    use std::path::PathBuf;

    /// A file that is removed again.
    pub(super) struct File(pub(super) PathBuf);

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

impl Made {
    fn new(test: &str, tensors: &[(&str, &[usize], f32)], metadata: &[(&str, &str)]) -> Self {
        let device = device();
        let tensor = |dims: &[usize], value: f32| {
            let shape = Shape::new(dims).unwrap();
            Tensor::from_f32(&device, &vec![value; shape.count()], shape).unwrap()
        };
        let tensors = tensors.iter().map(|(name, dims, value)| ((*name).to_owned(), tensor(dims, *value)));
        Self::of(test, &serialize(&tensors.collect(), &notes(metadata)))
    }

    fn of(test: &str, bytes: &[u8]) -> Self {
        let path =
            std::env::temp_dir().join(format!("inkstone-lora-{}-{test}.safetensors", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(tempfile::File(path))
    }

    fn open(&self) -> Result<Lora> {
        Lora::open(&self.0.0, &device())
    }

    fn problem(&self) -> LoraProblem {
        match self.open().unwrap_err() {
            Error::Lora { problem, .. } => *problem,
            other => panic!("{other}"),
        }
    }
}

fn notes(metadata: &[(&str, &str)]) -> BTreeMap<String, String> {
    metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const LAYER: &str = "transformer_blocks.0.attn.to_q";
const ALPHA: &str = "transformer_blocks.0.attn.to_q.alpha";

/// A layer of rank 2 from 4 to 6 with one more tensor.
fn with(test: &str, more: &[(&str, &[usize], f32)]) -> Made {
    let (a, b) = (format!("{LAYER}.lora_A.weight"), format!("{LAYER}.lora_B.weight"));
    let mut tensors: Vec<(&str, &[usize], f32)> = vec![(&a, &[2, 4], 0.5), (&b, &[6, 2], 1.0)];
    tensors.extend(more);
    Made::new(test, &tensors, &[])
}

#[test]
fn names_of_all_dialects_are_read() {
    let cases = [
        ("transformer.a.b.lora_A.weight", Dialect::Diffusers, "a.b", Part::Down),
        ("transformer.a.b.lora.up.weight", Dialect::Diffusers, "a.b", Part::Up),
        ("diffusion_model.a.b.lora_B.weight", Dialect::DiffusionModel, "a.b", Part::Up),
        ("model.diffusion_model.a.lora_down.weight", Dialect::DiffusionModel, "a", Part::Down),
        ("lora_unet_a_b.lora_up.weight", Dialect::Kohya, "a_b", Part::Up),
        ("lora_unet_a_b.alpha", Dialect::Kohya, "a_b", Part::Alpha),
        ("base_model.model.a.b.lora_A.weight", Dialect::Peft, "a.b", Part::Down),
        ("a.b.lora_A.default.weight", Dialect::Plain, "a.b", Part::Down),
        ("transformer.a.lora_B", Dialect::Diffusers, "a", Part::Up),
        ("base_model.model.a.b.lora_B.my-style_2.weight", Dialect::Peft, "a.b", Part::Up),
        (
            "transformer_blocks.0.attn.to_out.0.lora_down.weight",
            Dialect::Plain,
            "transformer_blocks.0.attn.to_out.0",
            Part::Down,
        ),
    ];
    for (name, dialect, layer, part) in cases {
        assert_eq!(keys::parse(name), Some(keys::Key { dialect, layer, part }), "{name}");
    }
    for name in ["a.weight", "lora_A.weight", "transformer..lora_A.bias", ".alpha", "", "lora_unet_.alpha"] {
        assert_eq!(keys::parse(name), None, "{name:?}");
    }
}

#[test]
fn a_layer_gets_scale_times_alpha_over_rank() {
    let kohya = with("alpha", &[("transformer_blocks.0.attn.to_q.alpha", &[], 3.0)]);
    let plain = with("no_alpha", &[]);
    let adapter = r#"{"transformer.lora_alpha": 8, "transformer.r": 2, "transformer.use_dora": false}"#;
    let (a, b) = (format!("{LAYER}.lora_A.weight"), format!("{LAYER}.lora_B.weight"));
    let noted =
        Made::new("noted", &[(&a, &[2, 4], 0.5), (&b, &[6, 2], 1.0)], &[("lora_adapter_metadata", adapter)]);
    for (file, want) in [(kohya, 0.5 * 3.0 / 2.0), (plain, 0.5), (noted, 0.5 * 8.0 / 2.0)] {
        let mut pending = Pending::from(Applied { lora: file.open().unwrap().into(), scale: 0.5 });
        assert!(pending.layer("transformer_blocks.0.attn.to_k", 4, 6).is_none());
        let path = pending.layer(LAYER, 4, 6).unwrap();
        assert!((path.factor - want).abs() < 1e-6, "{} {want}", path.factor);
        let down = path.down.as_ref().unwrap();
        assert_eq!((down.n_in(), down.n_out(), path.up.n_in(), path.up.n_out()), (4, 2, 2, 6));
        assert!(path.left.is_empty() && path.groups() == 1);
        pending.finish().unwrap();
    }
}

#[test]
fn a_folder_of_peft_is_its_weights() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/lora/peft_lokr");
    let (whole, file) = (Lora::open(&folder, &device()), folder.join("adapter_model.safetensors"));
    assert_eq!(whole.unwrap().sha256(), Lora::open(&file, &device()).unwrap().sha256());
    let error = Lora::open(folder.parent().unwrap(), &device()).unwrap_err();
    assert_eq!(error.code(), "INK-0211");
    assert!(error.to_string().contains("pytorch_lora_weights.safetensors"), "{error}");
}

#[test]
fn what_a_file_of_qwen_image_has_too_much_is_told_as_that() {
    let unknown = with("encoder", &[("text_encoder.layers.0.diff_b", &[4], 1.0)]).open().unwrap_err();
    assert!(unknown.to_string().contains("text_encoder.layers.0.diff_b"), "{unknown}");
    assert!(unknown.cure().contains("linear layers of the transformer"), "{}", unknown.cure());
    let empty = Made::new("empty", &[], &[]).problem();
    assert_eq!(empty.to_string(), "it is no LoRA: it holds no tensors");
}

#[test]
fn fault_24_numbers_and_shapes_that_cannot_be_used() {
    for value in [0.0, f32::NAN, f32::INFINITY, -1e9] {
        let problem = with("alphas", &[(ALPHA, &[], value)]).problem();
        assert!(matches!(problem, LoraProblem::Alpha { .. }), "{value}: {problem}");
    }
    assert!(matches!(with("alpha_vector", &[(ALPHA, &[2], 1.0)]).problem(), LoraProblem::Alpha { .. }));
    let made = |test: &str, a: &[usize], b: &[usize], value| {
        Made::new(test, &[("x.lora_A.weight", a, value), ("x.lora_B.weight", b, 1.0)], &[]).problem()
    };
    assert!(matches!(made("ranks", &[2, 4], &[6, 3], 1.0), LoraProblem::Shapes { .. }));
    assert!(matches!(made("conv", &[2, 4, 1, 1], &[6, 2, 1, 1], 1.0), LoraProblem::Shapes { .. }));
    assert!(matches!(made("rank0", &[0, 4], &[6, 0], 1.0), LoraProblem::Shapes { .. }));
    assert!(matches!(made("nan", &[2, 4], &[6, 2], f32::NAN), LoraProblem::NotFinite { .. }));
    assert!(matches!(made("inf", &[2, 4], &[6, 2], f32::NEG_INFINITY), LoraProblem::NotFinite { .. }));
    let half = Made::new("half", &[("x.lora_A.weight", &[2, 4], 1.0)], &[]).problem();
    assert!(matches!(half, LoraProblem::Half { missing: "up (B)", .. }), "{half}");
    let twice = with("twice", &[("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", &[2, 4], 1.0)])
        .problem();
    assert!(matches!(twice, LoraProblem::Twice { .. }), "{twice}");
    let source = |scale| [LoraSource { path: "x.safetensors".into(), scale }];
    for scale in [f32::NAN, f32::INFINITY, 1e9, -10.5] {
        assert_eq!(check(&source(scale)).unwrap_err().code(), "INK-0201", "{scale}");
    }
    check(&source(-10.0)).unwrap();
}

#[test]
fn fault_24_types_that_are_no_floats() {
    let device = device();
    let tensor =
        |rows, cols| Tensor::from_f32(&device, &vec![1.0; rows * cols], Shape::matrix(rows, cols)).unwrap();
    let tensors = BTreeMap::from([
        ("x.lora_A.weight".to_owned(), ops::convert(&tensor(2, 4), DType::Bf16).unwrap()),
        ("x.lora_B.weight".to_owned(), tensor(6, 2)),
    ]);
    let bytes = serialize(&tensors, &BTreeMap::new());
    // The same bytes under another type of the same size.
    let at = bytes.windows(6).position(|part| part == b"\"BF16\"").unwrap();
    let mut wrong = bytes.clone();
    wrong[at..at + 6].copy_from_slice(b"\"I16\" ");
    let problem = Made::of("int", &wrong).problem();
    assert!(matches!(problem, LoraProblem::Type { .. }), "{problem}");
}

#[test]
fn fault_25_files_of_something_else() {
    let lora = |test: &str, layer: &str| {
        let (a, b) = (format!("{layer}.lora_A.weight"), format!("{layer}.lora_B.weight"));
        let file = Made::new(test, &[(&a, &[2, 4], 0.5), (&b, &[6, 2], 1.0)], &[]);
        let pending = Pending::from(Applied { lora: file.open().unwrap().into(), scale: 1.0 });
        pending.finish().unwrap_err().to_string()
    };
    let flux = lora("flux", "transformer.single_transformer_blocks.3.attn.to_q");
    assert!(flux.ends_with("0 of its 1 layers match this model; it looks like a LoRA of FLUX.1"), "{flux}");
    let flux = lora("bfl1", "lora_unet_double_blocks_8_img_attn_qkv");
    assert!(flux.ends_with("it looks like a LoRA of FLUX.1"), "{flux}");
    let flux = lora("bfl_mod", "diffusion_model.double_blocks.0.img_mod.lin");
    assert!(flux.ends_with("it looks like a LoRA of FLUX.1"), "{flux}");
    let sdxl = lora("sdxl", "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k");
    assert!(sdxl.contains("Stable Diffusion"), "{sdxl}");
    let kinds: [(&str, &[&str], &str); 5] = [
        ("lokr", &["x.lokr_w1", "x.lokr_w2_a", "x.lokr_w2_b", "x.lokr_t2"], "a LoKr of convolutions"),
        ("lokr_dora", &["x.lokr_w1", "x.lokr_w2", "x.dora_scale"], "a DoRA"),
        ("loha", &["lora_unet_x.hada_w1_a"], "a LoHa"),
        ("dora", &["x.lora_A.weight", "x.lora_B.weight", "x.dora_scale"], "a DoRA"),
        ("dora2", &["x.lora_A.weight", "x.lora_magnitude_vector"], "a DoRA"),
    ];
    for (test, names, want) in kinds {
        let tensors: Vec<(&str, &[usize], f32)> =
            names.iter().map(|name| (*name, &[2usize, 2][..], 1.0)).collect();
        let problem = Made::new(test, &tensors, &[]).problem();
        assert!(matches!(problem, LoraProblem::OtherKind { kind, .. } if kind == want), "{problem}");
    }
    let whole = Made::new("whole", &[("transformer_blocks.0.txt_mod.1.weight", &[2, 2], 1.0)], &[]).problem();
    assert_eq!(whole, LoraProblem::NoLora { holds: "the transformer of Qwen-Image" });
}

/// In the names of its makers, in those of diffusers, and in both as one word: from trainers of LoRAs and of LoKrs.
#[test]
fn fault_25_files_for_flux_2_are_told() {
    let names: [&[&str]; 5] = [
        &["diffusion_model.double_blocks.0.img_attn.qkv", "diffusion_model.single_blocks.0.linear1"],
        &["lora_unet_double_blocks_7_txt_mlp_0", "lora_unet_single_blocks_47_linear2"],
        &["transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"],
        &["lycoris_single_transformer_blocks_3_attn_to_qkv_mlp_proj"],
        // Layers that Qwen-Image has too, of its size.
        &["transformer.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.ff.linear_in"],
    ];
    for (i, layers) in names.iter().enumerate() {
        for ends in [[".lora_A.weight", ".lora_B.weight"], [".lokr_w1", ".lokr_w2"]] {
            let names: Vec<String> =
                layers.iter().flat_map(|layer| ends.map(|end| format!("{layer}{end}"))).collect();
            let tensors: Vec<(&str, &[usize], f32)> =
                names.iter().map(|name| (name.as_str(), &[2usize, 2][..], 0.5)).collect();
            let file = Made::new(&format!("flux2_{i}"), &tensors, &[]);
            let side = if ends[0].contains("lokr") { 4 } else { 2 };
            for side in [side, 8] {
                let mut pending = Pending::from(Applied { lora: file.open().unwrap().into(), scale: 1.0 });
                let taken = pending.layer(LAYER, side, side);
                assert_eq!(taken.is_some(), i == 4 && side < 8, "{names:?} {side}");
                let error = pending.finish().unwrap_err();
                assert!(error.code() == "INK-0211" && error.to_string().contains("FLUX.2"), "{error}");
            }
            assert_eq!(file.open().unwrap().summary().family, Some("FLUX.2"));
        }
    }
}

#[test]
fn fault_25_a_part_that_does_not_match_is_listed() {
    let unknown = with("diff", &[("transformer_blocks.0.attn.to_q.diff_b", &[6], 1.0)]).problem();
    let LoraProblem::LeftOver { count: 1, total: 3, first, .. } = unknown else { panic!("{unknown}") };
    assert_eq!(first, ["transformer_blocks.0.attn.to_q.diff_b"]);
    let file = with("part", &[("te.x.lora_A.weight", &[1, 4], 1.0), ("te.x.lora_B.weight", &[4, 1], 1.0)]);
    let mut pending = Pending::from(Applied { lora: file.open().unwrap().into(), scale: 1.0 });
    assert!(pending.layer(LAYER, 4, 6).is_some());
    let Error::Lora { problem, .. } = pending.finish().unwrap_err() else { panic!("another error") };
    let LoraProblem::LeftOver { count: 1, total: 2, first, .. } = *problem else { panic!("{problem}") };
    assert_eq!(first, ["te.x"]);
    let mut pending = Pending::from(Applied { lora: with("misfit", &[]).open().unwrap().into(), scale: 1.0 });
    assert!(pending.layer(LAYER, 8, 6).is_none());
    let misfit = pending.finish().unwrap_err().to_string();
    assert!(misfit.ends_with("is for a weight of [6, 4], this model's has [6, 8]"), "{misfit}");
}

#[test]
fn fault_26_too_many() {
    let one = LoraSource { path: PathBuf::from("x.safetensors"), scale: 1.0 };
    check(&vec![one.clone(); 8]).unwrap();
    assert_eq!(check(&vec![one; 1000]).unwrap_err().code(), "INK-0201");
}

/// Two layers of rank 4 with this metadata, and their factors.
fn factors(test: &str, adapter: &str) -> Result<[f32; 2]> {
    let layers = ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"];
    let names = layers.map(|layer| ["A", "B"].map(|part| format!("transformer.{layer}.lora_{part}.weight")));
    let tensors: Vec<(&str, &[usize], f32)> = names
        .iter()
        .flat_map(|[a, b]| [(a.as_str(), &[4usize, 8][..], 1.0), (b.as_str(), &[6, 4], 1.0)])
        .collect();
    let file = Made::new(test, &tensors, &[("lora_adapter_metadata", adapter)]);
    let mut pending = Pending::from(Applied { lora: file.open()?.into(), scale: 1.0 });
    Ok(layers.map(|layer| pending.layer(layer, 8, 6).unwrap().factor))
}

/// `LoraConfig` of peft: alpha of the first pattern that a name ends with, over the rank or its root.
#[test]
fn adapter_metadata_gives_layers_alphas_of_their_own() {
    for (adapter, want) in [
        (r#"{"r": 4, "lora_alpha": 8}"#, [2.0, 2.0]),
        (r#"{"r": 4, "lora_alpha": 8, "use_rslora": true}"#, [4.0, 4.0]),
        (r#"{"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}"#, [0.5, 2.0]),
        (r#"{"transformer.alpha_pattern": {"transformer_blocks.0.attn.to_k": 6}}"#, [1.0, 1.5]),
        (
            r#"{"lora_alpha": 8, "alpha_pattern": {"to_q": 2, "attn.to_k": 1}, "use_rslora": true}"#,
            [1.0, 0.5],
        ),
        // No end of a name; parts of names do not count.
        (r#"{"lora_alpha": 8, "alpha_pattern": {"q": 2, "attn": 1, "o_k": 3}}"#, [2.0, 2.0]),
        // The tensors say the ranks.
        (r#"{"r": 16, "lora_alpha": 8, "rank_pattern": {"to_q": 4, "to_k": 4}}"#, [2.0, 2.0]),
        (r#"{"lora_alpha": 8, "use_dora": false, "use_rslora": false, "alpha_pattern": null}"#, [2.0, 2.0]),
    ] {
        assert_eq!(factors("patterns", adapter).unwrap(), want, "{adapter}");
    }
}

#[test]
fn alphas_are_read_from_pefts_own_file() {
    let folder = std::env::temp_dir().join(format!("inkstone-lora-{}-peft", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = with("peft", &[]);
    let weights = folder.join("adapter_model.safetensors");
    std::fs::copy(&made.0.0, &weights).unwrap();
    let factor = || {
        let lora = Lora::open(&weights, &device())?.into();
        Ok::<_, Error>(Pending::from(Applied { lora, scale: 1.0 }).layer(LAYER, 4, 6).unwrap().factor)
    };
    assert_eq!(factor().unwrap(), 1.0, "without it alpha is the rank");
    let config = folder.join("adapter_config.json");
    std::fs::write(&config, r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 16}"#).unwrap();
    assert_eq!(factor().unwrap(), 8.0);
    for (text, code) in [(r#"{"use_dora": true}"#, "INK-0211"), ("{", "INK-0310")] {
        std::fs::write(&config, text).unwrap();
        assert_eq!(factor().unwrap_err().code(), code, "{text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn adapter_metadata_that_cannot_be_followed_is_refused() {
    for adapter in [
        "{",
        r#"{"transformer.use_dora": true}"#,
        r#"{"use_dora": 1}"#,
        r#"{"use_rslora": true}"#,
        r#"{"transformer.alpha_pattern": {"to_q": "4"}}"#,
        r#"{"alpha_pattern": {"to_.*": 4}}"#,
        r#"{"alpha_pattern": {"to_q": 4, "attn.to_q": 5}}"#,
    ] {
        match factors("metadata", adapter) {
            Err(Error::Lora { problem, .. }) => {
                assert!(matches!(*problem, LoraProblem::Metadata { .. }), "{adapter}: {problem}");
            }
            other => panic!("{adapter}: {other:?}"),
        }
    }
    let zero = factors("metadata", r#"{"lora_alpha": 8, "alpha_pattern": {"to_q": 0}}"#).unwrap_err();
    assert!(zero.to_string().contains("alpha of transformer_blocks.0.attn.to_q is 0"), "{zero}");
}

#[test]
fn lightning_is_told_by_its_name() {
    for (name, steps) in [
        ("Qwen-Image-Lightning-4steps-V1.0.safetensors", Some(4)),
        ("Qwen-Image-Lightning-8steps-V1.1-bf16.safetensors", Some(8)),
        ("qwen_image_lightning_8_steps.safetensors", Some(8)),
        ("Qwen-Image-Edit-Lightning-4-step.safetensors", Some(4)),
        ("Qwen-Image-Lightning.safetensors", None),
        ("lightning-steps.safetensors", None),
        ("my-1000steps.safetensors", None),
        ("lightning-99999999999999999999steps", None),
    ] {
        assert_eq!(lightning_steps(name), steps, "{name}");
    }
}

#[test]
fn fault_27_a_file_that_is_removed_or_written_to_after_it_was_opened() {
    let file = with("removed", &[]);
    let path = file.0.0.clone();
    let (bytes, lora) = (std::fs::read(&path).unwrap(), file.open().unwrap());
    std::fs::remove_file(&path).unwrap();
    let want = format!("{:x}", Sha256::digest(&bytes));
    assert_eq!(lora.sha256(), want, "of the file that was opened");

    let (file, another) = (with("replaced", &[]), with("another", &[(ALPHA, &[], 3.0)]));
    let lora = file.open().unwrap();
    std::fs::rename(&another.0.0, &file.0.0).unwrap();
    assert_eq!(lora.sha256(), want, "of the file that was opened, not of the one with its name");

    let file = with("written", &[]);
    let lora = file.open().unwrap();
    std::fs::File::options().write(true).open(&file.0.0).unwrap().set_len(100).unwrap();
    assert_eq!(lora.sha256(), want, "of what was read");
    assert_eq!(lora.summary().bytes, bytes.len() as u64);
}

#[test]
fn a_summary_tells_what_is_in_a_file() {
    let file = with("summary", &[("transformer_blocks.0.attn.to_q.alpha", &[], 3.0)]);
    let summary = file.open().unwrap().summary();
    assert_eq!((summary.layers, summary.dialect.as_str(), summary.family), (1, "plain", Some("Qwen-Image")));
    assert_eq!(summary.ranks, BTreeMap::from([(2, 1)]));
    assert_eq!(summary.alphas, BTreeMap::from([("3".to_owned(), 1)]));
    assert_eq!(summary.kinds, BTreeMap::from([("attn.to_q".to_owned(), 1)]));
    assert_eq!(summary.sha256.len(), 64);
}
