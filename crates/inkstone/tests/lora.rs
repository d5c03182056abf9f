//! LoRAs in the weights of a converted model and beside weights of every format, against sums in f64.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here, in functions beside the tests too")]

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "support/drawing.rs"]
mod drawing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inkstone::convert::{Existing, Options, Report, convert};
use inkstone::nn::linear::Linear;
use inkstone::progress::{CancelToken, Silent};
use inkstone::weights::lora::{Applied, Lora, LoraSource};
use inkstone::weights::{
    Component, Loader, ModelFiles, ModelSource, Parts, Quantization, ReadOptions, Residence, SafeTensors,
};
use inkstone::{Error, OpenOptions, Pipeline, Precision, Result};
use inkstone_tensor::{DType, Device, Shape, Tensor, cpu};

use drawing::{draw_at, psnr_db};

const DIT: &str = "transformer/diffusion_pytorch_model.safetensors";
const LAYER: &str = "transformer_blocks.0.attn.to_q";
/// Inputs and outputs of the layer.
const WIDTH: usize = 64;
const SCALE: f32 = 0.8;
/// Unit roundoff of f32 and of bf16.
const F32: f64 = 1.0 / (1u64 << 24) as f64;
const BF16: f64 = 1.0 / 256.0;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

fn device() -> Device {
    Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap()
}

/// A folder that is removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkstone-merge-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn source(name: &str, scale: f32) -> LoraSource {
    LoraSource { path: golden("lora").join(name), scale }
}

fn converted(
    from: &Path,
    to: &Path,
    quantization: Option<Quantization>,
    loras: &[LoraSource],
) -> Result<Report> {
    let options = Options {
        quantization,
        loras: loras.to_vec(),
        existing: Existing::Refuse,
        threads: Some(1),
        max_memory_bytes: None,
    };
    convert(&ModelSource::Folder(from.to_owned()), to, &options, &CancelToken::default(), &mut Silent)
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    SafeTensors::open(path, &device(), Residence::Owned).unwrap().tensors
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f32().unwrap().iter().map(|v| f64::from(*v)).collect()
}

/// A matrix of rows.
type Matrix = (usize, Vec<f64>);

fn matrix(tensor: &Tensor) -> Matrix {
    (tensor.cols(), values(tensor))
}

fn matmul((inner, a): &Matrix, (cols, b): &Matrix) -> Matrix {
    let one = |at: usize| (0..*inner).map(|k| a[at / cols * inner + k] * b[k * cols + at % cols]).sum();
    (*cols, (0..a.len() / inner * cols).map(one).collect())
}

fn kronecker((across, a): &Matrix, (wide, b): &Matrix) -> Matrix {
    let (cols, high) = (across * wide, b.len() / wide);
    let one = |at: usize| {
        let (r, c) = (at / cols, at % cols);
        a[r / high * across + c / wide] * b[r % high * wide + c % wide]
    };
    (cols, (0..a.len() * b.len()).map(one).collect())
}

