//! Memory of the full width, on a device that only counts.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Device, Shape, Tensor, cpu};

use super::request;
use crate::nn::strips::Strips;
use crate::pipeline::prediction::{Passes, Prediction, Texts};
use crate::pipeline::{OpenOptions, Pipeline, Precision};
use crate::progress::Context;
use crate::request::Request;
use crate::sample::euler;
use crate::weights::lora::LoraSource;
use crate::weights::safetensors::serialize;
use crate::weights::{ModelSource, RandomModel};

/// As many on every machine: each has memory of its own inside an operation, which counts.
const THREADS: Option<usize> = Some(2);

/// Memory of the transformer's steps on one block of the full width, counted: what is taken beside weights until the end of
/// the first step, and behind it until the end of the second. The second figure is also the most that any later step takes.
fn counted_steps(request: &Request) -> (usize, usize) {
    let model = RandomModel { blocks: 1, layers: 1 };
    let options = OpenOptions { precision: Precision::Bf16, threads: THREADS, ..OpenOptions::default() };
    let pipeline = Pipeline::open(&ModelSource::Random(model), &options).unwrap();
    let plan = pipeline.plan(request).unwrap();
    let (mut networks, ledger) = pipeline.networks.counting(pipeline.networks.arithmetic).unwrap();
    let transformer = networks.transformer(&pipeline.files).unwrap();
    let weights = ledger.now().total_bytes();
    let device = transformer.device().clone();
    let text = |rows| Tensor::empty(&device, DType::F32, Shape::matrix(rows, 3584)).unwrap();
    let negatives = if request.true_cfg_scale > 1.0 { vec![text(1)] } else { Vec::new() };
    let texts = Texts { prompts: vec![text(40)], negatives };
    let mut latents = Tensor::empty(&device, DType::F32, Shape::matrix(plan.grid.tokens(), 64)).unwrap();
    let context = Context::default();
    let prediction = Prediction::new(transformer, &texts, &plan, Passes::One, &context).unwrap();
    let mut after_first = 0;
    for step in 0..2 {
        let velocity = prediction.velocity(&latents, step, &context).unwrap();
        latents = euler::step(latents, &velocity, 1.0, 0.0).unwrap();
        if step == 0 {
            after_first = ledger.peak().total_bytes();
        }
    }
    (after_first - weights, ledger.peak().total_bytes() - after_first)
}

/// Memory that a VAE of the full size takes for a square picture beside weights, counted: to decode it and to encode it.
fn counted_vae(side_px: usize, strips: Strips, precision: Precision) -> [usize; 2] {
    let model = RandomModel { blocks: 1, layers: 1 };
    let options = OpenOptions { precision, threads: THREADS, ..OpenOptions::default() };
    let pipeline = Pipeline::open(&ModelSource::Random(model), &options).unwrap();
    let (mut networks, ledger) = pipeline.networks.counting(pipeline.networks.arithmetic).unwrap();
    let vae = networks.vae(&pipeline.files).unwrap();
    let picture = |side, channels| {
        Tensor::empty(vae.device(), DType::F32, Shape::nhwc(1, side, side, channels)).unwrap()
    };
    let context = Context::default();
    // Encoding first: it takes less, and peaks only grow.
    let begun = ledger.now().total_bytes();
    drop(vae.encode(&picture(side_px, 3), strips, &context).unwrap());
    let encoded = ledger.peak().total_bytes() - begun;
    drop(vae.decode(&picture(side_px / 8, vae.config().z_dim), strips, &context).unwrap());
    [ledger.peak().total_bytes() - begun, encoded]
}

#[test]
fn large_pictures_pass_the_vae_in_little_memory() {
    const MOST_BYTES: usize = 3 << 29; // 1.5 GiB
    for precision in [Precision::Bf16, Precision::F32] {
        let whole = counted_vae(2048, Strips::Whole, precision);
        assert!(whole.iter().all(|bytes| *bytes > MOST_BYTES), "{whole:?} bytes would do without strips");
        for strips in [Strips::Lines(32), Strips::Lines(16), Strips::Lines(4)] {
            let taken = counted_vae(2048, strips, precision);
            assert!(
                taken.iter().all(|bytes| *bytes <= MOST_BYTES),
                "{precision:?} {strips:?}: {taken:?} bytes"
            );
        }
    }
}

/// What the program promises of the full width. Blocks follow each other in the same memory, so one stands for all but
/// for its modulations.
#[test]
fn a_step_of_the_full_width_takes_little_and_only_once() {
    /// Twelve vectors of 3072 f32 for each of the other 59 blocks and each of 50 steps.
    const OTHER_MODULATIONS_BYTES: usize = 59 * 50 * 12 * 3072 * 4;
    for (side_px, true_cfg_scale) in [(256, 1.0), (512, 4.0), (1024, 1.0), (1024, 4.0)] {
        let (first, later) = counted_steps(&Request {
            width_px: side_px,
            height_px: side_px,
            steps: 4,
            true_cfg_scale,
            init: None,
            ..request(1)
        });
        let most = first + OTHER_MODULATIONS_BYTES;
        assert!(most < 1200 << 20, "{side_px} px: {most} bytes"); // 1.2 GiB are 1228 MiB
        assert!(later <= 1 << 20, "{side_px} px: {later} bytes behind the first step");
    }
}

/// What a block of the full width takes once it is loaded, with these LoRAs.
fn counted_transformer(loras: &[LoraSource], precision: Precision) -> usize {
    let model = RandomModel { blocks: 1, layers: 1 };
    let options =
        OpenOptions { precision, loras: loras.to_vec(), threads: THREADS, ..OpenOptions::default() };
    let pipeline = Pipeline::open(&ModelSource::Random(model), &options).unwrap();
    let (mut networks, ledger) = pipeline.networks.counting(pipeline.networks.arithmetic).unwrap();
    networks.transformer(&pipeline.files).unwrap();
    ledger.now().total_bytes()
}

/// A LoHa of ranks 8 and 8 goes through 64 columns, and around 64 inputs it is as large as the weight. The matrices for that are
/// made with the network, in the type of its activations, so they are counted there; the file is in memory before.
#[test]
fn the_paths_of_a_loha_are_counted() {
    const LAYERS: [(&str, usize, usize); 2] =
        [("transformer_blocks.0.attn.to_q", 3072, 3072), ("img_in", 3072, 64)];
    const COUNT: usize = 64 * (3072 + 3072) + 3072 * 64;
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let tensors = LAYERS.iter().flat_map(|(layer, n_out, n_in)| {
        let shapes = [("w1_a", *n_out, 8), ("w1_b", 8, *n_in), ("w2_a", *n_out, 8), ("w2_b", 8, *n_in)];
        shapes.map(|(end, rows, cols)| {
            let values = vec![0.5; rows * cols];
            let tensor = Tensor::from_f32(&device, &values, Shape::matrix(rows, cols)).unwrap();
            (format!("{layer}.hada_{end}"), tensor)
        })
    });
    let name = format!("inkstone-counted-{}-loha.safetensors", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, serialize(&tensors.collect(), &BTreeMap::new())).unwrap();
    let loras = [LoraSource { path: path.clone(), scale: 1.0 }];
    for (precision, size) in [(Precision::Bf16, 2), (Precision::F32, 4)] {
        let taken = counted_transformer(&loras, precision) - counted_transformer(&[], precision);
        // Buffers of the pool are at most a quarter larger than what is asked for.
        assert!((size * COUNT..=size * COUNT * 5 / 4).contains(&taken), "{precision:?}: {taken}");
    }
    std::fs::remove_file(&path).unwrap();
}
