//! Flags that users of mflux, stable-diffusion.cpp and flux2.c know and that are not ours: what to do instead.
//!
//! Flags that mean the same under another name are hidden aliases in [`crate::args`] and not listed here.

/// The cure for a flag of another program, if it is one.
pub(crate) fn cure(flag: &str) -> Option<&'static str> {
    let name = flag.split('=').next().unwrap_or(flag);
    CURES.iter().find(|(flags, _)| flags.contains(&name)).map(|(_, cure)| *cure)
}

const ONE_FOLDER: &str = "give the whole model as one folder: --model FOLDER";
const LORA: &str = "write each LoRA with its scale: --lora PATH=SCALE --lora PATH=SCALE";
const ONE_QUANTIZE: &str =
    "write --quantize int8, q8 or q4, or leave it out to draw with the weights as stored";
const NOT_YET_REFERENCES: &str = "this version starts from one picture: --image PATH=STRENGTH";
const NOT_YET_CONTROL: &str =
    "this version has no control images; --image PATH=STRENGTH starts from a picture";
const NOT_YET_PREVIEW: &str =
    "this version has no previews; progress goes to standard error, --json gives events";
const STRIPS: &str = "tiles are strips, exact without overlap: --vae-tiling PX chooses their lines";
const NOT_YET_UPSCALE: &str = "this version does not enlarge; draw larger with --size WxH";
const FIXED_SCHEDULE: &str = "the model's own schedule is used; choose the number of steps with --steps N";
const ALWAYS_MAPPED: &str = "leave it out: weights are always read in place; see inkstone --help";
const ALWAYS_FLASH: &str = "leave it out: attention never holds a whole matrix; see inkstone --help";
const TORCH_NOISE: &str = "leave it out: noise is torch's CPU generator; choose it with --seed N";
const ONLY_GUIDANCE: &str = "the only guidance is --true-cfg-scale SCALE";
const ONLY_IMAGES: &str = "inkstone draws single pictures: --count N draws several";
const SEVERAL_SEEDS: &str = "for random seeds use --count N; for chosen ones repeat --seed N";
const INVERTED_STRENGTH: &str =
    "write --image PATH=STRENGTH, where 0 keeps the picture and 1 ignores it: 1 minus mflux's value";

