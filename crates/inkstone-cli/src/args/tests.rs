use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_declaration_is_sound() {
    Cli::command().debug_assert();
}

fn draw(args: &[&str]) -> Draw {
    let cli = Cli::try_parse_from([&["inkstone"], args].concat()).unwrap();
    match cli.command {
        Some(Command::Generate(draw)) => *draw,
        None => cli.draw,
        other => panic!("expected a drawing, got {other:?}"),
    }
}

#[test]
fn a_bare_prompt_generates() {
    assert_eq!(draw(&["a red apple"]).words.as_deref(), Some("a red apple"));
    assert_eq!(draw(&["--steps", "5", "a red apple"]).what.steps, Some(5));
    assert_eq!(draw(&["gen", "a red apple"]), draw(&["generate", "a red apple"]));
    assert_eq!(draw(&["--", "-5 degrees"]).words.as_deref(), Some("-5 degrees"));
    assert_eq!(draw(&["--prompt=-5 degrees"]).what.prompt, ["-5 degrees"]);
}

#[test]
fn prompts_come_from_one_place() {
    assert_eq!(draw(&["-p", "a cat, a dog", "--prompt", "a sun"]).what.prompt, ["a cat, a dog", "a sun"]);
    assert_eq!(draw(&["--batch-prompts-file", "p.txt"]), draw(&["--prompts-file", "p.txt"]));
    let places = [&["a cat"][..], &["-p", "a cat"], &["--prompt-file", "f"], &["--prompts-file", "f"]];
    for (i, one) in places.iter().enumerate() {
        for other in &places[i + 1..] {
            let error = Cli::try_parse_from([&["inkstone"], *one, *other].concat()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{one:?} {other:?}");
        }
    }
}

#[test]
fn seeds_are_whole_u64_or_minus_one() {
    assert_eq!(draw(&["x", "--seed", "-1"]).what.seed, [Seed::Random]);
    let most = u64::MAX.to_string();
    assert_eq!(
        draw(&["x", "--seed", &most, "--seed", "0"]).what.seed,
        [Seed::Fixed(u64::MAX), Seed::Fixed(0)]
    );
    assert_eq!(draw(&["x", "--seed", "1,2"]).what.seed, [Seed::Fixed(1), Seed::Fixed(2)]);
    for seed in ["-2", "1.5", "18446744073709551616", "", "+1", "1e3", "１"] {
        let error = Cli::try_parse_from(["inkstone", "x", "--seed", seed]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{seed:?}");
    }
}

#[test]
fn a_strength_follows_the_last_equals_sign() {
    let init = |text: &str| InitArg::try_from(OsString::from(text)).unwrap();
    assert_eq!(init("a.png"), InitArg { path: "a.png".into(), strength: None });
    assert_eq!(init("a.png=0.25"), InitArg { path: "a.png".into(), strength: Some(0.25) });
    assert_eq!(init("a=b.png=1"), InitArg { path: "a=b.png".into(), strength: Some(1.0) });
    assert_eq!(init("a=b.png"), InitArg { path: "a=b.png".into(), strength: None });
}

/// Every long and short flag of a program, as its help or its option table lists them.
const MFLUX: &[&str] = &[
    "--battery-percentage-stop-limit",
    "-B",
    "--low-ram",
    "--image-path",
    "-i",
    "--seed",
    "-s",
    "--resolution",
    "-r",
    "--softness",
    "--model",
    "-m",
    "--path",
    "--base-model",
    "--quantize",
    "-q",
    "--lora-style",
    "--lora-paths",
    "--lora-scales",
    "--height",
    "--width",
    "--steps",
    "--guidance",
    "--prompt",
    "--prompt-file",
    "--negative-prompt",
    "--auto-seeds",
    "--scheduler",
    "--image-strength",
    "--batch-prompts-file",
    "--global-seed",
    "--masked-image-path",
    "--person-image",
    "--person-mask",
    "--garment-image",
    "--reference-image",
    "--instruction",
    "--save-full-image",
    "--depth-image-path",
    "--save-depth-map",
    "--redux-image-paths",
    "--redux-image-strengths",
    "--metadata",
    "--output",
    "--stepwise-image-output-dir",
    "--image-outpaint-padding",
    "--controlnet-image-path",
    "--controlnet-strength",
    "--controlnet-save-canny",
    "--concept",
    "--input-image-path",
    "--heatmap-layer-indices",
    "--heatmap-timesteps",
    "--config-from-metadata",
    "-C",
    "--train-config",
    "--train-checkpoint",
];

const SD_CLI: &[&str] = &[
    "-o",
    "--output",
    "--output-begin-idx",
    "--preview-path",
    "--preview-interval",
    "--canny",
    "--convert-name",
    "-v",
    "--verbose",
    "--color",
    "--taesd-preview-only",
    "--preview-noisy",
    "-M",
    "--mode",
    "--preview",
    "-h",
    "--help",
    "-m",
    "--model",
    "--clip_l",
    "--clip_g",
    "--clip_vision",
    "--t5xxl",
    "--llm",
    "--llm_vision",
    "--qwen2vl",
    "--qwen2vl_vision",
    "--diffusion-model",
    "--high-noise-diffusion-model",
    "--vae",
    "--taesd",
    "--tae",
    "--control-net",
    "--embd-dir",
    "--lora-model-dir",
    "--tensor-type-rules",
    "--photo-maker",
    "--upscale-model",
    "-t",
    "--threads",
    "--chroma-t5-mask-pad",
    "--vae-tile-overlap",
    "--vae-tiling",
    "--force-sdxl-vae-conv-scale",
    "--offload-to-cpu",
    "--mmap",
    "--control-net-cpu",
    "--clip-on-cpu",
    "--vae-on-cpu",
    "--fa",
    "--diffusion-fa",
    "--diffusion-conv-direct",
    "--vae-conv-direct",
    "--circular",
    "--circularx",
    "--circulary",
    "--chroma-disable-dit-mask",
    "--chroma-enable-t5-mask",
    "--type",
    "--rng",
    "--sampler-rng",
    "--prediction",
    "--lora-apply-mode",
    "--vae-tile-size",
    "--vae-relative-tile-size",
    "-p",
    "--prompt",
    "-n",
    "--negative-prompt",
    "-i",
    "--init-img",
    "--end-img",
    "--mask",
    "--control-image",
    "--control-video",
    "--pm-id-images-dir",
    "--pm-id-embed-path",
    "-H",
    "--height",
    "-W",
    "--width",
    "--steps",
    "--high-noise-steps",
    "--clip-skip",
    "-b",
    "--batch-count",
    "--video-frames",
    "--fps",
    "--timestep-shift",
    "--upscale-repeats",
    "--upscale-tile-size",
    "--cfg-scale",
    "--img-cfg-scale",
    "--guidance",
    "--slg-scale",
    "--skip-layer-start",
    "--skip-layer-end",
    "--eta",
    "--flow-shift",
    "--high-noise-cfg-scale",
    "--high-noise-img-cfg-scale",
    "--high-noise-guidance",
    "--high-noise-slg-scale",
    "--high-noise-skip-layer-start",
    "--high-noise-skip-layer-end",
    "--high-noise-eta",
    "--strength",
    "--pm-style-strength",
    "--control-strength",
    "--moe-boundary",
    "--vace-strength",
    "--increase-ref-index",
    "--disable-auto-resize-ref-image",
    "-s",
    "--seed",
    "--sampling-method",
    "--high-noise-sampling-method",
    "--scheduler",
    "--sigmas",
    "--skip-layers",
    "--high-noise-skip-layers",
    "-r",
    "--ref-image",
    "--cache-mode",
    "--cache-option",
    "--cache-preset",
    "--scm-mask",
    "--scm-policy",
];

const FLUX2_C: &[&str] = &[
    "-d",
    "--dir",
    "-p",
    "--prompt",
    "-o",
    "--output",
    "-W",
    "--width",
    "-H",
    "--height",
    "-s",
    "--steps",
    "-g",
    "--guidance",
    "-S",
    "--seed",
    "-i",
    "--input",
    "-e",
    "--embeddings",
    "-n",
    "--noise",
    "-q",
    "--quiet",
    "-v",
    "--verbose",
    "-h",
    "--help",
    "-V",
    "--version",
    "-m",
    "--mmap",
    "-M",
    "--no-mmap",
    "--show",
    "--show-steps",
    "--zoom",
    "--base",
    "--linear",
    "--power",
    "--power-alpha",
    "--debug-py",
    "-t",
];

const DIFFUSERS: &[&str] = &[
    "--guidance_scale",
    "--true_cfg_scale",
    "--num_inference_steps",
    "--num-inference-steps",
    "--negative_prompt",
    "--num_images_per_prompt",
];

/// Whether a flag is one of ours, under its own name or a hidden one.
fn is_ours(flag: &str) -> bool {
    let command = Cli::command();
    let generate = command.find_subcommand("generate").unwrap().clone();
    [command, generate].iter_mut().any(|command| {
        command.build();
        command.get_arguments().any(|arg| match flag.strip_prefix("--") {
            Some(long) => {
                arg.get_long() == Some(long) || arg.get_all_aliases().unwrap_or_default().contains(&long)
            }
            None => {
                let short = flag.chars().nth(1).unwrap();
                arg.get_short() == Some(short)
                    || arg.get_all_short_aliases().unwrap_or_default().contains(&short)
            }
        })
    })
}

#[test]
fn every_flag_of_the_peers_is_ours_or_has_a_cure() {
    for flag in [MFLUX, SD_CLI, FLUX2_C, DIFFUSERS].concat() {
        let (ours, cure) = (is_ours(flag), peers::cure(flag));
        assert!(ours != cure.is_some(), "{flag}: ours {ours}, cure {cure:?}");
        if let Some(cure) = cure {
            assert!(
                cure.contains("--") || cure.contains("inkstone") || cure.contains("this version"),
                "{flag}: {cure}"
            );
        }
    }
    assert!(!is_ours("-s") && !is_ours("-n"));
}

#[test]
fn hidden_names_stay_hidden() {
    let mut command = Cli::command();
    let help = command.find_subcommand_mut("generate").unwrap().render_long_help().to_string();
    for hidden in ["--image-path", "--init-img", "--num-inference-steps", "guidance_scale", "--dir", "-S,"] {
        assert!(!help.contains(hidden), "{hidden} shows in\n{help}");
    }
    assert!(help.contains("--cfg-scale"));
    for later in peers::LATER_COMMANDS {
        assert!(command.find_subcommand(later).is_none(), "{later} exists: take it out of LATER_COMMANDS");
    }
}
