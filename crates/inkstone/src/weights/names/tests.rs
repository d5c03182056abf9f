use std::path::Path;

use inkstone_tensor::{Device, Shape, Tensor};

use super::*;
use crate::golden;

/// Tensors of these names.
fn named<'a>(names: impl Iterator<Item = &'a str>) -> SafeTensors {
    let device = Device::cpu(&Default::default()).unwrap();
    let one = Tensor::from_f32(&device, &[0.0], Shape::vector(1)).unwrap();
    let tensors = names.map(|name| (name.to_owned(), one.clone())).collect();
    SafeTensors { tensors, ..SafeTensors::default() }
}

/// Pairs of another program's name and ours.
fn pairs(table: &str) -> Vec<(String, String)> {
    let file = if table == "mflux_vae" { "names_mflux.json" } else { "names.json" };
    serde_json::from_value(golden::json(file)[table].clone()).unwrap()
}

#[test]
fn every_name_of_other_programs_becomes_ours() {
    for (table, component) in [
        ("llama_cpp", Component::TextEncoder),
        ("wan_vae", Component::Vae),
        ("mflux_transformer", Component::Transformer),
        ("mflux_vae", Component::Vae),
    ] {
        let pairs = pairs(table);
        assert!(pairs.len() > 20, "{table}");
        let mut tensors = named(pairs.iter().map(|(theirs, _)| theirs.as_str()));
        make_canonical(component, &mut tensors);
        let mut want: Vec<&String> = pairs.iter().map(|(_, ours)| ours).collect();
        want.sort();
        assert_eq!(tensors.tensors.keys().collect::<Vec<_>>(), want, "{table}");
        let last = if table == "mflux_vae" { Order::ChannelsLast } else { Order::ChannelsFirst };
        assert_eq!(tensors.order, last, "{table}");
    }
}

#[test]
fn our_own_names_stay() {
    let files = [
        (Component::Transformer, "transformer/diffusion_pytorch_model.safetensors"),
        (Component::TextEncoder, "text_encoder/model.safetensors"),
        (Component::Vae, "vae/diffusion_pytorch_model.safetensors"),
    ];
    for (component, file) in files {
        let path = golden::path(&format!("qwen_tiny/{file}"));
        let shapes = crate::weights::safetensors::shapes(Path::new(&path)).unwrap();
        let names: Vec<String> = shapes.into_iter().map(|(name, _)| name).collect();
        let mut tensors = named(names.iter().map(String::as_str));
        let before: Vec<String> = tensors.tensors.keys().cloned().collect();
        make_canonical(component, &mut tensors);
        assert_eq!(tensors.tensors.keys().cloned().collect::<Vec<_>>(), before);
    }
}

#[test]
fn of_a_file_with_several_components_the_others_are_left_out() {
    let names =
        ["model.diffusion_model.img_in.weight", "vae.conv1.weight", "vae.decoder.middle.0.residual.0.gamma"];
    let mut tensors = named(names.into_iter());
    make_canonical(Component::Transformer, &mut tensors);
    assert_eq!(tensors.tensors.keys().collect::<Vec<_>>(), ["img_in.weight"]);
    let mut tensors = named(names.into_iter());
    make_canonical(Component::Vae, &mut tensors);
    let want = ["decoder.mid_block.resnets.0.norm1.gamma", "quant_conv.weight"];
    assert_eq!(tensors.tensors.keys().collect::<Vec<_>>(), want);
}

#[test]
fn names_that_no_dialect_has_are_left_as_they_are() {
    for name in
        ["blk.", "blk.x", "decoder.upsamples.", "decoder.upsamples.18446744073709551616.x", "output", ""]
    {
        for component in Component::ALL {
            for dialect in dialects(component) {
                let _ = (dialect.rename)(name);
            }
        }
    }
    assert_eq!(wan_vae("decoder.upsamples.x.time_conv.weight"), "decoder.upsamples.x.time_conv.weight");
}
