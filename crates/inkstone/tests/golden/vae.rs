use inkstone::models::qwen_vae::{Config, Vae};
use inkstone::nn::strips::Strips;
use inkstone::progress::Context;
use inkstone_tensor::{DType, Device, Shape, Tensor};

use crate::padding;
use crate::taps::{self, F32_TOLERANCE, Fixture, Recorder, bf16_bound};

fn vae(threads: usize, activations: DType) -> Vae {
    vae_on(&taps::device(threads), activations)
}

fn vae_on(device: &Device, activations: DType) -> Vae {
    let config = Config::from_json(&taps::text("qwen_tiny/vae/config.json")).unwrap();
    let weights = "qwen_tiny/vae/diffusion_pytorch_model.safetensors";
    let mut loader = taps::loader(weights, device, activations);
    let vae = Vae::load(&config, &mut loader).unwrap();
    loader.finish().unwrap();
    vae
}

/// `[1, c, 1, h, w]` of the reference as our `[h, w, c]`.
pub(crate) fn pixels_first(values: &[f32], channels: usize) -> Vec<f32> {
    let pixels = values.len() / channels;
    (0..values.len()).map(|i| values[i % channels * pixels + i / channels]).collect()
}

/// A tensor `[1, c, 1, h, w]` of a fixture as `[n, h, w, c]`, `n` times the same.
fn input(vae: &Vae, fixture: &Fixture, name: &str, n: usize) -> Tensor {
    let dims = fixture.dims(name);
    let values = pixels_first(&fixture.values(name), dims[1]).repeat(n);
    Tensor::from_f32(vae.device(), &values, Shape::nhwc(n, dims[3], dims[4], dims[1])).unwrap()
}

/// Roundings between the input and the last tap: about 45, for norm, convolution, norm, convolution and the sum that
/// the residual is kept in, in each block.
const ROUNDINGS: u8 = 45;

/// Pictures lie in -1..1.
const PEAK: f32 = 2.0;

fn check_decode(activations: DType, min_psnr_db: f32, allowed: impl Fn(&str) -> f32) {
    let (vae, fixture, taps) = (vae(2, activations), Fixture::open("qwen_vae_decode"), Recorder::default());
    let image = vae.decode(&input(&vae, &fixture, "latents", 1), Strips::Whole, &taps.context()).unwrap();
    assert_eq!(image.shape(), &Shape::nhwc(1, 48, 32, 3));
    let arrange = |name: &str, want: &[f32]| {
        let want = pixels_first(want, fixture.dims(name)[1]);
        // The reference cuts the picture off at -1 and 1; its last convolution is the same picture before that.
        if name == "image" { pixels_first(&fixture.values("conv_out"), 3) } else { want }
    };
    taps.compare(&format!("vae decode {activations}"), &fixture, &["latents"], arrange, allowed);
    let error = image.to_f32().unwrap().into_iter().zip(pixels_first(&fixture.values("image"), 3));
    let squares: f32 = error.map(|(got, want)| (got.clamp(-1.0, 1.0) - want).powi(2)).sum();
    let psnr_db = 10.0 * (PEAK * PEAK * image.shape().count() as f32 / squares).log10();
    println!("vae decode {activations}: {psnr_db:.1} dB");
    assert!(psnr_db >= min_psnr_db, "{psnr_db} dB");
}

fn check_encode(activations: DType, allowed: impl Fn(&str) -> f32) {
    let (vae, fixture, taps) = (vae(2, activations), Fixture::open("qwen_vae_encode"), Recorder::default());
    let posterior = vae.encode(&input(&vae, &fixture, "image", 1), Strips::Whole, &taps.context()).unwrap();
    let arrange = |name: &str, want: &[f32]| pixels_first(want, fixture.dims(name)[1]);
    let results = ["mean", "logvar", "normalized"];
    let inputs = ["image", results[0], results[1], results[2]];
    taps.compare(&format!("vae encode {activations}"), &fixture, &inputs, arrange, &allowed);
    let mean = posterior.mean.to_f32().unwrap();
    let normalized = vae.config().normalize(&mean);
    let got = [mean, posterior.logvar.to_f32().unwrap(), pixels_first(&normalized, 16)];
    for (name, got) in results.into_iter().zip(got) {
        let want = arrange(name, &fixture.values(name));
        let error = taps::difference(&got, &want).unwrap();
        assert!(error.relative <= allowed(name), "{name}: {error}");
    }
}

#[test]
fn decode_f32() {
    check_decode(DType::F32, 90.0, |_| F32_TOLERANCE);
}

