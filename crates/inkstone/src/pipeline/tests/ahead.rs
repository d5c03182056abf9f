//! How often the text encoder is brought back for prompts of later batches.

use super::golden;
use crate::memory::Offload;
use crate::pipeline::stages::AHEAD_TOKENS;
use crate::pipeline::{OpenOptions, Pipeline};
use crate::progress::{CancelToken, Observer, Stage};
use crate::request::Request;
use crate::weights::{ModelSource, Quantization};

/// Pictures of two in a batch, with prompts of so many words.
fn requests(words: usize) -> Vec<Request> {
    let request = |i: usize| Request {
        prompt: format!("{i}{}", " cat".repeat(words)),
        negative_prompt: None,
        width_px: 1024,
        height_px: 512,
        steps: 1,
        seed: 1,
        true_cfg_scale: 1.0,
        init: None,
    };
    (0..6).map(request).collect()
}

#[derive(Default)]
struct Loads(usize);

impl Observer for Loads {
    fn begin(&mut self, stage: Stage, _: usize) {
        self.0 += usize::from(stage == Stage::Load);
    }
}

#[test]
fn an_encoder_that_is_quantized_while_it_is_loaded_comes_once() {
    const WORDS: usize = 800;
    let open = |quantization| {
        let offload = Offload::Encoder;
        let options = OpenOptions { threads: Some(2), quantization, offload, ..OpenOptions::default() };
        Pipeline::open(&ModelSource::Folder(golden("qwen_tiny")), &options).unwrap()
    };
    let requests = requests(WORDS);
    let draw = |pipeline: &mut Pipeline| {
        let mut loads = Loads::default();
        let drawn = pipeline.draw(&requests, &CancelToken::default(), &mut loads).unwrap();
        (drawn, loads.0)
    };
    let mut pipeline = open(Some(Quantization::Q8));
    let tokens: usize = requests[2..].iter().map(|request| pipeline.tokens_of(&request.prompt)).sum();
    assert!(tokens > AHEAD_TOKENS, "{tokens}: prompts behind the first batch that are encoded in any case");
    let (drawn, loads) = draw(&mut pipeline);
    assert_eq!(loads, 1);
    // Weights that are mapped come back at no cost, and those of a drawing alone draw the same.
    assert_eq!(draw(&mut open(None)).1, 2);
    let last = &requests[5..];
    let alone =
        open(Some(Quantization::Q8)).draw(last, &CancelToken::default(), &mut Loads::default()).unwrap();
    assert!(alone[0].pixels == drawn[5].pixels);
}
