//! Image to image against the reference, whose fixtures start from pictures that are no bytes.

mod ahead;
mod counted;

use std::path::PathBuf;

use inkstone_tensor::{Device, Shape, Tensor, cpu};

use super::prediction::Passes;
use super::run::Run;
use super::{OpenOptions, Pipeline, Plan, Precision, VaeTiling, Way, native_side_px, pixels};
use crate::memory::Offload;
use crate::nn::strips::Strips;
use crate::progress::{CancelToken, Context, Observer, Silent, Stage};
use crate::request::{InitImage, Request};
use crate::sample::noise::Generator;
use crate::sample::{euler, latents};
use crate::weights::lora::LoraSource;
use crate::weights::{ModelSource, Residence, SafeTensors};
use crate::{Pixels, Result};

/// Part of a tensor's largest magnitude that a value may be off in f32; the project's promise.
const TOLERANCE: f32 = 1e-4;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

struct Fixture(SafeTensors);

impl Fixture {
    fn open(name: &str) -> Self {
        let device = Device::cpu(&cpu::Options::default()).unwrap();
        Self(SafeTensors::open(&golden(name), &device, Residence::Owned).unwrap())
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.0.tensors[name].to_f32().unwrap()
    }

    fn assert_close(&self, name: &str, got: &[f32]) {
        let want = self.values(name);
        assert_eq!(got.len(), want.len(), "{name}");
        let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error <= TOLERANCE * largest, "{name}: off by {error:.2e}, largest value {largest:.2}");
    }
}

/// The request of both fixtures: 96 x 64, five steps at strength 0.6.
fn request(seed: u64) -> Request {
    Request {
        prompt: "a photo of a cat".into(),
        negative_prompt: Some(" ".into()),
        width_px: 96,
        height_px: 64,
        steps: 5,
        seed,
        true_cfg_scale: 4.0,
        init: Some(InitImage {
            pixels: Pixels { width_px: 1, height_px: 1, rgb: vec![0; 3] }.into(),
            strength: 0.6,
        }),
    }
}

fn open() -> Pipeline {
    let options = OpenOptions { precision: Precision::F32, ..OpenOptions::default() };
    Pipeline::open(&ModelSource::Folder(golden("qwen_tiny")), &options).unwrap()
}

/// The reference's picture `[3, h, w]` as pixels.
fn init_image(fixture: &Fixture) -> Vec<f32> {
    let planes = fixture.values("init_image");
    let area = planes.len() / 3;
    (0..planes.len()).map(|i| planes[i % 3 * area + i / 3]).collect()
}

/// Adds noise to clean latents and runs the steps.
fn finish(
    pipeline: &mut Pipeline,
    plan: &Plan,
    clean: &[f32],
    noise: &[f32],
    fixture: &Fixture,
) -> Result<()> {
    let (context, mut silent) = (Context::default(), Silent);
    let mut run = Run::new(&context, &mut silent);
    let noised = euler::at_level(clean, noise, plan.schedule.sigmas[0]);
    let (height, width) = plan.latent_size();
    let tokens = latents::pack(&noised, 16, height, width);
    let start = Tensor::from_f32(&pipeline.device, &tokens, Shape::matrix(tokens.len() / 64, 64))?;
    let way = Way { offload: Offload::None, ..Way::LEAST };
    let texts = pipeline.embed(&[request(0)], &[], plan, way, &mut run)?;
    let last = pipeline.denoise(start, &texts, plan, Passes::One, &mut run)?;
    assert_eq!(plan.schedule.timesteps.len(), 3, "0.6 of five steps");
    fixture.assert_close("latents.2", &last.to_f32()?);
    let picture = pipeline.decode(&last.to_f32()?, plan, Strips::Whole, &mut run)?;
    let planes = fixture.values("image");
    let area = planes.len() / 3;
    let worst = (0..planes.len())
        .map(|i| (f32::from(picture.rgb[i]) - 255.0 * planes[i % 3 * area + i / 3]).abs())
        .fold(0f32, f32::max);
    assert!(worst < 0.52, "a byte is off by {worst}"); // half a level is rounding
    Ok(())
}