#[test]
fn encode_f32() {
    check_encode(DType::F32, |_| F32_TOLERANCE);
}

#[test]
fn decode_bf16() {
    check_decode(DType::Bf16, 35.0, |_| bf16_bound(ROUNDINGS));
}

#[test]
fn encode_bf16() {
    check_encode(DType::Bf16, |_| bf16_bound(ROUNDINGS));
}

#[test]
fn same_bytes_for_any_threads_and_batch() {
    let fixture = Fixture::open("qwen_vae_decode");
    let decode = |threads: usize, n: usize| {
        let vae = vae(threads, DType::F32);
        vae.decode(&input(&vae, &fixture, "latents", n), Strips::Whole, &Context::default())
            .unwrap()
            .to_bytes()
    };
    let one = decode(1, 1);
    assert!(one == decode(2, 1), "2 threads");
    assert!(one == decode(3, 1), "3 threads");
    assert!(one.repeat(2) == decode(2, 2), "batch of two");
}

#[test]
fn padded_rows_change_nothing() {
    let (encode, decode) = (Fixture::open("qwen_vae_encode"), Fixture::open("qwen_vae_decode"));
    let ctx = Context::default();
    for activations in [DType::F32, DType::Bf16] {
        let both = |vae: Vae| {
            let posterior = vae.encode(&input(&vae, &encode, "image", 1), Strips::Whole, &ctx).unwrap();
            let picture = vae.decode(&input(&vae, &decode, "latents", 1), Strips::Whole, &ctx).unwrap();
            [posterior.mean.to_bytes(), posterior.logvar.to_bytes(), picture.to_bytes()]
        };
        assert!(both(vae(2, activations)) == both(vae_on(&padding::device(), activations)), "{activations}");
    }
}

#[test]
fn odd_pictures_encode() {
    let vae = vae(2, DType::F32);
    let picture = Tensor::from_f32(vae.device(), &[0.5; 3 * 13 * 9], Shape::nhwc(1, 13, 9, 3)).unwrap();
    let posterior = vae.encode(&picture, Strips::Whole, &Context::default()).unwrap();
    assert_eq!(posterior.mean.shape(), &Shape::nhwc(1, 1, 1, 16)); // 13 -> 6 -> 3 -> 1, 9 -> 4 -> 2 -> 1
    assert!(posterior.mean.to_f32().unwrap().iter().all(|v| v.is_finite()));
}

/// Bytes of a decoded and an encoded picture of this size in latents.
fn both_ways(vae: &Vae, (h, w): (usize, usize), strips: Strips) -> [Vec<u8>; 3] {
    let ctx = Context::default();
    // Any values will do; no two lines or columns are alike.
    let value = |i: usize| (i as f32 * 0.37).sin();
    let random = |h: usize, w: usize, c: usize| {
        let values: Vec<f32> = (0..h * w * c).map(value).collect();
        Tensor::from_f32(vae.device(), &values, Shape::nhwc(1, h, w, c)).unwrap()
    };
    let picture = vae.decode(&random(h, w, 16), strips, &ctx).unwrap();
    let posterior = vae.encode(&random(8 * h + 4, 8 * w, 3), strips, &ctx).unwrap();
    assert_eq!(picture.shape(), &Shape::nhwc(1, 8 * h, 8 * w, 3));
    [picture.to_bytes(), posterior.mean.to_bytes(), posterior.logvar.to_bytes()]
}

#[test]
fn strips_change_no_byte() {
    for activations in [DType::F32, DType::Bf16] {
        let vaes = [vae(2, activations), vae_on(&padding::device(), activations)];
        for size in [(1, 1), (2, 3), (3, 2), (5, 4), (8, 15), (9, 2), (13, 3)] {
            let whole = both_ways(&vaes[0], size, Strips::Whole);
            for (vae, lines) in
                [1, 2, 3, 4, 5, 8, 12, 13].into_iter().flat_map(|n| vaes.iter().map(move |v| (v, n)))
            {
                let strips = both_ways(vae, size, Strips::Lines(lines));
                assert!(strips == whole, "{activations} {size:?} in strips of {lines}");
            }
        }
    }
}

#[test]
fn strips_of_two_pictures_are_those_of_each() {
    let (vae, fixture) = (vae(2, DType::F32), Fixture::open("qwen_vae_decode"));
    let decode = |n: usize, strips: Strips| {
        vae.decode(&input(&vae, &fixture, "latents", n), strips, &Context::default()).unwrap().to_bytes()
    };
    assert!(decode(1, Strips::Whole).repeat(2) == decode(2, Strips::Lines(2)));
}
