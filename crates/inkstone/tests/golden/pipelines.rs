//! Whole runs: latents after every step, every prediction of the transformer, the picture.

use inkstone::progress::{CancelToken, Silent};
use inkstone::weights::ModelSource;
use inkstone::{Observer, OpenOptions, Picture, Pipeline, Precision, Request, Stage};

use super::taps::{F32_TOLERANCE, Fixture, Recorder, path};

/// The least PSNR of a final picture against the reference in f32, as the project promises it.
const F32_PSNR_DB: f64 = 60.0;
/// The same for bf16 products with f32 sums.
const BF16_PSNR_DB: f64 = 35.0;

fn open(source: &ModelSource, precision: Precision, threads: usize) -> Pipeline {
    let options = OpenOptions { threads: Some(threads), precision, ..OpenOptions::default() };
    Pipeline::open(source, &options).unwrap()
}

fn tiny() -> ModelSource {
    ModelSource::Folder(path("qwen_tiny"))
}

/// The request of a `qwen_pipe_*` fixture, whose first latents are the noise of this seed.
fn tiny_request(fixture: &Fixture) -> Request {
    const NOISE_SEED: u64 = 61;
    let about = |field| fixture.about(field);
    Request {
        prompt: about("prompt").as_str().unwrap().to_owned(),
        negative_prompt: about("negative_prompt").as_str().map(str::to_owned),
        width_px: number(fixture, "width"),
        height_px: number(fixture, "height"),
        steps: number(fixture, "steps"),
        seed: NOISE_SEED,
        true_cfg_scale: if about("true_cfg_scale") == 4.0 { 4.0 } else { 1.0 },
        init: None,
    }
}

fn number(fixture: &Fixture, field: &str) -> usize {
    usize::try_from(fixture.about(field).as_u64().unwrap()).unwrap()
}

fn draw(pipeline: &mut Pipeline, requests: &[Request]) -> Vec<Picture> {
    pipeline.draw(requests, &CancelToken::default(), &mut Silent).unwrap()
}

fn bytes_of(pictures: &[Picture]) -> Vec<&[u8]> {
    pictures.iter().map(|picture| &picture.pixels.rgb[..]).collect()
}

/// Planes `[3, h, w]` to pixels `[h, w, 3]`.
fn to_pixels(planes: &[u8]) -> Vec<u8> {
    let area = planes.len() / 3;
    (0..planes.len()).map(|i| planes[i % 3 * area + i / 3]).collect()
}

/// Peak signal to noise ratio of 8-bit pictures, in decibels.
fn psnr_db(got: &[u8], want: &[u8]) -> f64 {
    assert_eq!(got.len(), want.len(), "pictures of different sizes");
    let squares: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * got.len() as f64 / squares.max(1e-9)).log10()
}

fn assert_psnr(title: &str, got: &[u8], want: &[u8], least_db: f64) {
    let psnr = psnr_db(got, want);
    println!("{title}: {psnr:.1} dB");
    assert!(psnr >= least_db, "{title}: {psnr:.1} dB, promised are {least_db}");
}

/// Draws a fixture's picture, walks the taps in f32, and looks at the picture in f32 and bf16.
fn check_tiny(name: &str) {
    let fixture = Fixture::open(name);
    let request = tiny_request(&fixture);
    let want = to_pixels(&fixture.bytes("image_u8"));

    let recorder = Recorder::default();
    let mut pipeline = open(&tiny(), Precision::F32, 2);
    let pictures =
        pipeline.draw_in(std::slice::from_ref(&request), &recorder.context(), &mut Silent).unwrap();
    // The picture is compared as bytes below: the reference cuts off what is beyond black and white.
    let allowed = |name: &str| if name == "image" { f32::INFINITY } else { F32_TOLERANCE };
    recorder.compare(name, &fixture, &["init_latents"], |_, values| values.to_vec(), allowed);
    assert_psnr(&format!("{name} in f32"), &pictures[0].pixels.rgb, &want, F32_PSNR_DB);

    let pictures = draw(&mut open(&tiny(), Precision::Bf16, 2), &[request]);
    assert_psnr(&format!("{name} in bf16"), &pictures[0].pixels.rgb, &want, BF16_PSNR_DB);
}

#[test]
fn with_guidance() {
    check_tiny("qwen_pipe_cfg4");
}

#[test]
fn without_guidance() {
    check_tiny("qwen_pipe_nocfg");
}

/// Notes what the device holds after each step.
struct Held {
    device: inkstone_tensor::Device,
    after_step: Vec<usize>,
}

impl Observer for Held {
    fn advance(&mut self, stage: Stage, _: usize) {
        if stage == Stage::Denoise {
            self.after_step.push(self.device.held_bytes());
        }
    }
}

#[test]
fn only_the_first_step_takes_memory() {
    let requests = embedded_requests(&Fixture::open("embedded_t2i"));
    let mut pipeline = open(&ModelSource::Embedded, Precision::Bf16, 2);
    let mut held = Held { device: pipeline.device().clone(), after_step: Vec::new() };
    pipeline.draw(&requests[..1], &CancelToken::default(), &mut held).unwrap();
    assert_eq!(held.after_step.len(), requests[0].steps);
    assert!(held.after_step[1..].iter().all(|bytes| *bytes == held.after_step[0]), "{:?}", held.after_step);
}

