//! Weights in the formats of other programs: decoders against the references' values, and networks that run with them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use inkstone::Error;
use inkstone::models::{qwen_image, qwen_vae, qwen25_vl};
use inkstone::nn::rope::Grid;
use inkstone::nn::strips::Strips;
use inkstone::progress::Context;
use inkstone::weights::{
    Component, Format, Loader, ModelFiles, ModelSource, Parts, Quantization, ReadOptions, Residence,
    SafeTensors, Strictness, safetensors,
};
use inkstone_tensor::ops::{self, Activation};
use inkstone_tensor::{
    Affine, AffineBits, BlockFormat, Blocks, DType, Float8, Quantized, Shape, Storage, Tensor, Weight,
};

use crate::taps::{self, F32_TOLERANCE, Fixture, device, path};

/// Half the distance from 1 to the next f32, and to the next bf16.
const F32_STEP: f32 = 1.0 / 16_777_216.0;
const BF16_STEP: f32 = 1.0 / 256.0;

fn open(name: &str) -> SafeTensors {
    SafeTensors::open(&path(name), &device(1), Residence::Mapped).unwrap()
}

/// All values of a matrix.
fn values(matrix: Quantized) -> Vec<f32> {
    let weight = Weight::from(matrix);
    let ids: Vec<u32> = (0..u32::try_from(weight.n_out()).unwrap()).collect();
    ops::embedding(&weight, &ids, DType::F32).unwrap().to_f32().unwrap()
}

#[test]
fn blocks_decode_to_the_references_values() {
    let file = open("gguf_tensors.safetensors");
    for format in BlockFormat::ALL {
        let name = format.name().to_lowercase();
        let bytes = file.tensors[&format!("{name}.bytes")].clone();
        let got = values(Quantized::Blocks(Blocks::new(format, bytes).unwrap()));
        assert!(got == file.tensors[&format!("{name}.values")].to_f32().unwrap(), "{name}");
    }
}

#[test]
fn affine_codes_decode_to_the_references_values() {
    let file = open("mlx.safetensors");
    let mut cases = 0;
    for name in file.tensors.keys().filter_map(|name| name.strip_suffix(".packed")) {
        let part = |part: &str| file.tensors[&format!("{name}.{part}")].clone();
        let bits = AffineBits::new(name[1..2].parse().unwrap()).unwrap();
        let group = name[4..6].parse().unwrap();
        let matrix = Affine::new(bits, group, part("packed"), part("scales"), part("biases")).unwrap();
        let got = values(Quantized::Affine(matrix));
        let biases = part("biases").to_f32().unwrap();
        // The reference rounds the product and the sum to the type of the scales, we round the sum once to f32.
        let step = if part("scales").dtype() == DType::F32 { F32_STEP } else { BF16_STEP };
        for (i, (got, want)) in got.iter().zip(part("values").to_f32().unwrap()).enumerate() {
            let product = (want - biases[i / group]).abs();
            let allowed = step * (1.0 + step) * (product + want.abs()) + F32_STEP * want.abs();
            assert!((got - want).abs() <= allowed, "{name} at {i}: {got} {want}");
        }
        cases += 1;
    }
    assert_eq!(cases, 15);
}

#[test]
fn a_product_with_affine_codes_is_the_references() {
    let file = open("mlx.safetensors");
    let part = |part: &str| file.tensors[part].clone();
    let [packed, scales, biases] =
        ["packed", "scales", "biases"].map(|p| part(&format!("b4.g64.float32.{p}")));
    let matrix = Affine::new(AffineBits::new(4).unwrap(), 64, packed, scales, biases).unwrap();
    let weight = Weight::from(Quantized::Affine(matrix));
    let got = ops::linear(&part("matmul.x"), &weight, None, Activation::None, DType::F32).unwrap();
    let got = got.to_f32().unwrap();
    let want = part("matmul.b4.g64").to_f32().unwrap();
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    // Two sums of 192 products of about this size, in another order each: 2 * 192 half steps.
    assert!(
        got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 400.0 * F32_STEP * largest),
        "{got:?} {want:?}"
    );
}

#[test]
fn eight_bit_floats_decode_to_the_references_values() {
    let fixture = Fixture::open("formats");
    for (kind, dtype, count) in [("e4m3", DType::F8E4m3, 254), ("e5m2", DType::F8E5m2, 248)] {
        let codes = fixture.bytes(&format!("{kind}.codes"));
        assert_eq!(codes.len(), count);
        let mut buffer = inkstone_tensor::AlignedBuffer::zeroed(count).unwrap();
        buffer.as_mut_slice().copy_from_slice(&codes);
        let shape = Shape::matrix(1, count);
        let tensor = Tensor::from_storage(&device(1), Storage::Owned(buffer), dtype, shape).unwrap();
        let got = values(Quantized::Float8(Float8::new(tensor, None).unwrap()));
        assert!(got == fixture.values(&format!("{kind}.values")), "{kind}");
    }
}

