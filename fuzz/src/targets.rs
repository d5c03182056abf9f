//! The targets: each reads an input as one kind of file, as far as the engine itself would.

use std::sync::Arc;

use inkstone::models::{qwen_image, qwen_vae, qwen25_vl};
use inkstone::nn::linear::Linear;
use inkstone::sample::schedule::SchedulerConfig;
use inkstone::text::PromptTokenizer;
use inkstone::weights::lora::{Applied, Lora};
use inkstone::weights::{
    Component, Loader, MODEL_INDEX, ModelFiles, Parts, Residence, SCHEDULER, SafeTensors,
};
use inkstone::{Error, Result};
use inkstone_tensor::ops::{self, Activation};
use inkstone_tensor::{DType, Device, Shape, Tensor};

use super::input::{framed, sections};
use super::place::Place;
use super::seeds;

/// A kind of input.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    pub(super) read: fn(&mut Place, &[u8]) -> Result<()>,
    pub(super) seeds: fn() -> Vec<Vec<u8>>,
    /// Memory beyond the input that it may take, beside what all may.
    pub(super) slack_bytes: usize,
}

/// An error that names each missing tensor of a config with as many layers as are allowed: 200 layers of 32 tensors,
/// their names and the list of them growing twofold.
const REPORT_BYTES: usize = 200 * 32 * 3 * 64;

/// What a product takes that is not the file's: panels of weights, padded rows.
const PRODUCT_BYTES: usize = 256 << 10;

/// The paths of a LoHa around all layers: at most as many f32 as the tiny transformer has numbers, 185,000, and the factors in f32
/// while they are made.
const PATHS_BYTES: usize = 1 << 20;

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "safetensors", read: safetensors, seeds: seeds::safetensors, slack_bytes: 0 },
    Target { name: "model", read: model, seeds: seeds::model, slack_bytes: REPORT_BYTES },
    Target { name: "gguf", read: gguf, seeds: seeds::gguf, slack_bytes: PRODUCT_BYTES },
    Target { name: "packed", read: packed, seeds: seeds::packed, slack_bytes: PRODUCT_BYTES },
    Target { name: "lora", read: lora, seeds: seeds::lora, slack_bytes: PRODUCT_BYTES + PATHS_BYTES },
    Target { name: "tokenizer", read: tokenizer, seeds: seeds::tokenizer, slack_bytes: 0 },
];

/// A safetensors file on its own.
fn safetensors(place: &mut Place, input: &[u8]) -> Result<()> {
    const NAME: &str = "x.safetensors";
    let bytes = framed(input);
    place.write(NAME, &bytes);
    let path = place.path(NAME);
    let of_bytes = SafeTensors::from_bytes(&path, &bytes, &place.device);
    for residence in [Residence::Mapped, Residence::Owned] {
        let of_file = SafeTensors::open(&path, &place.device, residence);
        assert_eq!(of_file.is_ok(), of_bytes.is_ok(), "a file is read as its bytes are");
    }
    place.lone(NAME);
    place.restore();
    let file = of_bytes?;
    let taken: usize = file.tensors.values().map(|tensor| tensor.bytes().len()).sum();
    assert!(taken <= bytes.len(), "{taken} bytes of tensors in a file of {}", bytes.len());
    Ok(())
}

