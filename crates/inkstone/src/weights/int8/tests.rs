use inkstone_tensor::{Device, Shape, cpu};

use super::*;

fn apply(layer: &str, values: &[f32], cols: usize) -> (Weight, Format) {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let shape = Shape::matrix(values.len() / cols, cols);
    let stored = Tensor::from_f32(&device, values, shape).unwrap();
    Int8Rule::default().apply(layer, &stored).unwrap()
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