/// The loader of a component of the tiny model whose weights come from another file.
pub(crate) fn loader(component: Component, weights: PathBuf) -> Loader<'static> {
    let mut parts = Parts::default();
    match component {
        Component::Transformer => parts.transformer = Some(weights),
        Component::TextEncoder => parts.text_encoder = Some(weights),
        Component::Vae => parts.vae = Some(weights),
    }
    let source = ModelSource::Pieces { folder: path("qwen_tiny"), parts };
    let options = ReadOptions { strictness: Strictness::RefuseExtra, ..Default::default() };
    let files = ModelFiles::open(&source, options).unwrap();
    files.loader(component, &device(2), DType::F32).unwrap()
}

/// The largest distance as a part of the largest magnitude.
pub(crate) fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    got.iter().zip(want).fold(0f32, |m, (g, w)| m.max((g - w).abs())) / largest
}

pub(crate) fn transformer_step(fixture: &Fixture, weights: &str) -> Vec<f32> {
    step_of(fixture, weights, loader(Component::Transformer, path(weights)))
}

fn step_of(fixture: &Fixture, weights: &str, mut loader: Loader<'_>) -> Vec<f32> {
    let config = qwen_image::Config::from_json(&taps::text("qwen_tiny/transformer/config.json")).unwrap();
    let model = qwen_image::Transformer::load(&config, &mut loader).unwrap();
    loader.finish().unwrap_or_else(|error| panic!("{weights}: {error}"));
    let tensor = |name: &str| {
        let dims = fixture.dims(name);
        Tensor::from_f32(model.device(), &fixture.values(name), Shape::matrix(dims[1], dims[2])).unwrap()
    };
    let (latents, embeddings) = (tensor("hidden_states"), tensor("encoder_hidden_states"));
    let ctx = Context::default();
    let side = |i: usize| usize::try_from(fixture.about("grid")[i].as_u64().unwrap()).unwrap();
    let grids = [Grid { height: side(0), width: side(1) }];
    let prompts = qwen_image::Prompts { embeddings: &embeddings, lengths: &[embeddings.rows()] };
    let conditioning = model.condition(&prompts, &grids, &ctx).unwrap();
    let modulations = model.modulations(&fixture.values("timestep"), &ctx).unwrap();
    let inputs = qwen_image::Inputs {
        latents: &latents,
        conditioning: &conditioning,
        modulations: &modulations,
        step: 0,
    };
    model.forward(&inputs, &ctx).unwrap().to_f32().unwrap()
}

#[test]
fn transformers_in_every_format_compute_what_the_reference_does() {
    let (gguf, formats) = (Fixture::open("gguf_qwen"), Fixture::open("formats"));
    let convrot = Fixture::open("convrot");
    for (fixture, weights, output) in [
        (&gguf, "gguf/qwen_tiny_q8_0.gguf", "output.q8_0"),
        (&gguf, "gguf/qwen_tiny_q4_K.gguf", "output.q4_K"),
        (&formats, "formats/transformer_fp8.safetensors", "output.fp8"),
        (&formats, "formats/transformer_mflux.safetensors", "output.mflux"),
        (&convrot, "formats/transformer_convrot.safetensors", "output"),
    ] {
        let error = distance(&transformer_step(fixture, weights), &fixture.values(output));
        println!("{weights}: {error:.1e}");
        assert!(error <= F32_TOLERANCE, "{weights}: {error}");
        // The formats are farther from the weights they were made of than we are from the formats.
        let apart = distance(&fixture.values(output), &gguf.values("output.bf16"));
        assert!(apart > 10.0 * error, "{weights}: {apart} {error}");
    }
}

