//! A block of the transformer with outlier channels.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use inkstone::models::qwen_image::{Config, Inputs, Prompts, Transformer};
use inkstone::nn::rope::Grid;
use inkstone::progress::{Context, Tap};
use inkstone::weights::{Format, Int8Rule, Loader, Rule};
use inkstone_tensor::ops::{self, Activation};
use inkstone_tensor::{DType, Device, Shape, Tensor, Weight, cpu};

use crate::similarity::cosine;

/// The least cosine of a block's result against the same block in f32.
pub(crate) const LEAST_COSINE: f64 = 0.9999;

const N_HEADS: usize = 8;
const DIM: usize = N_HEADS * 128;
const TEXT_DIM: usize = 256;
const TEXT_TOKENS: usize = 9;
const GRID: Grid = Grid { height: 6, width: 8 };

/// 0.3 % of the channels are larger than the others.
const OUTLIERS: [(usize, f32); 3] = [(101, 20.0), (517, 100.0), (900, 20.0)];

/// Factor on the residual.
const RESIDUAL: f32 = 2.0;

/// Uniform values (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn values(&mut self, n: usize, middle: f32, reach: f32) -> Vec<f32> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            f32::from(u16::try_from(self.0 >> 48).unwrap()) / 32768.0 - 1.0
        };
        (0..n).map(|_| middle + reach * next()).collect()
    }
}

/// The tensors of a transformer of one block: matrices keep the size of activations, norms are near 1.
fn tensors(device: &Device) -> BTreeMap<String, Tensor> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, values: &[f32], shape: Shape| {
        tensors.insert(name, Tensor::from_f32(device, values, shape).unwrap());
    };
    let mut linear = |name: &str, n_in: usize, n_out: usize| {
        // Uniform values up to sqrt(3) have the variance 1.
        let mut weight = random.values(n_out * n_in, 0.0, (3.0 / n_in as f32).sqrt());
        let mut bias = random.values(n_out, 0.0, 0.1);
        plant(name, &mut weight, &mut bias, n_in);
        add(format!("{name}.weight"), &weight, Shape::matrix(n_out, n_in));
        add(format!("{name}.bias"), &bias, Shape::vector(n_out));
    };
    linear("img_in", 64, DIM);
    linear("txt_in", TEXT_DIM, DIM);
    linear("proj_out", DIM, 64);
    linear("time_text_embed.timestep_embedder.linear_1", 256, DIM);
    linear("time_text_embed.timestep_embedder.linear_2", DIM, DIM);
    linear("norm_out.linear", DIM, 2 * DIM);
    let block = |part: &str| format!("transformer_blocks.0.{part}");
    for part in ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"] {
        linear(&block(&format!("attn.{part}")), DIM, DIM);
    }
    for stream in ["img", "txt"] {
        linear(&block(&format!("{stream}_mod.1")), DIM, 6 * DIM);
        linear(&block(&format!("{stream}_mlp.net.0.proj")), DIM, 4 * DIM);
        linear(&block(&format!("{stream}_mlp.net.2")), 4 * DIM, DIM);
    }
    let mut norm = |name: String, len: usize| {
        add(format!("{name}.weight"), &random.values(len, 1.0, 0.1), Shape::vector(len));
    };
    norm("txt_norm".into(), TEXT_DIM);
    for part in ["norm_q", "norm_k", "norm_added_q", "norm_added_k"] {
        norm(block(&format!("attn.{part}")), 128);
    }
    tensors
}

/// Makes channels outliers where a trained network has them: in the scales behind the norms, so that queries, keys,
/// values and the feed-forward network see them; in the values, whose mean the output projection sees; and in the hidden
/// layer of the feed-forward network.
fn plant(name: &str, weight: &mut [f32], bias: &mut [f32], n_in: usize) {
    let factor_of_row = |row: usize| OUTLIERS.iter().find(|(c, _)| *c == row).map(|(_, factor)| *factor);
    if name.ends_with("_mod.1") {
        // Shift, scale, gate, twice: one less than the factor of a channel is its scale.
        for (channel, factor) in OUTLIERS {
            bias[DIM + channel] += factor;
            bias[4 * DIM + channel] += factor;
        }
    }
    if name.ends_with("_in") {
        // A trained network's residual is larger than what one block adds. Rounding both operands to 8 bits loses 1.1 %
        // of a product, 2.2 % behind the four of a block: of what the block adds, which may be 0.4 of the result's
        // energy at most for the gate.
        weight.iter_mut().for_each(|v| *v *= RESIDUAL);
    }
    if name.ends_with("to_v") || name.ends_with("add_v_proj") || name.ends_with("net.0.proj") {
        for (row, values) in weight.chunks_mut(n_in).enumerate() {
            if let Some(factor) = factor_of_row(row) {
                values.iter_mut().for_each(|v| *v *= factor);
            }
        }
    }
}

