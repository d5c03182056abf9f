//! A step of the transformer with a LoRA, LoKr or LoHa in each dialect, against diffusers and PEFT (or, where neither reads the
//! dialect, a merge: the fixture's `about` says which).

use std::path::Path;
use std::sync::Arc;

use inkstone::models::qwen_image::{Config, Inputs, Prompts, Transformer};
use inkstone::nn::rope::Grid;
use inkstone::progress::Context;
use inkstone::weights::lora::{Applied, Lora};
use inkstone_tensor::{DType, Device, Shape, Tensor};

use crate::taps::{self, F32_TOLERANCE, Fixture, bf16_bound};

const DIALECTS: [&str; 6] =
    ["diffusers", "up_down", "up_down_no_alpha", "diffusion_model", "kohya", "default"];
const LOKRS: [&str; 5] = ["lokr_whole", "lokr_lycoris", "lokr_kohya", "lokr_diffusers", "peft_lokr"];
const LOHAS: [&str; 4] = ["loha_lycoris", "loha_kohya", "loha_dots", "peft_loha"];
/// LoRAs in the fixture of LoHas: another dialect, other types of numbers, and whole differences of norms, biases and weights.
const MORE: [&str; 3] = ["lora_dots", "lora_float8", "lora_diff"];
/// What the fixtures were made with.
const SCALE: f32 = 0.8;

fn lora(device: &Device, dialect: &str, scale: f32) -> Applied {
    let name = match dialect {
        "peft_lokr" | "peft_loha" => format!("{dialect}/adapter_model.safetensors"),
        _ => format!("qwen_{dialect}.safetensors"),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/lora").join(name);
    Applied { lora: Arc::new(Lora::open(&path, device).unwrap()), scale }
}

fn step(activations: DType, loras: &[(&str, f32)], fixture: &Fixture) -> Vec<f32> {
    let device = taps::device(2);
    let config = Config::from_json(&taps::text("qwen_tiny/transformer/config.json")).unwrap();
    let weights = "qwen_tiny/transformer/diffusion_pytorch_model.safetensors";
    let loras: Vec<Applied> = loras.iter().map(|(dialect, scale)| lora(&device, dialect, *scale)).collect();
    let mut loader = taps::loader(weights, &device, activations).with_loras(&loras);
    let model = Transformer::load(&config, &mut loader).unwrap();
    loader.finish().unwrap();
    let matrix = |name: &str| {
        let dims = fixture.dims(name);
        Tensor::from_f32(&device, &fixture.values(name), Shape::matrix(dims[1], dims[2])).unwrap()
    };
    let (latents, embeddings) = (matrix("hidden_states"), matrix("encoder_hidden_states"));
    let grid = fixture.about("grid");
    let side = |i: usize| usize::try_from(grid[i].as_u64().unwrap()).unwrap();
    let grid = Grid { height: side(0), width: side(1) };
    let ctx = Context::default();
    let lengths = [embeddings.rows()];
    let prompts = Prompts { embeddings: &embeddings, lengths: &lengths };
    let conditioning = model.condition(&prompts, &[grid], &ctx).unwrap();
    let modulations = model.modulations(&fixture.values("timestep"), &ctx).unwrap();
    let inputs =
        Inputs { latents: &latents, conditioning: &conditioning, modulations: &modulations, step: 0 };
    model.forward(&inputs, &ctx).unwrap().to_f32().unwrap()
}

fn error(got: &[f32], fixture: &Fixture, name: &str) -> f32 {
    taps::difference(got, &fixture.values(name)).unwrap().relative
}

/// The fixtures, and the files that each is about.
fn fixtures() -> impl Iterator<Item = (Fixture, &'static str)> {
    let of = |name: &'static str, files: &'static [&str]| {
        files.iter().map(move |file| (Fixture::open(name), *file))
    };
    let of_lohas = of("loha_qwen", &LOHAS).chain(of("loha_qwen", &MORE));
    of("lora_qwen", &DIALECTS).chain(of("lokr_qwen", &LOKRS)).chain(of_lohas)
}

#[test]
fn every_dialect_f32() {
    for (fixture, dialect) in fixtures() {
        let none = error(&step(DType::F32, &[], &fixture), &fixture, "output.none");
        assert!(none <= F32_TOLERANCE, "without a LoRA: {none}");
        let got = step(DType::F32, &[(dialect, SCALE)], &fixture);
        let off = error(&got, &fixture, &format!("output.{dialect}"));
        println!("{dialect}: {off:.2e}");
        assert!(off <= F32_TOLERANCE, "{dialect}: {off}");
        // It has an effect that is far beyond the tolerance.
        assert!(error(&got, &fixture, "output.none") > 100.0 * F32_TOLERANCE, "{dialect}");
    }
}

/// About as many roundings as the transformer's own test has, and two more in each of its layers; three where both
/// matrices of a LoKr are products.
#[test]
fn every_dialect_bf16() {
    for (fixture, dialect) in fixtures() {
        let off =
            error(&step(DType::Bf16, &[(dialect, SCALE)], &fixture), &fixture, &format!("output.{dialect}"));
        println!("{dialect}: {off:.2e}");
        assert!(off <= bf16_bound(60), "{dialect}: {off}");
    }
}

/// All files have the same factors, and kohya's count half: so sums of them are known.
#[test]
fn several_loras_add_up() {
    let fixture = Fixture::open("lora_qwen");
    let whole = step(DType::F32, &[("diffusers", 0.3), ("kohya", 0.6), ("default", 0.2)], &fixture);
    let off = error(&whole, &fixture, "output.diffusers");
    assert!(off <= F32_TOLERANCE, "0.3 + 0.6 / 2 + 0.2: {off}");
    let twice = step(DType::F32, &[("diffusers", 0.4), ("diffusers", 0.4)], &fixture);
    assert!(error(&twice, &fixture, "output.diffusers") <= F32_TOLERANCE, "the same file twice");
    let nothing = step(DType::F32, &[("diffusers", 1.5), ("diffusers", -1.5)], &fixture);
    assert!(error(&nothing, &fixture, "output.none") <= F32_TOLERANCE, "one against itself");
    assert!(error(&step(DType::F32, &[("kohya", 0.0)], &fixture), &fixture, "output.none") <= F32_TOLERANCE);
}

#[test]
fn lokrs_and_lohas_add_up_with_each_other_and_with_loras() {
    let of =
        |name, files: &'static [&'static str]| files.iter().map(move |file| (Fixture::open(name), *file));
    let all = of("lokr_qwen", &LOKRS).chain(of("loha_qwen", &LOHAS)).chain(of("loha_qwen", &MORE));
    for (fixture, file) in all {
        let parts = [(file, 0.5), ("diffusers", 0.7), (file, 0.3), ("diffusers", -0.7)];
        let off = error(&step(DType::F32, &parts, &fixture), &fixture, &format!("output.{file}"));
        assert!(off <= F32_TOLERANCE, "{file}: {off}");
        let nothing = step(DType::F32, &[(file, 1.5), ("kohya", 0.0), (file, -1.5)], &fixture);
        assert!(error(&nothing, &fixture, "output.none") <= F32_TOLERANCE, "{file} against itself");
    }
}