/// As the reference draws: the posterior is sampled, and the same generator goes on with the noise.
#[test]
fn image_to_image_with_a_sampled_posterior() {
    const SEED: u64 = 73;
    let fixture = Fixture::open("qwen_pipe_img2img_sampled.safetensors");
    let mut pipeline = open();
    let plan = pipeline.plan(&request(SEED)).unwrap();
    let context = Context::default();
    let mut generator = Generator::new(SEED);
    let vae = pipeline.networks.vae(&pipeline.files).unwrap();
    let clean = pixels::encode(vae, &init_image(&fixture), (96, 64), &mut generator, Strips::Whole, &context)
        .unwrap();
    fixture.assert_close("image_latents", &clean);
    let noise = generator.randn(clean.len());
    assert_eq!(noise, fixture.values("noise"));
    finish(&mut pipeline, &plan, &clean, &noise, &fixture).unwrap();
}

/// The older fixture takes the most likely latents, and its noise is the generator's first draw.
#[test]
fn image_to_image_with_the_posterior_s_mode() {
    const SEED: u64 = 72;
    let fixture = Fixture::open("qwen_pipe_img2img.safetensors");
    let mut pipeline = open();
    let plan = pipeline.plan(&request(SEED)).unwrap();
    let context = Context::default();
    let vae = pipeline.networks.vae(&pipeline.files).unwrap();
    let values: Vec<f32> = init_image(&fixture).iter().map(|v| 2.0 * v - 1.0).collect();
    let input = Tensor::from_f32(vae.device(), &values, Shape::nhwc(1, 64, 96, 3)).unwrap();
    let mean = vae.encode(&input, Strips::Whole, &context).unwrap().mean.to_f32().unwrap();
    let clean = vae.config().normalize(&mean);
    let noise = Generator::new(SEED).randn(clean.len());
    assert_eq!(noise, fixture.values("noise"));
    finish(&mut pipeline, &plan, &clean, &noise, &fixture).unwrap();
}

