//! What the steps behind the first take from the allocator. What they take for tensors is counted in `golden/pipelines.rs`
//! and, at full width, in `pipeline/tests.rs`.
#![allow(clippy::unwrap_used)] // as in tests

use inkstone::progress::{CancelToken, Observer, Stage};
use inkstone::weights::ModelSource;
use inkstone::{OpenOptions, Pipeline, Request};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Notes what is allocated at the end of the first step, and the most from there to the end of the last one.
#[derive(Default)]
struct Behind {
    first_bytes: usize,
    most_bytes: usize,
}

impl Observer for Behind {
    fn advance(&mut self, stage: Stage, done: usize) {
        match (stage, done) {
            (Stage::Denoise, 1) => {
                self.first_bytes = ALLOCATOR.current_usage();
                ALLOCATOR.reset_peak_usage();
            }
            (Stage::Denoise, _) => self.most_bytes = ALLOCATOR.peak_usage(),
            _ => {}
        }
    }
}

#[test]
fn steps_behind_the_first_allocate_little() {
    // A thread takes its scratch with the first job that it gets, which of several may be in any step.
    let options = OpenOptions { threads: Some(1), ..OpenOptions::default() };
    let mut pipeline = Pipeline::open(&ModelSource::Embedded, &options).unwrap();
    // 1,024 tokens, so one copy of their latents is 256 KiB: nothing that grows with the picture is taken.
    let request = Request {
        prompt: "a cat".into(),
        negative_prompt: None,
        width_px: 512,
        height_px: 512,
        steps: 3,
        seed: 1,
        true_cfg_scale: 1.0,
        init: None,
    };
    let mut behind = Behind::default();
    pipeline.draw(&[request], &CancelToken::default(), &mut behind).unwrap();
    let taken = behind.most_bytes - behind.first_bytes;
    assert!(taken < 200_000, "{taken} bytes behind the first step");
}