/// What a file adds to a layer at a scale of 1, and the same of the magnitudes of its numbers, `[n_out, n_in]`.
fn delta(lora: &BTreeMap<String, Tensor>, layer: &str) -> Option<[Vec<f64>; 2]> {
    let flat = layer.replace('.', "_");
    let part = |end: &str| {
        let names = [format!("transformer.{layer}"), format!("lora_unet_{flat}"), format!("lycoris_{flat}")];
        names.iter().find_map(|name| lora.get(&format!("{name}.{end}")))
    };
    let alpha = part("alpha").map(|alpha| match alpha.dtype() {
        DType::I64 => f64::from(alpha.bytes()[0]),
        _ => values(alpha)[0],
    });
    let all = |value: fn(f64) -> f64| {
        let stored = |end: &str| {
            part(end).map(|tensor| {
                let (cols, values) = matrix(tensor);
                (cols, values.into_iter().map(value).collect::<Vec<f64>>())
            })
        };
        if let (Some(a), Some(b)) = (stored("lora_A.weight"), stored("lora_B.weight")) {
            return Some(matmul(&b, &a).1);
        }
        if let (Some(down), Some(up)) = (stored("lora_down.weight"), stored("lora_up.weight")) {
            let factor = alpha.unwrap() / up.0 as f64;
            return Some(matmul(&up, &down).1.iter().map(|v| v * factor).collect());
        }
        if let (Some(a), Some(b)) = (stored("hada_w1_a"), stored("hada_w1_b")) {
            let factor = alpha.map_or(1.0, |alpha| alpha / a.0 as f64);
            let (_, second) = matmul(&stored("hada_w2_a")?, &stored("hada_w2_b")?);
            let (_, first) = matmul(&a, &b);
            return Some(first.iter().zip(second).map(|(a, b)| a * b * factor).collect());
        }
        let w1 = stored("lokr_w1").or_else(|| Some(matmul(&stored("lokr_w1_a")?, &stored("lokr_w1_b")?)))?;
        let a = stored("lokr_w2_a")?;
        let factor = alpha.map_or(1.0, |alpha| alpha / a.0 as f64);
        let (_, product) = kronecker(&w1, &matmul(&a, &stored("lokr_w2_b")?));
        Some(product.iter().map(|v| v * factor).collect())
    };
    Some([all(|v| v)?, all(f64::abs)?])
}

/// Each merged value is `W + scale B A`, `W + scale kron(W1, W2)` or `W + scale W1 * W2`, in f64, but for the sums in f32 and one
/// rounding to bf16. Of a LoRA of rank 2 the sums round 4 times; of a LoKr of ranks 2 and 3 those of its matrices 5 times, their
/// product, its factor and the sum 5 times; of a LoHa of ranks 3 and 3 those of its matrices 10 times, the rest 4 times.
fn are_the_sum_rounded_once(file: &str, roundings: f64) {
    let dir = Dir::new(file);
    let report = converted(&golden("qwen_tiny"), &dir.path("new"), None, &[source(file, SCALE)]).unwrap();
    let (before, after) = (tensors(&golden("qwen_tiny").join(DIT)), tensors(&dir.path("new").join(DIT)));
    let lora = tensors(&golden("lora").join(file));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let mut merged = 0;
    for (name, was) in &before {
        let is = &after[name];
        assert_eq!((was.shape(), was.dtype()), (is.shape(), is.dtype()), "{name}");
        let Some([added, magnitude]) = name.strip_suffix(".weight").and_then(|layer| delta(&lora, layer))
        else {
            assert!(was.to_bytes() == is.to_bytes(), "{name} has no LoRA");
            continue;
        };
        merged += 1;
        let scale = f64::from(SCALE);
        for (i, (was, is)) in values(was).iter().zip(values(is)).enumerate() {
            let want = was + scale * added[i];
            let most = BF16 * want.abs() + roundings * F32 * (was.abs() + scale * magnitude[i]);
            assert!((is - want).abs() <= 1.01 * most, "{name} {i}: {is} for {want}");
        }
        assert!(was.to_bytes() != is.to_bytes(), "{name} is as it was");
    }
    let [encoder, transformer, vae] = &report.components[..] else { panic!() };
    assert_eq!((merged, transformer.merged_layers), (31, 31));
    assert_eq!((encoder.merged_layers, vae.merged_layers), (0, 0));
    assert_eq!(report.loras[0].sha256.len(), 64);
    let file = SafeTensors::open(&dir.path("new").join(DIT), &device(), Residence::Mapped).unwrap();
    assert!(file.metadata["inkstone.loras"].contains(&report.loras[0].sha256));
    assert!(!file.metadata.contains_key("inkstone.quantization"));
}

