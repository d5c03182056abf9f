//! Parts of the networks, and whole pictures.

use inkstone_tensor::{DType, Shape, Tensor, ops};

use super::{Bench, Case, Clock, kernels};
use crate::models::qwen_image::{Inputs, Prompts, Transformer};
use crate::models::qwen_vae::Vae;
use crate::models::qwen25_vl::TextEncoder;
use crate::nn::rope::Grid;
use crate::nn::strips::Strips;
use crate::progress::{CancelToken, Context, Silent, Stage};
use crate::request::SIDE_STEP_PX;
use crate::weights::{Loader, ModelSource, RandomModel};
use crate::{OpenOptions, Pipeline, Request, Result};

type Run = Box<dyn FnMut() -> Result<f64>>;

/// Bytes of the weights that a case takes, and of what a kernel reads and writes.
pub(super) fn needed_bytes(case: Case, model: &RandomModel) -> u64 {
    /// Of a block, a layer, and everything else that a network has, in bf16.
    const BLOCK_BYTES: u64 = 680 << 20;
    const LAYER_BYTES: u64 = 470 << 20;
    const REST_BYTES: u64 = 512 << 20;
    let (blocks, layers) = (model.blocks as u64 * BLOCK_BYTES, model.layers as u64 * LAYER_BYTES);
    match case {
        Case::Linear { .. } | Case::Attention { .. } | Case::Conv { .. } => kernels::needed_bytes(case),
        Case::Layer { .. } => layers + REST_BYTES,
        Case::Block { .. } | Case::Modulations { .. } => blocks + REST_BYTES,
        Case::Decode { .. } | Case::Encode { .. } => REST_BYTES,
        Case::Picture { .. } => blocks + layers + REST_BYTES,
    }
}

pub(super) fn prepare(case: Case, bench: &Bench) -> Result<Run> {
    let mut run = match case {
        Case::Layer { tokens } => layer(bench, tokens)?,
        Case::Block { side_px } => block(bench, side_px)?,
        Case::Modulations { steps } => modulations(bench, steps)?,
        Case::Decode { side_px, strip_px } => decode(bench, side_px, strip_px)?,
        Case::Encode { side_px, strip_px } => encode(bench, side_px, strip_px)?,
        Case::Picture { side_px } => picture(bench, side_px)?,
        Case::Linear { .. } | Case::Attention { .. } | Case::Conv { .. } => {
            unreachable!("kernels are prepared elsewhere")
        }
    };
    run()?;
    Ok(run)
}

fn seconds<T>(clock: Clock, work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let (done, seconds) = clock.time(work);
    done.map(|_| seconds)
}

/// What a part of a network takes: the network with `parts` of them less the network without any, for one.
fn per_part(parts: usize, with: f64, without: f64) -> f64 {
    (with - without) / parts.max(1) as f64
}

fn random(bench: &Bench, rows: usize, cols: usize, dtype: DType) -> Result<Tensor> {
    let mut loader = Loader::random("input", &bench.device, bench.activations);
    let stored = loader.tensor("x", &[rows, cols]);
    loader.finish()?;
    Ok(ops::convert(&stored, dtype)?)
}

fn layer(bench: &Bench, tokens: usize) -> Result<Run> {
    let clock = bench.options.clock;
    let layers = bench.options.model.layers;
    let mut config = bench.options.model.text_encoder()?;
    let mut load = |num_layers: usize| -> Result<TextEncoder> {
        config.num_layers = num_layers;
        let mut loader = bench.loader("text encoder");
        let encoder = TextEncoder::load(&config, &mut loader)?;
        loader.finish()?;
        Ok(encoder)
    };
    let (with, without) = (load(layers)?, load(0)?);
    let prompt: Vec<u32> = (0..tokens as u64).map(|i| u32::try_from(i % 5000).unwrap_or(0)).collect();
    let prompts = [prompt];
    Ok(Box::new(move || {
        let ctx = Context::default();
        let forward = |encoder: &TextEncoder| seconds(clock, || encoder.forward(&prompts, &ctx));
        Ok(per_part(layers, forward(&with)?, forward(&without)?))
    }))
}

fn transformer(bench: &Bench, blocks: usize) -> Result<Transformer> {
    let mut config = bench.options.model.transformer()?;
    config.num_layers = blocks;
    let mut loader = bench.loader("transformer");
    let transformer = Transformer::load(&config, &mut loader)?;
    loader.finish()?;
    Ok(transformer)
}

