//! Every model takes exactly the tensors that are in its files, and says so where they are not.

use std::collections::BTreeMap;

use inkstone::Error;
use inkstone::models::{qwen_image, qwen_vae, qwen25_vl};
use inkstone::weights::Loader;
use inkstone_tensor::{DType, Shape, Tensor};

use crate::taps;

const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";
const TEXT_ENCODER: &str = "text_encoder/model.safetensors";

/// Loads a component of the model in a folder.
fn load(folder: &str, component: &str, loader: &mut Loader) {
    let config = taps::text(&format!("{folder}/{component}/config.json"));
    match component {
        "transformer" => {
            let config = qwen_image::Config::from_json(&config).unwrap();
            qwen_image::Transformer::load(&config, loader).unwrap();
        }
        "vae" => {
            let config = qwen_vae::Config::from_json(&config).unwrap();
            qwen_vae::Vae::load(&config, loader).unwrap();
        }
        _ => {
            let config = qwen25_vl::Config::from_json(&config).unwrap();
            qwen25_vl::TextEncoder::load(&config, loader).unwrap();
        }
    }
}

#[test]
fn every_tensor_of_both_models_is_taken() {
    let device = taps::device(1);
    for folder in ["qwen_tiny", "../../models/tiny"] {
        for file in [TRANSFORMER, VAE, TEXT_ENCODER] {
            let mut loader = taps::loader(&format!("{folder}/{file}"), &device, DType::F32);
            load(folder, file.split('/').next().unwrap(), &mut loader);
            loader.finish().unwrap_or_else(|error| panic!("{folder}/{file}: {error}"));
        }
    }
}

#[test]
fn without_any_tensor_the_loader_reports_them_all() {
    let device = taps::device(1);
    for (component, count) in [("transformer", 75), ("vae", 140), ("text_encoder", 38)] {
        let mut loader = Loader::new(component, &device, DType::F32, BTreeMap::new());
        load("qwen_tiny", component, &mut loader);
        let Err(Error::Tensors { report, .. }) = loader.finish() else { panic!("{component} loaded") };
        assert!(report.missing.len() >= count, "{component}: {} missing", report.missing.len());
    }
}

#[test]
fn misshapen_tensors_are_reported_by_name() {
    let device = taps::device(1);
    let small = Tensor::from_f32(&device, &[0.0; 6], Shape::matrix(2, 3)).unwrap();
    for (component, name) in [
        ("transformer", "transformer_blocks.1.attn.to_q.weight"),
        ("vae", "decoder.conv_in.weight"),
        ("vae", "decoder.mid_block.attentions.0.to_qkv.weight"),
        ("vae", "encoder.norm_out.gamma"),
        ("text_encoder", "model.embed_tokens.weight"),
    ] {
        let tensors = BTreeMap::from([(name.to_owned(), small.clone())]);
        let mut loader = Loader::new(component, &device, DType::F32, tensors);
        load("qwen_tiny", component, &mut loader);
        let Err(Error::Tensors { report, .. }) = loader.finish() else { panic!("{component} loaded") };
        assert_eq!(report.misshapen.len(), 1);
        assert_eq!(report.misshapen[0].name, name);
    }
}
