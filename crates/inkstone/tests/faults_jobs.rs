//! Rows 78 and 79: memory that is gone in the middle of a drawing, and many drawings one after another.
//!
//! Each runs in a process of its own, whose limits and memory are nobody else's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic here, in functions beside the tests too")]

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use inkstone::memory::Usage;
use inkstone::pipeline::{OpenOptions, Pipeline};
use inkstone::progress::{CancelToken, Observer, Silent, Stage};
use inkstone::weights::lora::LoraSource;
use inkstone::weights::{ModelSource, Quantization};
use inkstone::{Error, Pixels, Request, Result};
use inkstone_tensor::AlignedBuffer;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const CHILD: &str = "INKSTONE_TEST_CHILD";

/// Runs a test in a process of its own; whether this is that process.
fn is_child(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let run = command.args([test, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{out}\n{err}", run.status);
    false
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

fn open(loras: Vec<LoraSource>) -> Pipeline {
    let options = OpenOptions { threads: Some(1), loras, ..OpenOptions::default() };
    Pipeline::open(&ModelSource::Folder(golden("qwen_tiny")), &options).unwrap()
}

fn request(width_px: usize, steps: usize, seed: u64) -> Request {
    Request {
        prompt: "a photo of a cat".into(),
        negative_prompt: None,
        width_px,
        height_px: 64,
        steps,
        seed,
        true_cfg_scale: 1.0,
        init: None,
    }
}

fn draw(pipeline: &mut Pipeline, request: &Request, observer: &mut dyn Observer) -> Result<Pixels> {
    let drawn = pipeline.draw(std::slice::from_ref(request), &CancelToken::default(), observer);
    Ok(drawn?.remove(0).pixels)
}

/// Sets the soft limit of this process's address space; `None` for what it was at first.
fn limit_address_space(bytes: Option<u64>) {
    static AT_FIRST: OnceLock<String> = OnceLock::new();
    let at_first = AT_FIRST.get_or_init(|| {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space")).unwrap();
        limit.split_whitespace().next().unwrap().to_owned()
    });
    let bytes = bytes.map_or_else(|| at_first.clone(), |bytes| bytes.to_string());
    let own = std::process::id().to_string();
    let set = Command::new("prlimit").args(["--pid", &own, &format!("--as={bytes}:")]).status().unwrap();
    assert!(set.success());
}

/// Takes memory away at one moment of a drawing: leaves the process so much more address space than it has.
struct Thief {
    at: (Stage, usize),
    left_bytes: u64,
    /// Whether the memory comes back with the first warning.
    returns: bool,
    warnings: Vec<String>,
}

impl Thief {
    fn new(at: (Stage, usize), left_bytes: u64) -> Self {
        Self { at, left_bytes, returns: false, warnings: Vec::new() }
    }

    fn steal(&self, stage: Stage, done: usize) {
        if self.at == (stage, done) && self.warnings.is_empty() {
            limit_address_space(Some(Usage::now().address_space_bytes + self.left_bytes));
        }
    }
}

impl Observer for Thief {
    fn begin(&mut self, stage: Stage, _: usize) {
        self.steal(stage, 0);
    }

    fn advance(&mut self, stage: Stage, done: usize) {
        self.steal(stage, done);
    }

    fn warn(&mut self, warning: &str) {
        self.warnings.push(warning.to_owned());
        if self.returns {
            limit_address_space(None);
        }
    }
}

/// What is said where memory is short.
const SECOND_TRY: &str = "memory ran out: drawing again, a picture at a time with --offload stream";

#[test]
fn row_78_memory_that_is_gone_in_the_middle_fails_one_drawing() {
    if !is_child("row_78_memory_that_is_gone_in_the_middle_fails_one_drawing") {
        return;
    }
    let (mut pipeline, large) = (open(Vec::new()), Request { height_px: 768, ..request(768, 1, 1) });
    let small = request(64, 2, 1);
    let want = draw(&mut pipeline, &small, &mut Silent).unwrap();
    // Errors and lists need some; the decoder needs more, even after the steps' buffers are given back for it.
    let mut thief = Thief::new((Stage::Denoise, 1), 8 << 20);
    let error = draw(&mut pipeline, &large, &mut thief).map(drop).unwrap_err();
    let Error::Tensor(inkstone_tensor::Error::OutOfMemory { wanted_bytes, .. }) = error else {
        panic!("{error:?}")
    };
    // A buffer of the decoder: more than was left, less than all lines of its widest layer in f32.
    assert!((100_000..200_000_000).contains(&wanted_bytes), "{wanted_bytes}");
    assert_eq!((error.code(), error.exit_code()), ("INK-0402", 4));
    assert_eq!(thief.warnings, [SECOND_TRY]);
    // What is left is known before the next one begins.
    let refused = draw(&mut pipeline, &large, &mut Silent).map(drop).unwrap_err();
    assert_eq!(refused.code(), "INK-0401", "{refused}");
    limit_address_space(None);
    assert!(draw(&mut pipeline, &small, &mut Silent).unwrap() == want, "as if nothing had been");
}

#[test]
fn row_78_the_second_try_draws_the_same_picture() {
    if !is_child("row_78_the_second_try_draws_the_same_picture") {
        return;
    }
    let large = Request { height_px: 512, ..request(512, 2, 1) };
    let want = draw(&mut open(Vec::new()), &large, &mut Silent).unwrap();
    let mut pipeline = open(Vec::new());
    let mut thief = Thief { returns: true, ..Thief::new((Stage::Decode, 0), 2 << 20) };
    assert!(draw(&mut pipeline, &large, &mut thief).unwrap() == want, "another picture");
    assert_eq!(thief.warnings, [SECOND_TRY]);
}

/// What a drawing takes beside its files: in the way that takes least, and in the one that is taken where there is room.
fn needs_bytes(quantization: Option<Quantization>, wanted: &Request) -> [u64; 2] {
    [Some(1), None].map(|max_memory_bytes| {
        let options =
            OpenOptions { threads: Some(1), quantization, max_memory_bytes, ..OpenOptions::default() };
        let pipeline = Pipeline::open(&ModelSource::Folder(golden("qwen_tiny")), &options).unwrap();
        let plan = pipeline.forecast(std::slice::from_ref(wanted)).unwrap().remove(0).forecast.memory;
        plan.stages.iter().map(|stage| stage.anonymous_bytes as u64).max().unwrap()
    })
}

/// Wherever memory ends, a drawing fails or is drawn with less, and the process lives. A quarter of what the leanest way
/// takes is too little for every way, twice what the usual one takes is enough; between them either may happen.
#[test]
fn row_78_whatever_is_left_nothing_is_killed() {
    /// What an allocator may keep of what was given back, so that it takes no address space again (glibc: twice the
    /// largest block that it does not map on its own, which grows with those that are freed).
    const KEPT_BYTES: u64 = 8 << 20;
    if !is_child("row_78_whatever_is_left_nothing_is_killed") {
        return;
    }
    let wanted = Request { height_px: 768, ..request(1024, 1, 1) };
    for quantization in [None, Some(Quantization::Int8)] {
        let [least, usual] = needs_bytes(quantization, &wanted);
        println!("{quantization:?}: least {least}, usual {usual}");
        assert!(least / 4 > KEPT_BYTES, "{least}: too small a picture to be sure that it fails");
        let options = OpenOptions { threads: Some(1), quantization, ..OpenOptions::default() };
        let model = ModelSource::Folder(golden("qwen_tiny"));
        let mut pipeline = Pipeline::open(&model, &options).unwrap();
        let want = draw(&mut pipeline, &wanted, &mut Silent).unwrap();
        for stage in [Stage::Denoise, Stage::Decode] {
            for left_bytes in [least / 4, least / 2, least, 2 * usual] {
                let told = format!("{quantization:?}, {stage:?} with {left_bytes} of {least} to {usual}");
                match draw(&mut pipeline, &wanted, &mut Thief::new((stage, 0), left_bytes)) {
                    Ok(drawn) => assert!(drawn == want && left_bytes > least / 4, "{told}"),
                    Err(error) => {
                        println!("{told}: {error}");
                        assert!(error.code() == "INK-0402" && left_bytes < 2 * usual, "{told}: {error}");
                    }
                }
                limit_address_space(None);
            }
        }
    }
}

/// The second try maps the model's files anew, for which there may be no room either: that is no damaged file.
#[test]
fn row_78_files_that_cannot_be_mapped_again_are_no_damaged_ones() {
    if !is_child("row_78_files_that_cannot_be_mapped_again_are_no_damaged_ones") {
        return;
    }
    let wanted = Request { height_px: 192, ..request(192, 1, 1) };
    let mut pipeline = open(Vec::new());
    let want = draw(&mut pipeline, &wanted, &mut Silent).unwrap();
    for left_bytes in [1 << 18, 1 << 16] {
        match draw(&mut pipeline, &wanted, &mut Thief::new((Stage::Denoise, 0), left_bytes)) {
            Ok(drawn) => assert!(drawn == want, "with {left_bytes}"),
            Err(error) => assert_eq!(error.code(), "INK-0402", "with {left_bytes}: {error}"),
        }
        limit_address_space(None);
    }
    assert!(draw(&mut pipeline, &wanted, &mut Silent).unwrap() == want, "as if nothing had been");
}

/// What this process has allocated. Resident memory would tell less: with nothing kept it differs by 200 KB from one time to
/// the next, in holes of the system's allocator.
fn held_bytes() -> usize {
    ALLOCATOR.current_usage() + AlignedBuffer::mapped_bytes()
}

/// Stops a drawing behind its first step.
struct Stopper(CancelToken);

impl Observer for Stopper {
    fn advance(&mut self, stage: Stage, _: usize) {
        if stage == Stage::Denoise {
            self.0.cancel();
        }
    }
}

/// `INKSTONE_TEST_JOBS` says how many; the row's 1,000 take minutes.
#[test]
fn row_79_many_drawings_leave_nothing_behind() {
    if !is_child("row_79_many_drawings_leave_nothing_behind") {
        return;
    }
    let jobs: u32 = std::env::var("INKSTONE_TEST_JOBS").map_or(60, |text| text.parse().unwrap());
    let lora = LoraSource { path: golden("lora/qwen_diffusers.safetensors"), scale: 0.5 };
    let loras = [Vec::new(), vec![lora]];
    let mut pipelines = loras.clone().map(open);
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut job = |pipelines: &mut [Pipeline; 2]| {
        let width_px = 64 + 16 * usize::try_from(random(5)).unwrap();
        let wanted = Request {
            prompt: format!("a photo of {} cats", random(100)),
            ..request(width_px, 1 + usize::try_from(random(3)).unwrap(), random(1 << 40))
        };
        let which = usize::try_from(random(2)).unwrap();
        let pipeline = &mut pipelines[which];
        match random(10) {
            0 => {
                let cancel = CancelToken::default();
                let mut stopper = Stopper(cancel.clone());
                let stopped = pipeline.draw(&[wanted], &cancel, &mut stopper);
                assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
            }
            1 => {
                let refused =
                    pipeline.draw(&[Request { steps: 0, ..wanted }], &CancelToken::default(), &mut Silent);
                assert_eq!(refused.unwrap_err().code(), "INK-0201");
            }
            2 => *pipeline = open(loras[which].clone()),
            _ => drop(draw(pipeline, &wanted, &mut Silent).unwrap()),
        }
    };
    let mut measure = |jobs: u32| {
        (0..jobs).for_each(|_| job(&mut pipelines));
        // All that a drawing opens is open again.
        for pipeline in &mut pipelines {
            draw(pipeline, &request(128, 1, 1), &mut Silent).unwrap();
        }
        (held_bytes(), std::fs::read_dir("/proc/self/fd").unwrap().count())
    };
    // What is kept between drawings is there after some: buffers of all sizes, embeddings up to their limit.
    let (bytes, open_files) = measure(jobs);
    let (after, files_after) = measure(jobs);
    println!("{bytes} bytes and {open_files} files, then {after} and {files_after}");
    // Embeddings and buffers that are kept are those of the last drawings: 75 KB more or less after 20, 60 or 200 of them.
    // What stays of each would add up: of 60, more than 4 KB would be seen.
    assert!(after <= bytes + 4096 * 60, "{bytes} bytes became {after}");
    assert_eq!(files_after, open_files);
}

/// What outlives a model in small pieces is too little to be seen in the drawings above: a tokenizer's memory of words had
/// 7 KB an opening.
#[test]
fn row_79_many_openings_leave_nothing_behind() {
    if !is_child("row_79_many_openings_leave_nothing_behind") {
        return;
    }
    const OPENINGS: usize = 50;
    let lora = LoraSource { path: golden("lora/qwen_diffusers.safetensors"), scale: 0.5 };
    let loras = [Vec::new(), vec![lora]];
    let small = request(64, 1, 1);
    let openings = || {
        for i in 0..OPENINGS {
            draw(&mut open(loras[i % 2].clone()), &small, &mut Silent).unwrap();
        }
        held_bytes()
    };
    // What is kept for good is there after the first.
    let (bytes, after) = (openings(), openings());
    assert!(after < bytes + 80 * OPENINGS, "{bytes} bytes became {after}: over 80 an opening");
}