#[test]
fn pictures_of_many_sizes_take_no_more_memory_than_one() {
    let requests = embedded_requests(&Fixture::open("embedded_t2i"));
    let mut pipeline = open(&ModelSource::Embedded, Precision::F32, 1);
    let mut held = Vec::new();
    for (width_px, height_px) in [(64, 64), (96, 64), (64, 112), (128, 80), (64, 64)] {
        draw(&mut pipeline, &[Request { width_px, height_px, steps: 1, ..requests[0].clone() }]);
        held.push(pipeline.device().held_bytes());
    }
    assert!(held.iter().all(|bytes| *bytes == held[0]), "{held:?}");
}

/// Prompt and seed of the cases of `embedded_t2i`.
fn embedded_requests(fixture: &Fixture) -> Vec<Request> {
    let cases = fixture.about("cases");
    let request = |case: &serde_json::Value| Request {
        prompt: case["prompt"].as_str().unwrap().to_owned(),
        negative_prompt: fixture.about("negative_prompt").as_str().map(str::to_owned),
        width_px: number(fixture, "width"),
        height_px: number(fixture, "height"),
        steps: number(fixture, "steps"),
        seed: case["seed"].as_u64().unwrap(),
        true_cfg_scale: 4.0,
        init: None,
    };
    cases.as_array().unwrap().iter().map(request).collect()
}

#[test]
fn the_embedded_model() {
    let fixture = Fixture::open("embedded_t2i");
    let requests = embedded_requests(&fixture);
    for (precision, least_db) in [(Precision::F32, F32_PSNR_DB), (Precision::Bf16, BF16_PSNR_DB)] {
        let mut pipeline = open(&ModelSource::Embedded, precision, 2);
        for (i, picture) in draw(&mut pipeline, &requests).iter().enumerate() {
            let title = format!("embedded {:?} in {precision:?}", picture.request.prompt);
            assert_psnr(&title, &picture.pixels.rgb, &fixture.bytes(&format!("image_u8.{i}")), least_db);
        }
    }
}

/// The same with three steps: a first one, one between, and a last one.
fn short_requests() -> Vec<Request> {
    let requests = embedded_requests(&Fixture::open("embedded_t2i"));
    requests.into_iter().map(|request| Request { steps: 3, ..request }).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let requests = short_requests();
    for precision in [Precision::F32, Precision::Bf16] {
        let mut one = open(&ModelSource::Embedded, precision, 1);
        let expected = draw(&mut one, &requests[..2]);
        for threads in [2, 3] {
            let got = draw(&mut open(&ModelSource::Embedded, precision, threads), &requests[..2]);
            assert!(bytes_of(&got) == bytes_of(&expected), "{threads} threads, {precision:?}");
        }
    }
}

#[test]
fn a_picture_alone_and_in_a_batch_are_the_same_bytes() {
    let requests = short_requests();
    for precision in [Precision::F32, Precision::Bf16] {
        let together = draw(&mut open(&ModelSource::Embedded, precision, 2), &requests);
        for (i, request) in requests.iter().enumerate() {
            let alone = draw(&mut open(&ModelSource::Embedded, precision, 2), std::slice::from_ref(request));
            assert!(alone[0].pixels == together[i].pixels, "{:?}, {precision:?}", request.prompt);
        }
    }
}

/// Notes how many pictures are drawn together.
#[derive(Default)]
struct Batches(Vec<usize>);

impl Observer for Batches {
    fn batch(&mut self, requests: &[Request]) {
        self.0.push(requests.len());
    }
}

/// Of the golden model and the embedded one, with and without guidance: prompts and negative prompts from one token to as
/// many as the model reads.
#[test]
fn prompts_of_any_length_share_a_batch() {
    let long = "a cat on a mat, ".repeat(400);
    let prompts = ["x", "a photo of a red apple beside two green pears on a blue table", &long, "熊猫"];
    let negatives = ["blurred, dark, and a frame around it", " ", "", "x"];
    for (source, precision) in
        [(tiny(), Precision::F32), (tiny(), Precision::Bf16), (ModelSource::Embedded, Precision::Auto)]
    {
        for true_cfg_scale in [1.0, 3.0] {
            let request = |((i, prompt), negative): ((u64, &&str), &&str)| Request {
                prompt: (*prompt).to_owned(),
                negative_prompt: Some((*negative).to_owned()),
                width_px: 80,
                height_px: 64,
                steps: 2,
                seed: i,
                true_cfg_scale,
                init: None,
            };
            let requests: Vec<Request> = (1..).zip(&prompts).zip(&negatives).map(request).collect();
            let mut batches = Batches::default();
            let mut pipeline = open(&source, precision, 2);
            let together = pipeline.draw(&requests, &CancelToken::default(), &mut batches).unwrap();
            assert_eq!(batches.0, [requests.len()]);
            for (request, drawn) in requests.iter().zip(&together) {
                let alone = draw(&mut open(&source, precision, 2), std::slice::from_ref(request));
                assert!(alone[0].pixels == drawn.pixels && drawn.request == *request, "{request:?}");
            }
            // Their embeddings are known by now; those of another order are the same pictures.
            let turned: Vec<Request> = requests.iter().rev().cloned().collect();
            let again = draw(&mut pipeline, &turned);
            assert!(again.iter().rev().zip(&together).all(|(a, b)| a.pixels == b.pixels));
        }
    }
}
