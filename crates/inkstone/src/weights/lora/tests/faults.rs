//! What is refused, and files that change while they are used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use inkstone_tensor::{DType, Shape, Tensor, ops};
use sha2::{Digest as _, Sha256};

use super::{ALPHA, LAYER, Made, device, with};
use crate::Error;
use crate::error::LoraProblem;
use crate::weights::lora::{Applied, LoraSource, Pending, check};
use crate::weights::safetensors::serialize;

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
    // Names that are nearly those of Qwen-Image or of FLUX.
    for (test, layer, family) in [
        (
            "unet",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
            "Stable Diffusion, a UNet",
        ),
        (
            "unet_mid",
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
            "Stable Diffusion, a UNet",
        ),
        ("cogvideo", "transformer.transformer_blocks.1.attn1.to_q", "CogVideoX"),
        ("hunyuan", "diffusion_model.double_blocks.0.img_attn_qkv", "HunyuanVideo"),
        ("hunyuan_mod", "lora_unet_double_blocks_0_img_mod_linear", "HunyuanVideo"),
        ("larger", "transformer.transformer_blocks.60.attn.to_q", "another model"),
    ] {
        let other = lora(test, layer);
        assert!(other.ends_with(&format!("it looks like a LoRA of {family}")), "{other}");
    }
    let kinds: [(&str, &[&str], &str); 11] = [
        ("lokr", &["x.lokr_w1", "x.lokr_w2_a", "x.lokr_w2_b", "x.lokr_t2"], "a LoKr of convolutions"),
        ("lokr_dora", &["x.lokr_w1", "x.lokr_w2", "x.dora_scale"], "a DoRA"),
        ("loha", &["lora_unet_x.hada_w1_a", "lora_unet_x.hada_t1"], "a LoHa of convolutions"),
        ("peft_loha", &["x.hada_w1_a.default", "x.hada_t2.default"], "a LoHa of convolutions"),
        (
            "locon",
            &["lora_unet_x.lora_down.weight", "lora_unet_x.lora_mid.weight"],
            "a LoCon of convolutions",
        ),
        ("kohya_dora", &["lora_unet_x.lora_down.weight", "lora_unet_x.dora_scale"], "a DoRA"),
        ("oft", &["x.oft_blocks", "x.alpha"], "an OFT"),
        ("norms", &["diffusion_model.x.w_norm"], "a LoRA with weights in place of the norms' (w_norm)"),
        (
            "set",
            &["diffusion_model.x.set_weight"],
            "a LoRA with weights in place of the model's (set_weight)",
        ),
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
            assert_eq!(file.open().unwrap().summary().unwrap().family, Some("FLUX.2"));
        }
    }
}

#[test]
fn fault_25_a_part_that_does_not_match_is_listed() {
    let unknown = with("bias", &[("transformer_blocks.0.attn.to_q.lora_B.bias", &[6], 1.0)]).problem();
    let LoraProblem::LeftOver { count: 1, total: 3, first, .. } = unknown else { panic!("{unknown}") };
    assert_eq!(first, ["transformer_blocks.0.attn.to_q.lora_B.bias"]);
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

#[test]
fn fault_27_a_file_that_is_removed_or_written_to_after_it_was_opened() {
    let file = with("removed", &[]);
    let path = file.0.to_path_buf();
    let (bytes, lora) = (std::fs::read(&path).unwrap(), file.open().unwrap());
    std::fs::remove_file(&path).unwrap();
    let want = format!("{:x}", Sha256::digest(&bytes));
    assert_eq!(lora.sha256().unwrap(), want, "of the file that was opened");

    let (file, another) = (with("replaced", &[]), with("another", &[(ALPHA, &[], 3.0)]));
    let lora = file.open().unwrap();
    std::fs::rename(&another.0, &file.0).unwrap();
    assert_eq!(lora.sha256().unwrap(), want, "of the file that was opened, not of the one with its name");

    let file = with("written", &[]);
    let lora = file.open().unwrap();
    std::fs::File::options().write(true).open(&file.0).unwrap().set_len(100).unwrap();
    assert_eq!(lora.sha256().unwrap(), want, "of what was read");
    assert_eq!(lora.summary().unwrap().bytes, bytes.len() as u64);
}

#[test]
fn what_a_file_of_qwen_image_has_too_much_is_told_as_that() {
    let unknown = with("encoder", &[("text_encoder.layers.0.bias", &[4], 1.0)]).open().unwrap_err();
    assert!(unknown.to_string().contains("text_encoder.layers.0.bias"), "{unknown}");
    assert!(unknown.cure().contains("linear layers of the transformer"), "{}", unknown.cure());
    let norms = with("norms", &[("transformer_blocks.0.attn.norm_q.w_norm", &[6], 1.0)]).open().unwrap_err();
    assert!(norms.to_string().contains("a LoRA with weights in place of the norms' (w_norm)"), "{norms}");
    assert!(norms.cure().contains("linear layers of the transformer"), "{}", norms.cure());
    let empty = Made::new("empty", &[], &[]).problem();
    assert_eq!(empty.to_string(), "it is no LoRA: it holds no tensors");
}
