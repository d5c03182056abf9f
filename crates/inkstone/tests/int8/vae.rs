//! The VAE: a block of its full width with outlier channels, and pictures through a random one of full size.

use std::collections::BTreeMap;

use inkstone::Pixels;
use inkstone::models::qwen_vae::Vae;
use inkstone::nn::conv::{Conv, ConvShape};
use inkstone::nn::norm::ChannelNorm;
use inkstone::nn::strips::{StripWalk, Strips};
use inkstone::progress::Context;
use inkstone::weights::{Format, Int8Rule, Loader, Quantization, RandomModel, Rule};
use inkstone_tensor::ops::Activation;
use inkstone_tensor::{DType, Device, Shape, Tensor, cpu};

use crate::blocks::{LEAST_COSINE, Random};
use crate::drawing::psnr_db;
use crate::pictures::{LEAST_PSNR_DB, LEAST_SSIM};
use crate::similarity::{cosine, ssim};

const CHANNELS: usize = 384;
/// Of a picture that a block sees.
const SIZE: [usize; 2] = [6, 20];
/// 0.5 % of the channels are larger than the others behind both norms; 0.3 % would be one.
const OUTLIERS: [(usize, f32); 2] = [(77, 20.0), (300, 100.0)];

/// Factor on what the norms' outliers make larger: the residual of a trained network is larger than what one block adds.
/// Rounding both operands of two convolutions loses 2 % of what the block adds, which may be 0.4 of the result's energy
/// at most for the gate.
const RESIDUAL: f32 = 4.0;

/// What a residual block gives: `x + conv2(silu(norm2(conv1(silu(norm1(x))))))`.
fn block(device: &Device, tensors: &BTreeMap<String, Tensor>, rule: Option<Int8Rule>) -> Vec<f32> {
    let mut loader = Loader::new("VAE", device, DType::F32, tensors.clone());
    if let Some(rule) = rule {
        loader = loader.with_rule(Rule::Int8(rule));
    }
    let shape = ConvShape { c_in: CHANNELS, c_out: CHANNELS, kernel: 3 };
    let [(norm1, conv1), (norm2, conv2)] = ["1", "2"].map(|i| {
        let norm = ChannelNorm::load(&mut loader, &format!("norm{i}"), CHANNELS, 3);
        (norm, Conv::load(&mut loader, &format!("conv{i}"), shape))
    });
    let in_bytes = loader.formats().iter().filter(|f| matches!(f.format, Format::Int8(_))).count();
    assert_eq!(in_bytes, if rule.is_some() { 2 } else { 0 });
    loader.finish().unwrap();
    let x = Random(11).values(SIZE[0] * SIZE[1] * CHANNELS, 0.0, 1.7 * RESIDUAL);
    let x = Tensor::from_f32(device, &x, Shape::nhwc(1, SIZE[0], SIZE[1], CHANNELS)).unwrap();
    let walk = &mut StripWalk::whole();
    let h = conv1.forward_normed(&x, norm1.then(Activation::Silu), walk).unwrap();
    conv2.forward_add(x, &h, norm2.then(Activation::Silu), walk).unwrap().to_f32().unwrap()
}

/// A block's tensors, which keep the size of activations but for the outliers.
fn tensors(device: &Device, outliers: &[(usize, f32)]) -> BTreeMap<String, Tensor> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, values: &[f32], shape: &[usize]| {
        let shape = Shape::new(shape).unwrap();
        tensors.insert(name, Tensor::from_f32(device, values, shape).unwrap());
    };
    for i in [1, 2] {
        let mut gamma = random.values(CHANNELS, 1.0, 0.1);
        outliers.iter().for_each(|(c, factor)| gamma[*c] *= factor);
        add(format!("norm{i}.gamma"), &gamma, &[CHANNELS, 1, 1, 1]);
        // Uniform values up to sqrt(3 / n) have the variance 1 / n.
        let n_in = 9 * CHANNELS;
        let weight = random.values(CHANNELS * n_in, 0.0, (3.0 / n_in as f32).sqrt());
        add(format!("conv{i}.weight"), &weight, &[CHANNELS, CHANNELS, 3, 3]);
        add(format!("conv{i}.bias"), &random.values(CHANNELS, 0.0, 0.1), &[CHANNELS]);
    }
    tensors
}

