use inkstone::models::qwen_image::{Config, Inputs, Prompts, Transformer};
use inkstone::nn::rope::Grid;
use inkstone::progress::{CancelToken, Context};
use inkstone_tensor::{DType, Device, Shape, Tensor};

use crate::padding;
use crate::taps::{self, F32_TOLERANCE, Fixture, Recorder, bf16_bound};

const TOKEN_CHANNELS: usize = 64;

fn transformer(threads: usize, activations: DType, zero_cond_t: bool) -> Transformer {
    transformer_on(&taps::device(threads), activations, zero_cond_t)
}

fn transformer_on(device: &Device, activations: DType, zero_cond_t: bool) -> Transformer {
    let mut config = Config::from_json(&taps::text("qwen_tiny/transformer/config.json")).unwrap();
    config.zero_cond_t = zero_cond_t;
    let weights = "qwen_tiny/transformer/diffusion_pytorch_model.safetensors";
    let mut loader = taps::loader(weights, device, activations);
    let model = Transformer::load(&config, &mut loader).unwrap();
    loader.finish().unwrap();
    model
}

/// One forward's inputs on the host: an item's tokens, prompts of all lengths, picture sizes.
struct Case {
    latents: Vec<f32>,
    prompts: Vec<Vec<f32>>,
    grids: Vec<Grid>,
    timesteps: Vec<f32>,
}

impl Case {
    fn of(fixture: &Fixture) -> Self {
        let cols = fixture.dims("encoder_hidden_states")[2];
        let length = fixture.dims("encoder_hidden_states")[1];
        let text = fixture.values("encoder_hidden_states");
        let valid = valid(fixture);
        let rows = text.chunks(cols).zip(&valid).collect::<Vec<_>>();
        let prompt = |rows: &[(&[f32], &bool)]| {
            rows.iter().filter(|(_, valid)| **valid).flat_map(|(row, _)| row.iter().copied()).collect()
        };
        let size = |v: &serde_json::Value| usize::try_from(v.as_u64().unwrap()).unwrap();
        let shapes = fixture.about("img_shapes");
        let grid = |s: &serde_json::Value| Grid { height: size(&s[1]), width: size(&s[2]) };
        Self {
            latents: fixture.values("hidden_states"),
            prompts: rows.chunks(length).map(prompt).collect(),
            grids: shapes.as_array().unwrap().iter().map(grid).collect(),
            timesteps: fixture.values("timestep")[..1].to_vec(),
        }
    }

    /// One item of the batch alone.
    fn item(&self, i: usize) -> Self {
        let values = self.latents.len() / self.prompts.len();
        Self {
            latents: self.latents[i * values..(i + 1) * values].to_vec(),
            prompts: vec![self.prompts[i].clone()],
            grids: self.grids.clone(),
            timesteps: self.timesteps.clone(),
        }
    }

    fn run(&self, model: &Transformer, step: usize, ctx: &Context<'_>) -> inkstone::Result<Tensor> {
        let cols = model.config().joint_attention_dim;
        let lengths: Vec<usize> = self.prompts.iter().map(|p| p.len() / cols).collect();
        let device = model.device();
        let rows = Shape::matrix(lengths.iter().sum(), cols);
        let embeddings = Tensor::from_f32(device, &self.prompts.concat(), rows)?;
        let prompts = Prompts { embeddings: &embeddings, lengths: &lengths };
        let tokens = Shape::matrix(self.latents.len() / TOKEN_CHANNELS, TOKEN_CHANNELS);
        let latents = Tensor::from_f32(device, &self.latents, tokens)?;
        let conditioning = model.condition(&prompts, &self.grids, ctx)?;
        let modulations = model.modulations(&self.timesteps, ctx)?;
        let inputs =
            Inputs { latents: &latents, conditioning: &conditioning, modulations: &modulations, step };
        model.forward(&inputs, ctx)
    }

    fn bytes(&self, model: &Transformer, step: usize) -> Vec<u8> {
        self.run(model, step, &Context::default()).unwrap().to_bytes()
    }
}

/// Which rows of the text are tokens and not padding.
fn valid(fixture: &Fixture) -> Vec<bool> {
    let rows = fixture.dims("encoder_hidden_states")[..2].iter().product();
    fixture.integers("mask").map_or(vec![true; rows], |mask| mask.iter().map(|m| *m != 0).collect())
}

fn check(name: &str, activations: DType, allowed: impl Fn(&str) -> f32) {
    let (fixture, taps) = (Fixture::open(name), Recorder::default());
    let zero_cond_t = fixture.about("zero_cond_t").as_bool().unwrap();
    let model = transformer(2, activations, zero_cond_t);
    let case = Case::of(&fixture);
    case.run(&model, 0, &taps.context()).unwrap();
    let valid = valid(&fixture);
    let arrange = |name: &str, want: &[f32]| -> Vec<f32> {
        let dims = fixture.dims(name);
        let rows = want.chunks(*dims.last().unwrap());
        let text = name.ends_with("txt") || name.starts_with("txt") || name.starts_with("rope.txt");
        if text {
            // A table of the reference serves every item; ours has one row for each token of the batch.
            let rows: Vec<&[f32]> = rows.collect();
            let items = case.prompts.len();
            let rows = if name.starts_with("rope") { rows.repeat(items) } else { rows };
            rows.into_iter().zip(&valid).filter(|(_, valid)| **valid).flat_map(|(r, _)| r.to_vec()).collect()
        } else if name == "temb" {
            // The reference has a row for each item; ours are for each timestep, and all items share it.
            rows.take(if zero_cond_t { 2 } else { 1 }).flatten().copied().collect()
        } else {
            want.to_vec()
        }
    };
    let inputs = ["hidden_states", "encoder_hidden_states", "timestep"];
    taps.compare(&format!("{name} {activations}"), &fixture, &inputs, arrange, allowed);
}

