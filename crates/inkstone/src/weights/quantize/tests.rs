use std::path::Path;

use inkstone_tensor::{DType, Device, Quantized, Shape, cpu};
use serde_json::json;

use super::*;
use crate::weights::{Loader, SafeTensors};

fn apply(layer: &str, values: &[f32], cols: usize) -> (Weight, Format) {
    by(Quantization::Int8, layer, values, cols).unwrap()
}

fn by(quantization: Quantization, layer: &str, values: &[f32], cols: usize) -> Result<(Weight, Format)> {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let shape = Shape::matrix(values.len() / cols, cols);
    let stored = Tensor::from_f32(&device, values, shape).unwrap();
    let rule = Rule::from(quantization);
    let applied = rule.apply("transformer", layer, &stored, stored.cols())?;
    let bytes: usize = applied.0.tensors().iter().map(|t| t.shape().count() * t.dtype().size_bytes()).sum();
    assert!(bytes <= rule.most_bytes(layer, &stored));
    Ok(applied)
}

#[test]
fn entry_and_exit_stay_as_they_are() {
    let values = [0.5; 64];
    let kept = [
        "img_in",
        "txt_in",
        "proj_out",
        "norm_out.linear",
        "transformer_blocks.7.img_mod.1",
        "transformer_blocks.7.txt_mod.1",
        "time_text_embed.timestep_embedder.linear_2",
    ];
    for layer in kept {
        let (weight, format) = apply(layer, &values, 64);
        assert!(matches!((weight, format), (Weight::Dense(_), Format::KeptFor(_))), "{layer}");
    }
    for layer in [
        "transformer_blocks.7.attn.to_q",
        "model.layers.3.mlp.down_proj",
        "transformer_blocks.0.img_mlp.net.2",
    ] {
        let (weight, format) = apply(layer, &values, 64);
        assert!(matches!((weight, format), (Weight::Int8(_), Format::Int8(_))), "{layer}");
    }
}

#[test]
fn a_layer_that_would_lose_too_much_stays_as_it_is() {
    // One value of 127 makes steps of 1; the others, 0.4 at most, are rounded to nothing. They are 1022 * 0.08 of
    // 16129 + 82 parts of the energy: 7 % in amplitude. An odd number of inputs cannot be rotated.
    let value = |i: u16| if i == 5 { 127.0 } else { 0.4 * f32::from(i).sin() };
    let values: Vec<f32> = (0..1023).map(value).collect();
    let (weight, format) = apply("layer", &values, 1023);
    assert!(matches!(weight, Weight::Dense(_)));
    let Format::KeptAt(error) = format else { panic!("{format:?}") };
    assert!((error - 0.07).abs() < 0.005, "{error}");
    // With one more of them they can.
    let even: Vec<f32> = (0..1024).map(value).collect();
    let (_, format) = apply("layer", &even, 1024);
    assert!(matches!(format, Format::Int8(_)), "{format:?}");
}

#[test]
fn packed_codes_keep_the_edges_and_have_more_bits_for_modulations_and_the_picture() {
    let bits = |quantization, layer, cols: usize| {
        let values: Vec<f32> = (0..u16::try_from(4 * cols).unwrap()).map(|i| f32::from(i).sin()).collect();
        match by(quantization, layer, &values, cols).unwrap() {
            (Weight::Quantized(_), Format::Affine { bits, lost }) if lost > 0.0 && lost < 0.1 => Some(bits),
            (Weight::Dense(_), Format::KeptFor(_)) => None,
            other => panic!("{layer}: {other:?}"),
        }
    };
    for (layer, q8, q4) in [
        ("img_in", None, None),
        ("txt_in", None, None),
        ("proj_out", None, None),
        ("norm_out.linear", None, None),
        ("time_text_embed.timestep_embedder.linear_1", None, None),
        ("transformer_blocks.7.txt_mod.1", Some(8), Some(6)),
        ("transformer_blocks.7.img_mod.1", Some(8), Some(6)),
        ("transformer_blocks.7.attn.to_q", Some(8), Some(5)),
        ("transformer_blocks.7.attn.to_out.0", Some(8), Some(5)),
        ("transformer_blocks.7.img_mlp.net.0.proj", Some(8), Some(5)),
        ("transformer_blocks.7.img_mlp.net.2", Some(8), Some(5)),
        ("transformer_blocks.7.attn.add_q_proj", Some(8), Some(4)),
        ("transformer_blocks.7.attn.to_add_out", Some(8), Some(4)),
        ("transformer_blocks.7.txt_mlp.net.2", Some(8), Some(4)),
        ("model.layers.3.self_attn.q_proj", Some(8), Some(4)),
        ("model.layers.3.mlp.down_proj", Some(8), Some(4)),
    ] {
        assert_eq!(
            (bits(Quantization::Q8, layer, 128), bits(Quantization::Q4, layer, 128)),
            (q8, q4),
            "{layer}"
        );
        assert_eq!(bits(Quantization::Q4, layer, 96), None, "{layer}: rows of 1.5 groups");
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut values = [0.5; 128];
    values[100] = f32::NAN;
    for quantization in [Quantization::Int8, Quantization::Q8, Quantization::Q4] {
        let error = by(quantization, "a.layer", &values, 64).unwrap_err();
        let Error::WeightsNotFinite { component, first, .. } = error else { panic!("{error:?}") };
        assert_eq!((component.as_str(), first), ("transformer", vec!["a.layer.weight".to_owned()]));
    }
}

/// A layer in f32 is larger than what the drawing takes: a buffer of each size would stay until its end.
#[test]
fn nothing_is_kept_of_floats_of_8_bits_that_were_widened() {
    let (n_out, n_in) = (256, 4096);
    let header =
        json!({"a.weight": {"dtype": "F8_E4M3", "shape": [n_out, n_in], "data_offsets": [0, n_out * n_in]}});
    let header = header.to_string();
    let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let file = [&head[..], &vec![0x38; n_out * n_in]].concat();
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let file = SafeTensors::from_bytes(Path::new("x"), &file, &device).unwrap();
    let before = device.held_bytes();
    let mut loader =
        Loader::new("transformer", &device, DType::Bf16, file.tensors).with_rule(Quantization::Q8);
    let weight = loader.layer_weight("a", n_out, n_in);
    let Weight::Quantized(matrix) = weight else { panic!("{weight:?}") };
    assert!(matches!(*matrix, Quantized::Affine(_)), "{matrix:?}");
    // A byte a weight, and two numbers for each 64; as f32 they have four.
    let held = device.held_bytes() - before;
    assert!((n_out * n_in..2 * n_out * n_in).contains(&held), "{held}");
}