/// Biases and norms too: `W + scale * difference`, one product and one sum in f32, and one rounding to bf16.
#[test]
fn merged_vectors_are_the_sum_rounded_once() {
    const FILE: &str = "qwen_lora_diff.safetensors";
    let dir = Dir::new(FILE);
    converted(&golden("qwen_tiny"), &dir.path("new"), None, &[source(FILE, SCALE)]).unwrap();
    let (before, after) = (tensors(&golden("qwen_tiny").join(DIT)), tensors(&dir.path("new").join(DIT)));
    let lora = tensors(&golden("lora").join(FILE));
    let mut merged = 0;
    for (name, was) in before {
        let (layer, end) = name.rsplit_once('.').unwrap();
        let end = if end == "bias" { "diff_b" } else { "diff" };
        let Some(added) = lora.get(&format!("diffusion_model.{layer}.{end}")) else { continue };
        let is = &after[&name];
        assert_eq!((was.shape(), was.dtype()), (is.shape(), is.dtype()), "{name}");
        for ((was, added), is) in values(&was).iter().zip(values(added)).zip(values(is)) {
            let added = f64::from(SCALE) * added;
            let most = BF16 * (was + added).abs() + 2.0 * F32 * (was.abs() + added.abs());
            assert!((is - was - added).abs() <= 1.01 * most, "{name}: {is} for {was} and {added}");
        }
        assert!(was.to_bytes() != is.to_bytes(), "{name} is as it was");
        merged += 1;
    }
    assert_eq!(merged, lora.keys().filter(|name| name.contains(".diff")).count());
}

#[test]
fn merged_weights_are_the_sum_rounded_once() {
    are_the_sum_rounded_once("qwen_diffusers.safetensors", 4.0);
    are_the_sum_rounded_once("qwen_lokr_diffusers.safetensors", 10.0);
    are_the_sum_rounded_once("qwen_lokr_kohya.safetensors", 10.0);
    are_the_sum_rounded_once("qwen_loha_lycoris.safetensors", 14.0);
}

/// The layer with what a loader has, times x.
fn layer(loader: Loader<'_>, loras: &[Applied], x: &Tensor) -> Vec<f64> {
    let mut loader = loader.with_loras(loras);
    values(&Linear::load_without_bias(&mut loader, LAYER, WIDTH, WIDTH).forward_f32(x).unwrap())
}

/// Rows of numbers without a pattern.
fn input(device: &Device) -> (Tensor, Vec<f64>) {
    let x: Vec<f32> = (0..u16::try_from(3 * WIDTH).unwrap()).map(|i| (f32::from(i) * 1.7).sin()).collect();
    let tensor = Tensor::from_f32(device, &x, Shape::matrix(3, WIDTH)).unwrap();
    (tensor, x.iter().map(|v| f64::from(*v)).collect())
}

/// For each output: `sum |x_j| of_j`.
fn weighed(x: &[f64], matrix: &[f64], value: fn(f64) -> f64) -> Vec<f64> {
    let row = |i: usize, o: usize| (0..WIDTH).map(|j| value(x[i * WIDTH + j] * matrix[o * WIDTH + j])).sum();
    (0..3).flat_map(|i| (0..WIDTH).map(move |o| (i, o))).map(|(i, o)| row(i, o)).collect()
}

fn lora_at(name: &str, scale: f32) -> Applied {
    Applied { lora: Arc::new(Lora::open(&golden("lora").join(name), &device()).unwrap()), scale }
}

/// A layer that a LoRA was merged into gives what the path beside it gives, but for the rounding of its weights to bf16
/// (each by 2^-8 of itself at most, so an output by 2^-8 sum |x w'|) and the sums in f32 of both.
#[test]
fn a_merged_layer_equals_the_path_beside_it() {
    let (dir, device) = (Dir::new("layer"), device());
    let files = [
        ("qwen_diffusers.safetensors", SCALE),
        ("qwen_kohya.safetensors", -0.4),
        ("qwen_lokr_whole.safetensors", 0.5),
        ("qwen_lokr_kohya.safetensors", -0.3),
        ("qwen_loha_lycoris.safetensors", 0.3),
        ("qwen_loha_kohya.safetensors", -0.2),
    ];
    let (loras, sources) =
        (files.map(|(name, scale)| lora_at(name, scale)), files.map(|(name, scale)| source(name, scale)));
    converted(&golden("qwen_tiny"), &dir.path("new"), None, &sources).unwrap();
    let (x, x_values) = input(&device);
    let loader = |path: PathBuf| Loader::new("transformer", &device, DType::F32, tensors(&path));
    let beside = layer(loader(golden("qwen_tiny").join(DIT)), &loras, &x);
    let merged = layer(loader(dir.path("new").join(DIT)), &[], &x);
    let none = layer(loader(golden("qwen_tiny").join(DIT)), &[], &x);
    let stored = values(&tensors(&dir.path("new").join(DIT))[&format!("{LAYER}.weight")]);
    let sums = weighed(&x_values, &stored, f64::abs);
    let mut differs = false;
    for (i, sum) in sums.iter().enumerate() {
        // What the paths hold beyond the weight is within twice of it here; a sum of 64 rounds 64 times.
        let most = BF16 * sum + 4.0 * 64.0 * F32 * sum;
        assert!((merged[i] - beside[i]).abs() <= most, "{i}: {} {}, {most}", merged[i], beside[i]);
        differs |= (merged[i] - none[i]).abs() > 3.0 * most;
    }
    assert!(differs, "the LoRAs have an effect beyond the bound");
}

