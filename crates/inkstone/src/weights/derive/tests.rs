use super::*;
use crate::models::{qwen_image, qwen_vae, qwen25_vl};
use crate::weights::RandomModel;

const QWEN_IMAGE: RandomModel = RandomModel { blocks: RandomModel::BLOCKS, layers: RandomModel::LAYERS };

fn tensors(list: &[(&str, &[usize])]) -> Vec<(String, Shape)> {
    list.iter().map(|(name, dims)| ((*name).to_owned(), Shape::new(dims).unwrap())).collect()
}

fn of(component: Component, tensors: &[(String, Shape)]) -> String {
    config(component, tensors, &Noted::default()).unwrap()
}

/// What the sizes depend on, as ComfyUI names it; packed columns do not count.
fn transformer() -> Vec<(String, Shape)> {
    let mut list = tensors(&[
        ("model.diffusion_model.img_in.weight", &[3072, 16]),
        ("model.diffusion_model.txt_norm.weight", &[3584]),
        ("model.diffusion_model.proj_out.weight", &[64, 3072]),
        ("vae.encoder.conv1.weight", &[96, 3, 3, 3, 3]),
    ]);
    let norm = |i: usize| format!("model.diffusion_model.transformer_blocks.{i}.attn.norm_q.weight");
    list.extend((0..60).map(|i| (norm(i), Shape::vector(128))));
    list
}

#[test]
fn qwen_images_sizes_follow_from_its_shapes() {
    let got = qwen_image::Config::from_json(&of(Component::Transformer, &transformer())).unwrap();
    assert_eq!(got, QWEN_IMAGE.transformer().unwrap());

    let mut list = tensors(&[
        ("token_embd.weight", &[152_064, 3584]),
        ("output_norm.weight", &[3584]),
        ("blk.0.attn_q.weight", &[3584, 3584]),
        ("blk.0.attn_k.weight", &[512, 3584]),
        ("blk.0.ffn_gate.weight", &[18944, 3584]),
    ]);
    list.extend((0..28).map(|i| (format!("blk.{i}.attn_norm.weight"), Shape::vector(3584))));
    let got = qwen25_vl::Config::from_json(&of(Component::TextEncoder, &list)).unwrap();
    let want = qwen25_vl::Config { vocab_size: 152_064, ..QWEN_IMAGE.text_encoder().unwrap() };
    assert_eq!(got, want);

    let mut list = tensors(&[
        ("encoder.conv1.weight", &[96, 3, 3, 3, 3]),
        ("conv2.weight", &[16, 16, 1, 1, 1]),
        ("decoder.head.2.weight", &[3, 96, 3, 3, 3]),
        ("decoder.middle.0.residual.2.weight", &[384, 384, 3, 3, 3]),
    ]);
    for (first, width) in [(0, 384), (4, 384), (8, 192), (12, 96)] {
        for block in first..first + 3 {
            let name = format!("decoder.upsamples.{block}.residual.2.weight");
            list.push((name, Shape::new(&[width, 192, 3, 3, 3]).unwrap()));
        }
    }
    let got = qwen_vae::Config::from_json(&of(Component::Vae, &list)).unwrap();
    let want = qwen_vae::Config {
        latents_mean: LATENTS_MEAN.to_vec(),
        latents_std: LATENTS_STD.to_vec(),
        ..QWEN_IMAGE.vae().unwrap()
    };
    assert_eq!(got, want);
}

#[test]
fn what_only_a_config_could_explain_is_refused() {
    let mut list = transformer();
    list.push((
        "model.diffusion_model.time_text_embed.addition_t_embedding.weight".into(),
        Shape::matrix(2, 3072),
    ));
    let error = qwen_image::Config::from_json(&of(Component::Transformer, &list)).unwrap_err();
    assert!(error.to_string().contains("use_additional_t_cond"), "{error}");

    let mut list = transformer();
    list.iter_mut()
        .filter(|(_, shape)| *shape == Shape::vector(128))
        .for_each(|(_, shape)| *shape = Shape::vector(64));
    let error = config(Component::Transformer, &list, &Noted::default()).unwrap_err();
    assert!(error.to_string().contains("attention_head_dim is 64"), "{error}");

    // The latents of Wan 2.2.
    let list = tensors(&[
        ("encoder.conv_in.weight", &[160, 12, 3, 3, 3]),
        ("post_quant_conv.weight", &[48, 48, 1, 1, 1]),
    ]);
    let error = config(Component::Vae, &list, &Noted::default()).unwrap_err();
    assert!(error.to_string().contains("z_dim is 48"), "{error}");
}

#[test]
fn tensors_that_tell_the_sizes_are_asked_for_by_name() {
    for (component, tensor) in [
        (Component::Transformer, "transformer_blocks.0.attn.norm_q.weight"),
        (Component::TextEncoder, "model.embed_tokens.weight"),
        (Component::Vae, "decoder.up_blocks.0.resnets.0.conv1.weight"),
    ] {
        let Err(Error::Tensors { report, .. }) = config(component, &[], &Noted::default()) else { panic!() };
        assert!(report.missing.iter().any(|name| name == tensor), "{report}");
    }
    // No dimensions, and a width that nothing divides.
    let list = tensors(&[("img_in.weight", &[]), ("txt_norm.weight", &[0])]);
    assert!(config(Component::Transformer, &list, &Noted::default()).is_err());
    let list = tensors(&[("encoder.conv_in.weight", &[0, 3]), ("post_quant_conv.weight", &[16])]);
    assert!(config(Component::Vae, &list, &Noted::default()).is_err());
}