/// Keeps what both streams hold behind the block.
#[derive(Default)]
struct Behind(RefCell<BTreeMap<String, Vec<f32>>>);

impl Tap for Behind {
    fn see(&self, name: fmt::Arguments<'_>, tensor: &Tensor) {
        let name = name.to_string();
        if name == "block.0.img" || name == "block.0.txt" {
            self.0.borrow_mut().insert(name, tensor.to_f32().unwrap());
        }
    }
}

/// Both streams behind the block, and how many of its layers multiply bytes.
fn run(
    device: &Device,
    tensors: &BTreeMap<String, Tensor>,
    rule: Option<Int8Rule>,
) -> ([Vec<f32>; 2], usize) {
    let config = format!(
        r#"{{"_class_name": "QwenImageTransformer2DModel", "num_layers": 1, "num_attention_heads": {N_HEADS},
        "joint_attention_dim": {TEXT_DIM}}}"#
    );
    let config = Config::from_json(&config).unwrap();
    let mut loader = Loader::new("transformer", device, DType::F32, tensors.clone());
    if let Some(rule) = rule {
        loader = loader.with_rule(Rule::Int8(rule));
    }
    let model = Transformer::load(&config, &mut loader).unwrap();
    let in_bytes = loader.formats().iter().filter(|f| matches!(f.format, Format::Int8(_))).count();
    loader.finish().unwrap();

    let mut random = Random(7);
    let mut input = |rows: usize, cols: usize| {
        Tensor::from_f32(device, &random.values(rows * cols, 0.0, 1.7), Shape::matrix(rows, cols)).unwrap()
    };
    let (latents, embeddings) = (input(GRID.tokens(), 64), input(TEXT_TOKENS, TEXT_DIM));
    let behind = Behind::default();
    let ctx = Context { cancel: None, tap: Some(&behind) };
    let prompts = Prompts { embeddings: &embeddings, lengths: &[TEXT_TOKENS] };
    let conditioning = &model.condition(&prompts, &[GRID], &ctx).unwrap();
    let modulations = &model.modulations(&[0.7], &ctx).unwrap();
    model.forward(&Inputs { latents: &latents, conditioning, modulations, step: 0 }, &ctx).unwrap();
    let mut seen = behind.0.into_inner();
    (["block.0.img", "block.0.txt"].map(|name| seen.remove(name).unwrap()), in_bytes)
}

/// Cosine of a product at the real width, of activations with outliers.
fn product(device: &Device, group: usize) -> f64 {
    const WIDTH: usize = 3072;
    const N_OUT: usize = 256;
    const ROWS: usize = 12;
    let mut random = Random(3);
    let mut x = random.values(ROWS * WIDTH, 0.0, 1.7);
    for row in x.chunks_mut(WIDTH) {
        // Nine of 3072: 0.3 %.
        (0..9).for_each(|i| row[40 + 333 * i] *= if i % 2 == 0 { 20.0 } else { 100.0 });
    }
    let weight = random.values(N_OUT * WIDTH, 0.0, 1.0);
    let x = Tensor::from_f32(device, &x, Shape::matrix(ROWS, WIDTH)).unwrap();
    let weight = Tensor::from_f32(device, &weight, Shape::matrix(N_OUT, WIDTH)).unwrap();
    let rounded = Weight::Int8(ops::quantize_int8(&weight, group).unwrap().weight);
    let run = |weight: &Weight| {
        ops::linear(&x, weight, None, Activation::None, DType::F32).unwrap().to_f32().unwrap()
    };
    cosine(&run(&rounded), &run(&Weight::Dense(weight)))
}

#[test]
fn products_of_the_real_width_need_the_rotation() {
    let device = Device::cpu(&cpu::Options { threads: Some(2), isa: None }).unwrap();
    let (rotated, plain) = (product(&device, 128), product(&device, 1));
    assert!(rotated >= LEAST_COSINE, "{rotated} with rotation");
    assert!(plain < LEAST_COSINE, "{plain} without");
}

#[test]
fn outlier_channels_survive_with_rotation_and_only_with_it() {
    let device = Device::cpu(&cpu::Options { threads: Some(2), isa: None }).unwrap();
    let tensors = tensors(&device);
    let (want, _) = run(&device, &tensors, None);
    let cosines = |rule: Int8Rule| {
        let (got, in_bytes) = run(&device, &tensors, Some(rule));
        assert_eq!(in_bytes, 12, "queries, keys, values, output, feed-forward network of two streams");
        [cosine(&got[0], &want[0]), cosine(&got[1], &want[1])]
    };
    let rotated = cosines(Int8Rule::default());
    // Plain W8A8 in the same code: groups of one, and no layer refused.
    let plain = cosines(Int8Rule { max_group: 1, max_relative_error: 1.0 });
    assert!(rotated.iter().all(|c| *c >= LEAST_COSINE), "{rotated:?} with rotation");
    assert!(plain.iter().all(|c| *c < LEAST_COSINE), "{plain:?} without");
}