#[test]
fn a_model_may_tell_its_native_size() {
    assert_eq!(native_side_px("{}").unwrap(), 1024);
    assert_eq!(native_side_px(r#"{"_native_side_px": 128}"#).unwrap(), 128);
    for wrong in ["0", "65", "8192", "-64", "64.5", "\"64\""] {
        let error = native_side_px(&format!(r#"{{"_native_side_px": {wrong}}}"#)).unwrap_err();
        assert_eq!(error.code(), "INK-0320", "{wrong}: {error}");
    }
    let embedded = Pipeline::open(&ModelSource::Embedded, &OpenOptions::default()).unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny");
    let folder = Pipeline::open(&ModelSource::Folder(folder), &OpenOptions::default()).unwrap();
    assert_eq!(embedded.model().defaults, folder.model().defaults);
}

#[test]
fn tiling_changes_no_byte_of_the_embedded_model_s_pictures() {
    let init = InitImage {
        pixels: Pixels {
            width_px: 2,
            height_px: 2,
            rgb: vec![9, 200, 30, 0, 40, 90, 255, 255, 1, 80, 7, 99],
        }
        .into(),
        strength: 0.7,
    };
    let draw = |precision, vae_tiling, init: Option<&InitImage>| {
        let options = OpenOptions { precision, vae_tiling, ..OpenOptions::default() };
        let mut pipeline = Pipeline::open(&ModelSource::Embedded, &options).unwrap();
        let request = Request { steps: 2, width_px: 64, height_px: 80, init: init.cloned(), ..request(5) };
        pipeline.draw(&[request], &CancelToken::default(), &mut Silent).unwrap().remove(0).pixels
    };
    for precision in [Precision::F32, Precision::Bf16] {
        for init in [None, Some(&init)] {
            let whole = draw(precision, VaeTiling::Off, init);
            for lines in [8, 24, 32, 72, 80, 4096] {
                let strips = draw(precision, VaeTiling::Strips(lines), init);
                assert!(strips == whole, "{precision:?} in strips of {lines}");
            }
        }
    }
}

#[test]
fn strips_are_taken_where_the_whole_picture_does_not_fit() {
    let way = |max_memory_bytes: Option<u64>| {
        let precision = Precision::F32;
        // Each thread has memory of its own inside an operation, which counts.
        let options = OpenOptions { max_memory_bytes, precision, threads: Some(2), ..OpenOptions::default() };
        let pipeline = Pipeline::open(&ModelSource::Embedded, &options).unwrap();
        let request = Request { width_px: 2048, height_px: 2048, true_cfg_scale: 1.0, ..request(1) };
        pipeline.fit(&[Request { init: None, ..request }], 1)
    };
    assert_eq!(way(None).unwrap().strips, Strips::Whole);
    // What the last convolution of 16 channels reads and writes of 2048 x 2048 pixels in f32 is 512 MiB.
    let strips = way(Some(1 << 29)).unwrap().strips;
    assert!(matches!(strips, Strips::Lines(_)), "{strips:?}");
    let error = way(Some(1 << 24)).unwrap_err();
    assert_eq!(error.code(), "INK-0401", "{error}");
}

#[test]
fn tilings_are_read_and_written() {
    for (text, want) in [("auto", VaeTiling::Auto), ("off", VaeTiling::Off), ("64", VaeTiling::Strips(64))] {
        assert_eq!(text.parse::<VaeTiling>().unwrap(), want);
        assert_eq!(want.to_string(), text);
    }
    for wrong in ["", "0", "4", "60", "+64", "-8", "4104", "64px", "Auto", "99999999999999999999", "8.0"] {
        let error = wrong.parse::<VaeTiling>().unwrap_err();
        assert_eq!(error.code(), "INK-0201", "{wrong}: {error}");
    }
}

fn with_loras(loras: &[(&str, f32)]) -> Result<Pipeline> {
    let source = |(name, scale): &(&str, f32)| LoraSource { path: golden("lora").join(name), scale: *scale };
    let loras = loras.iter().map(source).collect();
    let options = OpenOptions { precision: Precision::F32, loras, ..OpenOptions::default() };
    Pipeline::open(&ModelSource::Folder(golden("qwen_tiny")), &options)
}

#[test]
fn a_lora_changes_the_picture_and_none_of_its_strength_does_not() {
    let draw = |loras: &[(&str, f32)]| {
        let request = Request { init: None, ..request(5) };
        let mut pipeline = with_loras(loras).unwrap();
        pipeline.draw(&[request], &CancelToken::default(), &mut Silent).unwrap().remove(0).pixels
    };
    let plain = draw(&[]);
    assert!(draw(&[("qwen_diffusers.safetensors", 0.0)]) == plain);
    let strong = draw(&[("qwen_diffusers.safetensors", 0.5)]);
    assert!(strong != plain);
    // The same factors, of which kohya's alpha counts half; the sums differ in their last bits at most.
    let kohya = draw(&[("qwen_kohya.safetensors", 1.0)]);
    let most = strong.rgb.iter().zip(&kohya.rgb).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(most <= Some(1), "{most:?}");
}

#[test]
fn a_lora_of_another_size_of_model_is_refused_before_anything_is_drawn() {
    let loras = vec![LoraSource { path: golden("lora/qwen_diffusers.safetensors"), scale: 1.0 }];
    let options = OpenOptions { loras, ..OpenOptions::default() };
    let mut pipeline = Pipeline::open(&ModelSource::Embedded, &options).unwrap();
    let request = Request { width_px: 64, height_px: 64, init: None, ..request(5) };
    let error = pipeline.draw(&[request], &CancelToken::default(), &mut Silent).unwrap_err();
    assert_eq!(error.code(), "INK-0211", "{error}");
    assert!(error.to_string().contains("is for a weight of"), "{error}");
}

/// FAULTS row 27: what is drawn is drawn with what was opened.
#[test]
fn fault_27_a_lora_that_is_removed_during_a_drawing() {
    /// Removes a file when the first step is done, and empties what else has its bytes.
    struct Remover(std::path::PathBuf);
    impl Observer for Remover {
        fn advance(&mut self, stage: Stage, done: usize) {
            if stage == Stage::Denoise && done == 1 {
                std::fs::write(&self.0, "").unwrap();
                std::fs::remove_file(&self.0).unwrap();
            }
        }
    }
    let path = std::env::temp_dir().join(format!("inkstone-{}-removed.safetensors", std::process::id()));
    std::fs::copy(golden("lora/qwen_diffusers.safetensors"), &path).unwrap();
    let name = path.to_str().unwrap();
    let request = Request { init: None, steps: 3, ..request(5) };
    let draw = |pipeline: &mut Pipeline, observer: &mut dyn Observer| {
        let drawn = pipeline.draw(std::slice::from_ref(&request), &CancelToken::default(), observer);
        drawn.unwrap().remove(0).pixels
    };
    let want = draw(&mut with_loras(&[(name, 0.5)]).unwrap(), &mut Silent);
    let mut pipeline = with_loras(&[(name, 0.5)]).unwrap();
    assert!(draw(&mut pipeline, &mut Remover(path.clone())) == want);
    assert!(draw(&mut pipeline, &mut Silent) == want, "a second time, without the file");
    assert_eq!(with_loras(&[(name, 0.5)]).unwrap_err().code(), "INK-0301", "who opens it now is told");
}

#[test]
fn lightning_brings_steps_and_schedule() {
    let name = format!("inkstone-{}-Qwen-Image-Lightning-8steps-V1.0.safetensors", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::copy(golden("lora/qwen_diffusers.safetensors"), &path).unwrap();
    let [pipeline, without] = [1.0, 0.0].map(|scale| with_loras(&[(path.to_str().unwrap(), scale)]));
    std::fs::remove_file(&path).unwrap();
    assert_ne!(without.unwrap().model().defaults.steps, 8, "it has no effect");
    let pipeline = pipeline.unwrap();
    let defaults = &pipeline.model().defaults;
    assert_eq!((defaults.steps, defaults.true_cfg_scale), (8, 1.0));
    // Fewer steps than it was made for keep its shift.
    let plan = pipeline.plan(&Request { steps: 4, init: None, ..request(0) }).unwrap();
    let want = [1.0, 0.9, 0.75, 0.5, 0.0];
    assert!(plan.schedule.sigmas.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", plan.schedule);
}

/// Where the encoder leaves memory, it comes once for the prompts of all batches.
#[test]
fn prompts_of_later_batches_are_encoded_with_the_first() {
    /// Stages as they begin.
    #[derive(Default)]
    struct Begun(Vec<Stage>);
    impl Observer for Begun {
        fn begin(&mut self, stage: Stage, _: usize) {
            self.0.push(stage);
        }
    }
    let requests: Vec<Request> = ["a cat", "a dog on a blue background", "two roses", "x", "a cat"]
        .map(|prompt| Request {
            prompt: prompt.into(),
            width_px: 512,
            height_px: 512,
            steps: 1,
            init: None,
            ..request(3)
        })
        .into();
    let draw = |offload| {
        let options = OpenOptions { offload, ..OpenOptions::default() };
        let mut pipeline = Pipeline::open(&ModelSource::Embedded, &options).unwrap();
        let mut begun = Begun::default();
        let pictures = pipeline.draw(&requests, &CancelToken::default(), &mut begun).unwrap();
        let of = |stage| begun.0.iter().filter(|other| **other == stage).count();
        assert_eq!((of(Stage::Denoise), of(Stage::Decode)), (3, 5), "two at a time: {:?}", begun.0);
        let first = begun.0.iter().position(|stage| *stage == Stage::Denoise).unwrap();
        let later = begun.0[first..].iter().filter(|stage| **stage == Stage::Text).count();
        (later, pictures.into_iter().map(|picture| picture.pixels).collect::<Vec<_>>())
    };
    let (later, kept) = draw(Offload::None);
    assert_eq!(later, 1, "the last batch has no new prompt");
    for offload in [Offload::Encoder, Offload::Stream] {
        let (later, pictures) = draw(offload);
        assert!(later == 0 && pictures == kept, "{offload:?}: {later}");
    }
}

#[test]
fn long_prompts_are_planned_in_tokens_and_short_ones_in_bytes() {
    let pipeline = Pipeline::open(&ModelSource::Embedded, &OpenOptions::default()).unwrap();
    let with = |prompt: &str| Request { prompt: prompt.into(), init: None, ..request(3) };
    let (short, long) = ("two dogs", "two dogs beside a cat ".repeat(20));
    pipeline.forecast(&[with(short)]).unwrap();
    assert!(pipeline.tokenizer.get().is_none(), "a plan takes milliseconds");
    assert!(pipeline.tokens_of(&long) > long.len(), "a token for each byte, and the template's");
    let bytes = |prompts: &[&str]| {
        let requests: Vec<Request> = prompts.iter().map(|prompt| with(prompt)).collect();
        pipeline.forecast(&requests).unwrap()[0].forecast.memory.resident_bytes()
    };
    bytes(&[&long]);
    let tokens = pipeline.tokenizer.get().unwrap().encode(&long).unwrap().ids.len();
    assert_eq!(pipeline.tokens_of(&long), tokens);
    // As many bytes that are no words: a token each.
    let odd = "\u{1}".repeat(long.len());
    assert!(pipeline.tokens_of(&odd) > 2 * tokens && bytes(&[&odd]) > bytes(&[&long]));
}