/// The files of a model but its tokenizer.
fn model(place: &mut Place, input: &[u8]) -> Result<()> {
    const INDEX: &str = "transformer/diffusion_pytorch_model.safetensors.index.json";
    const SHARD: &str = "transformer/a.safetensors";
    const NAMES: [&str; 9] = [
        MODEL_INDEX,
        SCHEDULER,
        INDEX,
        SHARD,
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    for (name, content) in sections(input, &NAMES) {
        place.write(name, &content);
    }
    let result = open_all(place);
    place.restore();
    result
}

fn open_all(place: &Place) -> Result<()> {
    let files = place.open(Parts::default())?;
    SchedulerConfig::from_json(files.json(SCHEDULER)?)?;
    for component in Component::ALL {
        load(&files, component, &place.device, &[])?;
    }
    Ok(())
}

/// Loads the network of a component.
fn load(files: &ModelFiles, component: Component, device: &Device, loras: &[Applied]) -> Result<()> {
    let config = files.json(component.config_name())?;
    let mut loader = files.loader(component, device, DType::F32)?.with_loras(loras);
    match component {
        Component::TextEncoder => {
            drop(qwen25_vl::TextEncoder::load(&qwen25_vl::Config::from_json(config)?, &mut loader)?);
        }
        Component::Transformer => {
            drop(qwen_image::Transformer::load(&qwen_image::Config::from_json(config)?, &mut loader)?);
        }
        Component::Vae => drop(qwen_vae::Vae::load(&qwen_vae::Config::from_json(config)?, &mut loader)?),
    }
    loader.finish()
}

/// Weights that probes ask for: inputs of a matrix of [`PROBE_ROWS`] outputs, under the name `x`.
const PROBES: [usize; 2] = [128, 256];
const PROBE_ROWS: usize = 4;

/// Multiplies with a weight of a file, if it is there and sound.
fn probe(loader: &mut Loader<'_>, device: &Device) -> Result<()> {
    for n_in in PROBES {
        let name = format!("x{n_in}");
        if !loader.has(&format!("{name}.weight")) {
            continue;
        }
        let weight = loader.layer_weight(&name, PROBE_ROWS, n_in);
        if weight.n_in() != n_in {
            continue;
        }
        let x = Tensor::from_f32(device, &vec![1.0; n_in], Shape::matrix(1, n_in))?;
        let sums = ops::linear(&x, &weight, None, Activation::None, DType::F32)?;
        assert_eq!(sums.shape().dims(), [1, PROBE_ROWS]);
    }
    Ok(())
}

/// A GGUF file in place of a component's weights.
fn gguf(place: &mut Place, input: &[u8]) -> Result<()> {
    const NAME: &str = "x.gguf";
    place.write(NAME, input);
    let read = |component, parts| {
        let files = place.open(parts)?;
        let mut loader = files.loader(component, &place.device, DType::F32)?;
        probe(&mut loader, &place.device)?;
        Ok::<_, Error>(loader.left_over().len())
    };
    let path = Some(place.path(NAME));
    let transformer = Parts { transformer: path.clone(), ..Parts::default() };
    let text_encoder = Parts { text_encoder: path, ..Parts::default() };
    let as_encoder = read(Component::TextEncoder, text_encoder);
    let as_transformer = read(Component::Transformer, transformer.clone());
    let network =
        place.open(transformer).and_then(|files| load(&files, Component::Transformer, &place.device, &[]));
    place.lone(NAME);
    place.restore();
    as_encoder?;
    let left_over = as_transformer?;
    match network {
        // A file of some tensors is no network, which the loader says.
        Err(Error::Tensors { .. }) => Ok(()),
        other => other.map(|()| assert!(left_over > 0, "a network of no tensors")),
    }
}

/// Packed weights as MLX, ComfyUI and `convert` store them, and the config that tells of them.
fn packed(place: &mut Place, input: &[u8]) -> Result<()> {
    const CONFIG: &str = "transformer/config.json";
    const NAME: &str = "x.safetensors";
    for (name, content) in sections(input, &[CONFIG, NAME]) {
        place.write(name, &content);
    }
    let path = place.path(NAME);
    let parts = Parts { transformer: path.is_file().then_some(path), ..Parts::default() };
    let result = place.open(parts).and_then(|files| {
        let mut loader = files.loader(Component::Transformer, &place.device, DType::F32)?;
        probe(&mut loader, &place.device)
    });
    place.restore();
    result
}

/// A layer of the tiny model that inputs may have something for, its inputs and outputs.
const LAYER: (&str, usize, usize) = ("transformer_blocks.0.img_mlp.net.0.proj", 64, 256);

/// A LoRA, LoKr or LoHa, and what the transformer says to it; multiplies with what it has for a layer.
fn lora(place: &mut Place, input: &[u8]) -> Result<()> {
    const NAME: &str = "x.safetensors";
    place.write(NAME, &framed(input));
    let opened = Lora::open(&place.path(NAME), &place.device);
    let result = opened.and_then(|lora| {
        assert!(lora.summary().is_ok_and(|summary| summary.layers > 0), "a LoRA of no layers");
        let applied = [Applied { lora: Arc::new(lora), scale: 0.5 }];
        let files = place.open(Parts::default())?;
        load(&files, Component::Transformer, &place.device, &applied)?;
        let loader = files.loader(Component::Transformer, &place.device, DType::F32)?;
        let (name, n_in, n_out) = LAYER;
        let layer = Linear::load(&mut loader.with_loras(&applied), name, n_in, n_out);
        let x = Tensor::from_f32(&place.device, &vec![1.0; n_in], Shape::matrix(1, n_in))?;
        assert_eq!(layer.forward_f32(&x)?.shape().dims(), [1, n_out]);
        Ok(())
    });
    place.restore();
    result
}

/// A tokenizer, as one file or in parts.
fn tokenizer(place: &mut Place, input: &[u8]) -> Result<()> {
    const WHOLE: &str = "tokenizer/tokenizer.json";
    const NAMES: [&str; 4] =
        [WHOLE, "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"];
    let sections = sections(input, &NAMES);
    if !sections.is_empty() && sections.iter().all(|(name, _)| *name != WHOLE) {
        place.remove(WHOLE);
    }
    for (name, content) in sections {
        place.write(name, &content);
    }
    let text = place.open(Parts::default()).and_then(|files| files.tokenizer());
    place.restore();
    let tokenizer = PromptTokenizer::from_json(&text?)?;
    for prompt in ["a photo of a cat", "<|im_end|>\n一只猫 \u{0}\u{1f408}", " \r\n\r\n  e\u{301}'S 12"] {
        drop(tokenizer.encode(prompt));
    }
    Ok(())
}
