use inkstone_tensor::cpu;

use super::*;
use crate::weights::Loader;

fn device() -> Device {
    Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap()
}

#[test]
fn sizes_are_those_of_qwen_image() {
    let model = RandomModel { blocks: RandomModel::BLOCKS, layers: RandomModel::LAYERS };
    let transformer = model.transformer().unwrap();
    assert_eq!((transformer.heads.width(), transformer.num_layers, transformer.in_channels), (3072, 60, 64));
    let encoder = model.text_encoder().unwrap();
    assert_eq!((encoder.hidden_size, encoder.intermediate_size, encoder.num_layers), (3584, 18944, 28));
    assert_eq!(encoder.heads.kv_width(), 512);
    let vae = model.vae().unwrap();
    assert_eq!((vae.base_dim, vae.z_dim, vae.dim_mult), (96, 16, vec![1, 2, 4, 4]));
}

#[test]
fn a_random_loader_answers_every_request_in_its_shape() {
    let mut loader = Loader::random("transformer", &device(), DType::F32);
    let weight = loader.tensor("proj.weight", &[64, 300]);
    assert_eq!((weight.shape().dims(), weight.dtype()), (&[64, 300][..], DType::Bf16));
    let values = weight.to_f32().unwrap();
    let variance = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
    assert!((variance * 300.0 - 1.0).abs() < 0.05, "{variance}");
    let norm = loader.vector("norm.weight", 500).to_f32().unwrap();
    assert!(norm.iter().all(|v| (0.89..=1.11).contains(v)));
    let bias = loader.vector("proj.bias", 500).to_f32().unwrap();
    assert!(bias.iter().all(|v| v.abs() <= 0.021) && bias.iter().any(|v| *v != bias[0]));
    loader.finish().unwrap();
}

#[test]
fn a_size_that_no_machine_has_is_an_error_of_the_loading() {
    let mut loader = Loader::random("transformer", &device(), DType::F32);
    let nothing = loader.weight("proj.weight", usize::MAX, 2);
    assert_eq!(nothing.n_out(), 0);
    assert_eq!(loader.finish().unwrap_err().code(), "INK-0402");
}