/// Flags, and what to do instead. Our own flags of later versions are here too.
const CURES: &[(&[&str], &str)] = &[
    (&["-s"], "other programs disagree on -s: write --seed N or --steps N"),
    (&["-n"], "other programs disagree on -n: write --negative-prompt TEXT or --count N"),
    (&["--type", "--tensor-type-rules"], ONE_QUANTIZE),
    (
        &["-r", "--ref-image", "--reference-image", "--redux-image-paths", "--redux-image-strengths"],
        NOT_YET_REFERENCES,
    ),
    (&["--increase-ref-index", "--disable-auto-resize-ref-image"], NOT_YET_REFERENCES),
    (&["--image-strength"], INVERTED_STRENGTH),
    (&["--strength", "--init-image-strength"], "write it behind the picture: --image PATH=STRENGTH"),
    (&["--lora-paths", "--lora-scales", "--lora-style", "--lora-model-dir", "--lora-apply-mode"], LORA),
    (&["--auto-seeds", "--global-seed"], SEVERAL_SEEDS),
    (&["--base-model", "--path", "--high-noise-diffusion-model"], ONE_FOLDER),
    (&["--llm_vision", "--qwen2vl_vision", "--clip_l", "--clip_g", "--clip_vision", "--t5xxl"], ONE_FOLDER),
    (&["--embd-dir", "--tae", "--taesd", "--taesd-preview-only"], ONE_FOLDER),
    (&["-e", "--embeddings", "--noise"], "the prompt and --seed N give both"),
    (&["--mask", "--masked-image-path", "--image-outpaint-padding"], NOT_YET_REFERENCES),
    (
        &["--person-image", "--person-mask", "--garment-image", "--instruction", "--save-full-image"],
        NOT_YET_REFERENCES,
    ),
    (
        &["--control-net", "--control-image", "--control-video", "--control-strength", "--canny"],
        NOT_YET_CONTROL,
    ),
    (&["--controlnet-image-path", "--controlnet-strength", "--controlnet-save-canny"], NOT_YET_CONTROL),
    (&["--depth-image-path", "--save-depth-map", "--photo-maker", "--pm-id-images-dir"], NOT_YET_CONTROL),
    (&["--pm-id-embed-path", "--pm-style-strength", "--concept", "--input-image-path"], NOT_YET_CONTROL),
    (&["--heatmap-layer-indices", "--heatmap-timesteps"], NOT_YET_CONTROL),
    (
        &["--preview", "--preview-path", "--preview-interval", "--preview-noisy", "--preview-every"],
        NOT_YET_PREVIEW,
    ),
    (&["--show", "--show-steps", "--zoom", "--stepwise-image-output-dir"], NOT_YET_PREVIEW),
    (
        &["--upscale-model", "--upscale-repeats", "--upscale-tile-size", "--resolution", "--softness"],
        NOT_YET_UPSCALE,
    ),
    (&["--vae-tile-size", "--vae-relative-tile-size", "--vae-tile-overlap"], STRIPS),
    (&["--low-ram", "--offload-to-cpu"], "the same here: --offload stream, or --max-memory SIZE"),
    (&["--cache-dir"], ONE_FOLDER),
    (
        &["--control-net-cpu", "--clip-on-cpu", "--vae-on-cpu"],
        "leave it out: everything runs on --device cpu",
    ),
    (&["--mmap", "--no-mmap"], ALWAYS_MAPPED),
    (&["--fa", "--diffusion-fa", "--diffusion-conv-direct", "--vae-conv-direct"], ALWAYS_FLASH),
    (
        &["--sampling-method", "--scheduler", "--sigmas", "--shift", "--flow-shift", "--timestep-shift"],
        FIXED_SCHEDULE,
    ),
    (
        &["--linear", "--power", "--power-alpha", "--eta", "--prediction", "--preset", "--base"],
        FIXED_SCHEDULE,
    ),
    (
        &["--cache-mode", "--cache-option", "--cache-preset", "--step-cache", "--scm-mask", "--scm-policy"],
        FIXED_SCHEDULE,
    ),
    (&["--rng", "--sampler-rng"], TORCH_NOISE),
    (
        &["--img-cfg-scale", "--slg-scale", "--skip-layer-start", "--skip-layer-end", "--skip-layers"],
        ONLY_GUIDANCE,
    ),
    (&["--clip-skip", "--cfg-schedule"], ONLY_GUIDANCE),
    (&["-M", "--mode"], "commands come first: inkstone generate, inkstone info"),
    (&["--convert-name", "--debug-py"], "see inkstone --help"),
    (&["--output-begin-idx"], "number files in the template: --output picture-{n}.png"),
    (
        &["-B", "--battery-percentage-stop-limit"],
        "Ctrl-C stops within a step and leaves no partial file; see inkstone --help",
    ),
    (&["--train-config", "--train-checkpoint"], "this version does not train; see inkstone --help"),
    (&["--chroma-disable-dit-mask", "--chroma-enable-t5-mask", "--chroma-t5-mask-pad"], ONLY_GUIDANCE),
    (&["--circular", "--circularx", "--circulary", "--force-sdxl-vae-conv-scale"], ONLY_GUIDANCE),
    (&["--end-img", "--video-frames", "--fps", "--moe-boundary", "--vace-strength"], ONLY_IMAGES),
    (&["--high-noise-steps", "--high-noise-cfg-scale", "--high-noise-img-cfg-scale"], ONLY_IMAGES),
    (&["--high-noise-guidance", "--high-noise-slg-scale", "--high-noise-skip-layer-start"], ONLY_IMAGES),
    (&["--high-noise-skip-layer-end", "--high-noise-eta", "--high-noise-sampling-method"], ONLY_IMAGES),
    (&["--high-noise-skip-layers"], ONLY_IMAGES),
];

/// Commands of later versions: such a word alone is no prompt; `-p WORD` is.
pub(crate) const LATER_COMMANDS: &[&str] =
    &["edit", "serve", "batch", "worker", "pull", "models", "doctor", "enhance", "train"];