/// Roundings between the inputs and a tap: three on the way of the timestep and two in front of the first block; norm,
/// projection, rotation, weights and result of the attention, norm and middle of the feed-forward network in each block.
fn roundings(name: &str) -> u8 {
    let mut parts = name.split('.');
    let blocks = match (parts.next(), parts.next().and_then(|n| n.parse::<u8>().ok())) {
        (Some("block"), Some(index)) => index + 1,
        (Some("norm_out" | "output"), _) => 3,
        _ => 0,
    };
    5 + 7 * blocks
}

const FIXTURES: [&str; 5] =
    ["qwen_tr_t2i", "qwen_tr_oddgrid", "qwen_tr_mask", "qwen_tr_edit", "qwen_tr_edit_zero_cond_t"];

#[test]
fn taps_f32() {
    for name in FIXTURES {
        check(name, DType::F32, |_| F32_TOLERANCE);
    }
}

#[test]
fn taps_bf16() {
    for name in FIXTURES {
        check(name, DType::Bf16, |tap| bf16_bound(roundings(tap)));
    }
}

#[test]
fn same_bytes_for_any_threads_and_batch() {
    let case = Case::of(&Fixture::open("qwen_tr_mask"));
    assert_ne!(case.prompts[0].len(), case.prompts[1].len());
    for activations in [DType::F32, DType::Bf16] {
        let model = |threads| transformer(threads, activations, false);
        let both = case.bytes(&model(1), 0);
        assert!(both == case.bytes(&model(2), 0), "2 threads, {activations}");
        assert!(both == case.bytes(&model(3), 0), "3 threads, {activations}");
        let solo = [case.item(0).bytes(&model(2), 0), case.item(1).bytes(&model(2), 0)].concat();
        assert!(both == solo, "batch of two, {activations}");
    }
}

#[test]
fn padded_rows_change_nothing() {
    let case = Case::of(&Fixture::open("qwen_tr_edit_zero_cond_t"));
    for activations in [DType::F32, DType::Bf16] {
        let plain = case.bytes(&transformer(2, activations, true), 0);
        let padded = case.bytes(&transformer_on(&padding::device(), activations, true), 0);
        assert!(plain == padded, "{activations}");
    }
}

#[test]
fn modulations_of_all_steps_are_those_of_each_step() {
    for (name, zero_cond_t) in [("qwen_tr_edit", false), ("qwen_tr_edit_zero_cond_t", true)] {
        for activations in [DType::F32, DType::Bf16] {
            let model = transformer(2, activations, zero_cond_t);
            let mut case = Case::of(&Fixture::open(name));
            let steps = [1.0, 0.916_024, 0.02];
            case.timesteps = steps.to_vec();
            let together: Vec<Vec<u8>> = (0..steps.len()).map(|step| case.bytes(&model, step)).collect();
            assert_ne!(together[0], together[1]);
            for (together, t) in together.iter().zip(steps) {
                case.timesteps = vec![t];
                assert!(*together == case.bytes(&model, 0), "{name} {activations} t={t}");
            }
        }
    }
}

#[test]
fn references_at_zero_are_no_different_at_timestep_zero() {
    let mut case = Case::of(&Fixture::open("qwen_tr_edit"));
    let (plain, zero) = (transformer(2, DType::F32, false), transformer(2, DType::F32, true));
    assert!(case.bytes(&plain, 0) != case.bytes(&zero, 0));
    case.timesteps = vec![0.0];
    assert!(case.bytes(&plain, 0) == case.bytes(&zero, 0));
}

#[test]
fn wrong_sizes_are_errors() {
    let model = transformer(1, DType::F32, false);
    let case = Case::of(&Fixture::open("qwen_tr_t2i"));
    assert!(case.run(&model, 1, &Context::default()).is_err(), "a step that was not computed");
    let mut short = case.item(0);
    short.latents.truncate(TOKEN_CHANNELS);
    assert!(short.run(&model, 0, &Context::default()).is_err(), "too few latents");
}

#[test]
fn an_interruption_ends_the_forward() {
    let cancel = CancelToken::default();
    cancel.cancel();
    let ctx = Context { cancel: Some(&cancel), tap: None };
    let model = transformer(1, DType::F32, false);
    let error = Case::of(&Fixture::open("qwen_tr_t2i")).run(&model, 0, &ctx).unwrap_err();
    assert!(matches!(error, inkstone::Error::Interrupted));
}