/// The weights are used as they are and activations rounded to 127 steps of the largest of a row, by 0.7 % of a normally distributed
/// one: what adds up over the products on the way is below 4 %, a cosine of 0.999.
#[test]
fn bytes_of_comfyui_are_multiplied_as_they_are_where_int8_is_wanted() {
    const WEIGHTS: &str = "formats/transformer_convrot.safetensors";
    let fixture = Fixture::open("convrot");
    let quantizing =
        |quantization: Quantization| loader(Component::Transformer, path(WEIGHTS)).with_rule(quantization);
    let mut formats = quantizing(Quantization::Int8);
    let config = qwen_image::Config::from_json(&taps::text("qwen_tiny/transformer/config.json")).unwrap();
    drop(qwen_image::Transformer::load(&config, &mut formats).unwrap());
    let as_they_are = formats.formats().iter().filter(|layer| layer.format == Format::Int8(0.0)).count();
    assert!(as_they_are >= 12, "{as_they_are} of {:?}", formats.formats());
    let (got, want) = (step_of(&fixture, WEIGHTS, quantizing(Quantization::Int8)), fixture.values("output"));
    let sum =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let cosine = sum(&got, &want) / (sum(&got, &got) * sum(&want, &want)).sqrt();
    println!("{as_they_are} layers, cosine {cosine:.6}, distance {:.1e}", distance(&got, &want));
    assert!(cosine > 0.999, "{cosine}");
    assert!(distance(&got, &want) > F32_TOLERANCE, "activations were not rounded");
    // No other form can be made of them.
    let mut packed = quantizing(Quantization::Q4);
    let _ = qwen_image::Transformer::load(&config, &mut packed);
    assert!(matches!(packed.finish().unwrap_err(), Error::AlreadyQuantized { .. }));
}

/// What the text encoder with these weights makes of a fixture's tokens.
pub(crate) fn hidden(fixture: &Fixture, weights: &str) -> Vec<f32> {
    let config = qwen25_vl::Config::from_json(&taps::text("qwen_tiny/text_encoder/config.json")).unwrap();
    let ids = fixture.integers("input_ids").unwrap();
    let ids: Vec<u32> = ids.into_iter().map(|id| u32::try_from(id).unwrap()).collect();
    let mut loader = loader(Component::TextEncoder, path(weights));
    let encoder = qwen25_vl::TextEncoder::load(&config, &mut loader).unwrap();
    loader.finish().unwrap_or_else(|error| panic!("{weights}: {error}"));
    encoder.forward(&[ids], &Context::default()).unwrap().to_f32().unwrap()
}

#[test]
fn text_encoders_in_every_format_compute_what_the_reference_does() {
    let fixture = Fixture::open("formats");
    for (weights, output) in
        [("formats/text_encoder.gguf", "hidden.gguf"), ("formats/text_encoder_mlx.safetensors", "hidden.mlx")]
    {
        let error = distance(&hidden(&fixture, weights), &fixture.values(output));
        println!("{weights}: {error:.1e}");
        assert!(error <= F32_TOLERANCE, "{weights}: {error}");
    }
}

/// What a VAE with these weights makes of latents and of a picture.
fn both_ways(weights: PathBuf) -> [Vec<u8>; 2] {
    let config = qwen_vae::Config::from_json(&taps::text("qwen_tiny/vae/config.json")).unwrap();
    let latents = Tensor::from_f32(&device(2), &[0.3; 6 * 16], Shape::nhwc(1, 2, 3, 16)).unwrap();
    let picture: Vec<f32> =
        (0..16 * 24 * 3).map(|i| f32::from(u8::try_from(i % 251).unwrap()) / 125.0 - 1.0).collect();
    let picture = Tensor::from_f32(&device(2), &picture, Shape::nhwc(1, 16, 24, 3)).unwrap();
    let mut loader = loader(Component::Vae, weights);
    let vae = qwen_vae::Vae::load(&config, &mut loader).unwrap();
    loader.finish().unwrap();
    let decoded = vae.decode(&latents, Strips::Whole, &Context::default()).unwrap();
    let encoded = vae.encode(&picture, Strips::Whole, &Context::default()).unwrap();
    [decoded.to_bytes(), encoded.mean.to_bytes()]
}

#[test]
fn a_vae_under_wans_names_is_the_same_vae() {
    let vae = "qwen_tiny/vae/diffusion_pytorch_model.safetensors";
    let names: serde_json::Value = serde_json::from_str(&taps::text("names.json")).unwrap();
    let pairs: Vec<(String, String)> = serde_json::from_value(names["wan_vae"].clone()).unwrap();
    let theirs: BTreeMap<String, String> = pairs.into_iter().map(|(theirs, ours)| (ours, theirs)).collect();
    let renamed = open(vae).tensors.into_iter().map(|(name, t)| (theirs[&name].clone(), t)).collect();
    let file = std::env::temp_dir().join(format!("inkstone-wan-vae-{}.safetensors", std::process::id()));
    std::fs::write(&file, safetensors::serialize(&renamed, &BTreeMap::new())).unwrap();
    let (want, got) = (both_ways(path(vae)), both_ways(file.clone()));
    std::fs::remove_file(file).unwrap();
    assert!(got == want);
}

#[test]
fn a_vae_of_mflux_is_the_same_vae() {
    let want = both_ways(path("qwen_tiny/vae/diffusion_pytorch_model.safetensors"));
    assert!(both_ways(path("formats/vae_mflux.safetensors")) == want);
}
