use inkstone_tensor::ops::Rescale;
use inkstone_tensor::{Device, Shape, Tensor};

use super::guidance::Guidance;
use super::schedule::{Schedule, SchedulerConfig};
use super::{euler, latents, noise};
use crate::golden;

/// Tokens and channels of a picture of 96 x 64 pixels.
const SHAPE: Shape = Shape::matrix(24, 64);
const TOLERANCE: f32 = 1e-6;

/// Runs the steps of a recorded pipeline with its own model outputs; the largest difference after any step, as a part
/// of the largest value.
fn worst_difference(file: &str, guidance: Option<Guidance>) -> f32 {
    let run = golden::tensors(file);
    let device = Device::cpu(&Default::default()).unwrap();
    let tensor = |name: &str| Tensor::from_f32(&device, &run[name].to_f32(), SHAPE).unwrap();
    let config = golden::bytes("qwen_tiny/scheduler/scheduler_config.json");
    let config = SchedulerConfig::from_json(std::str::from_utf8(&config).unwrap()).unwrap();
    let schedule = Schedule::new(&config, 4, 24).unwrap();

    let mut x = tensor("init_latents");
    let mut worst: f32 = 0.0;
    for step in 0..4 {
        let velocity = match &guidance {
            None => tensor(&format!("model_call.{step}")),
            Some(guidance) => {
                let call = |i: usize| tensor(&format!("model_call.{}", 2 * step + i));
                guidance.combine(&call(0), &call(1)).unwrap()
            }
        };
        x = euler::step(x, &velocity, schedule.sigmas[step], schedule.sigmas[step + 1]).unwrap();
        let want = run[&format!("latents.{step}")].to_f32();
        let largest = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        for (got, want) in x.to_f32().unwrap().iter().zip(&want) {
            worst = worst.max((got - want).abs() / largest);
        }
    }
    worst
}

#[test]
fn steps_without_guidance_follow_the_reference() {
    let worst = worst_difference("qwen_pipe_nocfg.safetensors", None);
    assert!(worst <= TOLERANCE, "{worst:e}");
}

#[test]
fn steps_with_guidance_follow_the_reference() {
    let guidance = Guidance::for_request(4.0, Some(" "), Rescale::ToConditional);
    let worst = worst_difference("qwen_pipe_cfg4.safetensors", guidance);
    assert!(worst <= TOLERANCE, "{worst:e}");
    // Without the rescale it would not.
    let plain = Guidance::for_request(4.0, Some(" "), Rescale::None);
    assert!(worst_difference("qwen_pipe_cfg4.safetensors", plain) > 1e-3);
}

#[test]
fn image_to_image_starts_where_the_reference_does() {
    let run = golden::tensors("qwen_pipe_img2img_sampled.safetensors");
    let about = &golden::json("manifest.json")["files"]["qwen_pipe_img2img_sampled.safetensors"]["about"];
    let (seed, strength) = (about["seed"].as_u64().unwrap(), about["strength"].to_string().parse().unwrap());
    let steps = usize::try_from(about["steps"].as_u64().unwrap()).unwrap();

    // One generator draws for the encoder's posterior first, then for the latents.
    let mut generator = noise::Generator::new(seed);
    let count = run["noise"].to_f32().len();
    assert_eq!(generator.randn(count), run["posterior_noise"].to_f32());
    let drawn = generator.randn(count);
    assert_eq!(drawn, run["noise"].to_f32());

    let config = golden::bytes("qwen_tiny/scheduler/scheduler_config.json");
    let config = SchedulerConfig::from_json(std::str::from_utf8(&config).unwrap()).unwrap();
    let schedule = Schedule::new(&config, steps, 24).unwrap().for_strength(strength);
    assert_eq!(schedule.steps(), 3);
    let start = euler::at_level(&run["image_latents"].to_f32(), &drawn, schedule.sigmas[0]);
    for (got, want) in start.iter().zip(run["noised"].to_f32()) {
        assert!((got - want).abs() <= TOLERANCE, "{got} {want}");
    }
    assert_eq!(latents::unpack(&latents::pack(&start, 16, 8, 12), 16, 8, 12), start);
}