#[test]
fn a_residual_block_needs_the_rotation_where_channels_are_outliers() {
    let device = Device::cpu(&cpu::Options { threads: Some(2), isa: None }).unwrap();
    let plain = Int8Rule { max_group: 1, max_relative_error: 1.0 };
    let cosines = |outliers: &[(usize, f32)]| {
        let tensors = tensors(&device, outliers);
        let want = block(&device, &tensors, None);
        [Int8Rule::default(), plain].map(|rule| cosine(&block(&device, &tensors, Some(rule)), &want))
    };
    let [rotated, plain] = cosines(&OUTLIERS);
    let even = cosines(&[]);
    assert!(rotated >= LEAST_COSINE && even[0] >= LEAST_COSINE, "{rotated}, {even:?} with rotation");
    assert!(plain < LEAST_COSINE, "{plain} without");
}

fn vae(device: &Device, quantization: Option<Quantization>) -> Vae {
    let config = RandomModel { blocks: 1, layers: 1 }.vae().unwrap();
    let mut loader = Loader::random("VAE", device, DType::F32);
    if let Some(quantization) = quantization {
        loader = loader.with_rule(quantization);
    }
    let vae = Vae::load(&config, &mut loader).unwrap();
    let kept: Vec<_> = loader.formats().iter().filter(|f| !f.format.is_smaller()).collect();
    if quantization.is_some() {
        let edges = ["conv_in", "conv_out", "quant_conv"];
        assert!(
            kept.len() == 6 && kept.iter().all(|f| edges.iter().any(|e| f.name.ends_with(e))),
            "{kept:?}"
        );
        // Two a residual block, of which encoder and decoder have 10 and 14, three shortcuts, six that resample.
        assert_eq!(loader.formats().len() - kept.len(), 2 * 24 + 3 + 6);
    }
    loader.finish().unwrap();
    vae
}

#[test]
fn pictures_and_latents_of_a_full_size_vae_are_those_in_f32() {
    const SIDE: usize = 8;
    let device = Device::cpu(&cpu::Options { threads: Some(2), isa: None }).unwrap();
    let (plain, int8) = (vae(&device, None), vae(&device, Some(Quantization::Int8)));
    let ctx = Context::default();
    let latents = Random(5).values(SIDE * SIDE * 16, 0.0, 1.7);
    let latents = Tensor::from_f32(&device, &latents, Shape::nhwc(1, SIDE, SIDE, 16)).unwrap();
    let decode = |vae: &Vae, strips| vae.decode(&latents, strips, &ctx).unwrap();
    let image = decode(&plain, Strips::Whole);
    let rounded = decode(&int8, Strips::Whole);
    assert!(decode(&int8, Strips::Lines(3)).to_bytes() == rounded.to_bytes(), "strips change the picture");
    let (want, got) = (image.to_f32().unwrap(), rounded.to_f32().unwrap());
    let reach = want.iter().fold(0.0f32, |reach, v| reach.max(v.abs()));
    let pixels = |values: &[f32]| {
        #[allow(clippy::cast_possible_truncation, reason = "at most 255")]
        let byte = |v: &f32| (127.5 * (v / reach + 1.0)).round() as u8;
        Pixels { width_px: 8 * SIDE, height_px: 8 * SIDE, rgb: values.iter().map(byte).collect() }
    };
    let (want, got) = (pixels(&want), pixels(&got));
    let (psnr, ssim) = (psnr_db(&got, &want), ssim(&got, &want));
    assert!(psnr >= LEAST_PSNR_DB && ssim >= LEAST_SSIM, "{psnr:.1} dB, SSIM {ssim:.4}");

    let encode = |vae: &Vae, strips| vae.encode(&image, strips, &ctx).unwrap().mean;
    let (want, got) = (encode(&plain, Strips::Whole), encode(&int8, Strips::Whole));
    assert!(encode(&int8, Strips::Lines(3)).to_bytes() == got.to_bytes(), "strips change the latents");
    let alike = cosine(&got.to_f32().unwrap(), &want.to_f32().unwrap());
    // Some twenty blocks in a row, each of 0.9999 or more.
    assert!(alike >= 0.998, "{alike}");
}
