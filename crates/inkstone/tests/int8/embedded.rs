//! The blocks of the embedded model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use inkstone::progress::{Context, Silent, Tap};
use inkstone::request::InitImage;
use inkstone::weights::Quantization;
use inkstone::{Pipeline, Pixels, Request};
use inkstone_tensor::Tensor;

use crate::blocks::LEAST_COSINE;
use crate::drawing::draw;
use crate::pictures::open;
use crate::similarity::cosine;

/// Keeps what both streams hold behind each block, of each forward.
#[derive(Default)]
struct Behind(RefCell<BTreeMap<String, Vec<f32>>>);

impl Tap for Behind {
    fn see(&self, name: fmt::Arguments<'_>, tensor: &Tensor) {
        let name = name.to_string();
        let of_block = name.starts_with("block.") && !name.contains("attn");
        if of_block {
            self.0.borrow_mut().entry(name).or_default().extend(tensor.to_f32().unwrap());
        }
    }
}

/// What is behind the blocks in the only step, which begins with noise, or in the last fifth of the way with a picture.
fn streams(pipeline: &mut Pipeline, init: Option<Pixels>) -> BTreeMap<String, Vec<f32>> {
    let defaults = pipeline.model().defaults.clone();
    let request = Request {
        prompt: "a panda on a yellow background".into(),
        negative_prompt: Some(defaults.negative_prompt),
        width_px: defaults.width_px,
        height_px: defaults.height_px,
        steps: if init.is_some() { 5 } else { 1 },
        seed: 5,
        true_cfg_scale: defaults.true_cfg_scale,
        init: init.map(|pixels| InitImage { pixels: pixels.into(), strength: 0.2 }),
    };
    let behind = Behind::default();
    pipeline.draw_in(&[request], &Context { cancel: None, tap: Some(&behind) }, &mut Silent).unwrap();
    behind.0.into_inner()
}

/// The gate of random blocks on trained ones. They follow each other here, with text of an encoder in bytes, so a block may
/// take that much from the cosine in front of it: errors of different layers are independent, so their squares, which a
/// cosine lacks to 1, add up.
#[test]
fn blocks_of_a_trained_model_lose_as_little() {
    let (mut plain, mut int8) = (open(None), open(Some(Quantization::Int8)));
    let steps = plain.model().defaults.steps;
    let picture = draw(&mut plain, &["a panda on a yellow background"], steps).unwrap().remove(0);
    for init in [None, Some(picture)] {
        let begun = if init.is_some() { "picture" } else { "noise" };
        let want = streams(&mut plain, init.clone());
        let got = streams(&mut int8, init);
        for stream in ["img", "txt"] {
            let behind = |block: usize| {
                let name = format!("block.{block}.{stream}");
                Some(cosine(got.get(&name)?, &want[&name]))
            };
            let cosines: Vec<f64> = (0..).map_while(behind).collect();
            assert_eq!(cosines.len(), 6);
            let mut before = 1.0;
            for cosine in &cosines {
                assert!(before - cosine <= 1.0 - LEAST_COSINE, "{stream} from {begun}: {cosines:?}");
                before = *cosine;
            }
        }
    }
}