fn block(bench: &Bench, side_px: usize) -> Result<Run> {
    let clock = bench.options.clock;
    let blocks = bench.options.model.blocks;
    let side = side_px / SIDE_STEP_PX;
    let grid = Grid { height: side, width: side };
    let ctx = Context::default();
    let lengths = [Case::PROMPT_TOKENS];
    let (with, without) = (transformer(bench, blocks)?, transformer(bench, 0)?);
    let latents = random(bench, grid.tokens(), with.config().in_channels, DType::F32)?;
    let embeddings = random(bench, Case::PROMPT_TOKENS, with.config().joint_attention_dim, DType::F32)?;
    let prompts = Prompts { embeddings: &embeddings, lengths: &lengths };
    let parts = [with, without].map(|network| -> Result<_> {
        let conditioning = network.condition(&prompts, &[grid], &ctx)?;
        let modulations = network.modulations(&[0.7], &ctx)?;
        Ok((network, conditioning, modulations))
    });
    let [with, without] = parts;
    let (with, without) = (with?, without?);
    Ok(Box::new(move || {
        let forward = |(network, conditioning, modulations): &(Transformer, _, _)| {
            let inputs = Inputs { latents: &latents, conditioning, modulations, step: 0 };
            seconds(clock, || network.forward(&inputs, &Context::default()))
        };
        Ok(per_part(blocks, forward(&with)?, forward(&without)?))
    }))
}

fn modulations(bench: &Bench, steps: usize) -> Result<Run> {
    let clock = bench.options.clock;
    let blocks = bench.options.model.blocks;
    let (with, without) = (transformer(bench, blocks)?, transformer(bench, 0)?);
    let timesteps: Vec<f32> = (0..steps).map(|i| 1.0 - i as f32 / steps as f32).collect();
    Ok(Box::new(move || {
        let forward =
            |network: &Transformer| seconds(clock, || network.modulations(&timesteps, &Context::default()));
        Ok(per_part(blocks, forward(&with)?, forward(&without)?))
    }))
}

/// The VAE, and strips of so many lines of a picture as it takes them.
fn vae(bench: &Bench, strip_px: Option<usize>) -> Result<(Vae, Strips)> {
    let config = bench.options.model.vae()?;
    let mut loader = bench.loader("VAE");
    let vae = Vae::load(&config, &mut loader)?;
    loader.finish()?;
    Ok((vae, strip_px.map_or(Strips::Whole, |px| Strips::Lines(px / config.scale_factor()))))
}

fn encode(bench: &Bench, side_px: usize, strip_px: Option<usize>) -> Result<Run> {
    let clock = bench.options.clock;
    let (vae, strips) = vae(bench, strip_px)?;
    let channels = vae.config().input_channels;
    let picture = random(bench, side_px * side_px, channels, DType::F32)?;
    let picture = picture.reshape(Shape::nhwc(1, side_px, side_px, channels))?;
    Ok(Box::new(move || seconds(clock, || vae.encode(&picture, strips, &Context::default()))))
}

fn decode(bench: &Bench, side_px: usize, strip_px: Option<usize>) -> Result<Run> {
    let clock = bench.options.clock;
    let (vae, strips) = vae(bench, strip_px)?;
    let (side, z_dim) = (side_px / vae.config().scale_factor(), vae.config().z_dim);
    let latents = random(bench, side * side, z_dim, DType::F32)?;
    let latents = latents.reshape(Shape::nhwc(1, side, side, z_dim))?;
    Ok(Box::new(move || seconds(clock, || vae.decode(&latents, strips, &Context::default()))))
}

fn picture(bench: &Bench, side_px: usize) -> Result<Run> {
    let options = OpenOptions {
        threads: bench.options.threads,
        precision: bench.options.precision,
        quantization: bench.options.quantization,
        ..OpenOptions::default()
    };
    let mut pipeline = Pipeline::open(&ModelSource::Random(bench.options.model), &options)?;
    let mut request = Request {
        prompt: String::new(),
        negative_prompt: None,
        width_px: side_px,
        height_px: side_px,
        steps: Case::PICTURE_STEPS,
        seed: 0,
        true_cfg_scale: 1.0,
        init: None,
    };
    Ok(Box::new(move || {
        // Another prompt each time: the pipeline remembers those that it has seen.
        request.seed += 1;
        request.prompt = format!("picture {} of a tea house between old trees at a lake", request.seed);
        let pictures = pipeline.draw(std::slice::from_ref(&request), &CancelToken::default(), &mut Silent)?;
        let stages = pictures.iter().flat_map(|picture| &picture.stages);
        Ok(stages.filter(|(stage, _)| *stage != Stage::Load).map(|(_, seconds)| seconds).sum())
    }))
}