/// What a LoRA adds to a layer is `scale B A x`, a LoKr `scale kron(W1, W2) x`, a LoHa `scale (W1 * W2) x`, whatever the format of
/// the weight: products with and without it differ by that, but for the f32 sums of both, 64 roundings of sum |x w| each, and of
/// the path.
#[test]
fn the_path_goes_beside_weights_of_every_format() {
    for file in [
        "qwen_diffusers.safetensors",
        "qwen_lokr_diffusers.safetensors",
        "qwen_lokr_kohya.safetensors",
        "qwen_loha_lycoris.safetensors",
        "qwen_loha_kohya.safetensors",
    ] {
        goes_beside_weights_of_every_format(file);
    }
}

fn goes_beside_weights_of_every_format(name: &str) {
    let device = device();
    let lora = lora_at(name, SCALE);
    let [added, magnitude] = delta(&tensors(&golden("lora").join(name)), LAYER).unwrap();
    let (x, x_values) = input(&device);
    let want = weighed(&x_values, &added, |v| v);
    let path = weighed(&x_values, &magnitude, f64::abs);
    let dense = tensors(&golden("qwen_tiny").join(DIT));
    let sums = weighed(&x_values, &values(&dense[&format!("{LAYER}.weight")]), f64::abs);
    let quantized = |quantization: Quantization| {
        Loader::new("transformer", &device, DType::F32, dense.clone()).with_rule(quantization)
    };
    let file = |name: &str| {
        let parts = Parts { transformer: Some(golden(name)), ..Parts::default() };
        let source = ModelSource::Pieces { folder: golden("qwen_tiny"), parts };
        let files = ModelFiles::open(&source, ReadOptions::default()).unwrap();
        files.loader(Component::Transformer, &device, DType::F32).unwrap()
    };
    let cases: [(&str, &dyn Fn() -> Loader<'static>); 8] = [
        ("int8", &|| quantized(Quantization::Int8)),
        ("q8", &|| quantized(Quantization::Q8)),
        ("q4", &|| quantized(Quantization::Q4)),
        ("GGUF q8_0", &|| file("gguf/qwen_tiny_q8_0.gguf")),
        ("GGUF q4_K", &|| file("gguf/qwen_tiny_q4_K.gguf")),
        ("MLX", &|| file("formats/transformer_mflux.safetensors")),
        ("fp8", &|| file("formats/transformer_fp8.safetensors")),
        ("ConvRot", &|| file("formats/transformer_convrot.safetensors")),
    ];
    for (format, loader) in cases {
        let without = layer(loader(), &[], &x);
        let with = layer(loader(), std::slice::from_ref(&lora), &x);
        for i in 0..want.len() {
            // Twice for weights that their format made larger.
            let most = 64.0 * F32 * 2.0 * (2.0 * sums[i] + path[i]);
            let got = with[i] - without[i];
            let want = f64::from(SCALE) * want[i];
            assert!((got - want).abs() <= most, "{format} {i}: {got} for {want}, {most}");
        }
    }
}

fn open(folder: &Path, quantization: Option<Quantization>, loras: &[LoraSource]) -> Pipeline {
    let (precision, loras) = (Precision::F32, loras.to_vec());
    let options = OpenOptions { threads: Some(1), precision, quantization, loras, ..OpenOptions::default() };
    Pipeline::open(&ModelSource::Folder(folder.to_owned()), &options).unwrap()
}

#[test]
fn a_merged_model_draws_what_the_model_draws_with_its_lora() {
    const PROMPTS: [&str; 1] = ["a photo of a cat"];
    let (dir, lora) = (Dir::new("pictures"), [source("qwen_diffusers.safetensors", SCALE)]);
    let merged = dir.path("merged");
    converted(&golden("qwen_tiny"), &merged, None, &lora).unwrap();
    let picture = |folder: &Path, quantization, loras: &[LoraSource]| {
        draw_at([64, 64], &mut open(folder, quantization, loras), &PROMPTS, 3).unwrap().remove(0)
    };
    let beside = picture(&golden("qwen_tiny"), None, &lora);
    let close = psnr_db(&picture(&merged, None, &[]), &beside);
    let none = psnr_db(&picture(&golden("qwen_tiny"), None, &[]), &beside);
    assert!(close > none + 10.0, "merged {close:.1} dB, without the LoRA {none:.1} dB");

    // Quantizing comes after merging: both at once are one after the other, and as on load, to the byte.
    for quantization in [Quantization::Q4, Quantization::Int8] {
        let (once, twice) = (dir.path("once"), dir.path("twice"));
        let report = converted(&golden("qwen_tiny"), &once, Some(quantization), &lora).unwrap();
        assert_eq!(report.components[1].merged_layers, 31);
        converted(&merged, &twice, Some(quantization), &[]).unwrap();
        let (a, b) = (tensors(&once.join(DIT)), tensors(&twice.join(DIT)));
        assert!(a.keys().eq(b.keys()) && a.iter().all(|(name, t)| t.to_bytes() == b[name].to_bytes()));
        assert!(picture(&once, None, &[]) == picture(&merged, Some(quantization), &[]));
        fs::remove_dir_all(&once).unwrap();
        fs::remove_dir_all(&twice).unwrap();
    }
}

#[test]
fn a_merged_lightning_lora_leaves_its_schedule() {
    let dir = Dir::new("lightning");
    let path = dir.path("Qwen-Image-Lightning-4steps-V1.0.safetensors");
    fs::copy(golden("lora/qwen_diffusers.safetensors"), &path).unwrap();
    let new = dir.path("new");
    converted(&golden("qwen_tiny"), &new, None, &[LoraSource { path, scale: 1.0 }]).unwrap();
    let text = fs::read(new.join("scheduler/scheduler_config.json")).unwrap();
    let schedule: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let shift = 3f64.ln();
    assert_eq!((&schedule["base_shift"], &schedule["max_shift"]), (&shift.into(), &shift.into()));
    assert!(schedule["shift_terminal"].is_null(), "{schedule}");
    assert_eq!(schedule["_class_name"], "FlowMatchEulerDiscreteScheduler");
    open(&new, None, &[]);
}

#[test]
fn what_cannot_be_merged_leaves_nothing() {
    let dir = Dir::new("refused");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny");
    let new = dir.path("new");
    let refused = |from: &Path, loras: &[LoraSource]| {
        let error = converted(from, &new, None, loras).unwrap_err();
        assert!(!new.exists() && fs::read_dir(&dir.0).unwrap().count() == 0, "{error}");
        error
    };
    let lora = source("qwen_diffusers.safetensors", 1.0);
    let of_another_size = refused(&tiny, std::slice::from_ref(&lora));
    assert!(matches!(of_another_size, Error::Lora { .. }), "{of_another_size}");
    let golden = golden("qwen_tiny");
    assert_eq!(refused(&golden, &[]).code(), "INK-0201", "nothing to do");
    assert_eq!(refused(&golden, &[LoraSource { scale: f32::NAN, ..lora }]).code(), "INK-0201");
}
