//! Files whose vectors and convolutions are in formats that only products read.

use inkstone::models::qwen_vae::{Config, Vae};
use inkstone::nn::strips::Strips;
use inkstone::progress::Context;
use inkstone::weights::Component;
use inkstone_tensor::{Shape, Tensor};

use crate::formats::{distance, hidden, loader, transformer_step};
use crate::taps::{F32_TOLERANCE, Fixture, path, text};
use crate::vae::pixels_first;

#[test]
fn networks_whose_vectors_are_quantized_too_compute_what_the_reference_does() {
    let (fixture, plain) = (Fixture::open("small"), Fixture::open("gguf_qwen"));
    for (name, ending) in [("cast", "safetensors"), ("scaled", "safetensors"), ("vectors", "gguf")] {
        let want = fixture.values(&format!("output.{name}"));
        let got = transformer_step(&fixture, &format!("formats/transformer_{name}.{ending}"));
        let error = distance(&got, &want);
        assert!(error <= F32_TOLERANCE, "{name}: {error}");
        // The files are farther from the weights they were made of than we are from the files.
        let apart = distance(&want, &plain.values("output.bf16"));
        assert!(apart > 10.0 * error, "{name}: {apart} {error}");
    }
    let hidden = hidden(&fixture, "formats/text_encoder_cast.safetensors");
    let error = distance(&hidden, &fixture.values("hidden.cast"));
    assert!(error <= F32_TOLERANCE, "text encoder: {error}");
}

/// A tensor `[1, c, 1, h, w]` of the fixture as `[1, h, w, c]`.
fn input(fixture: &Fixture, vae: &Vae, name: &str) -> Tensor {
    let dims = fixture.dims(name);
    let values = pixels_first(&fixture.values(name), dims[1]);
    Tensor::from_f32(vae.device(), &values, Shape::nhwc(1, dims[3], dims[4], dims[1])).unwrap()
}

#[test]
fn vaes_whose_convolutions_are_quantized_compute_what_the_reference_does() {
    let fixture = Fixture::open("small");
    let config = Config::from_json(&text("qwen_tiny/vae/config.json")).unwrap();
    for (name, ending) in [("cast", "safetensors"), ("scaled", "safetensors"), ("reshaped", "gguf")] {
        let mut loader = loader(Component::Vae, path(&format!("formats/vae_{name}.{ending}")));
        let vae = Vae::load(&config, &mut loader).unwrap();
        loader.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (latents, image) = (input(&fixture, &vae, "latents"), input(&fixture, &vae, "image"));
        let decoded = vae.decode(&latents, Strips::Whole, &Context::default()).unwrap();
        // The reference cuts pictures off.
        let decoded: Vec<f32> = decoded.to_f32().unwrap().iter().map(|v| v.clamp(-1.0, 1.0)).collect();
        let encoded = vae.encode(&image, Strips::Whole, &Context::default()).unwrap();
        let encoded = encoded.mean.to_f32().unwrap();
        for (got, what, channels) in [(decoded, "decoded", 3), (encoded, "encoded", 16)] {
            let want = pixels_first(&fixture.values(&format!("{what}.{name}")), channels);
            let error = distance(&got, &want);
            assert!(error <= F32_TOLERANCE, "{name}, {what}: {error}");
        }
    }
}
