//! Rows 12 and 15 seen from a drawing: it fails with the right error, and the process lives.

use std::fs;

use inkstone::pipeline::{OpenOptions, Picture, Pipeline};
use inkstone::progress::{CancelToken, Observer, Silent, Stage};
use inkstone::weights::{ModelSource, ReadOptions, Residence};
use inkstone::{Error, Request};

use crate::dir::{Dir, WEIGHTS};

fn request() -> Request {
    Request {
        prompt: "a photo of a cat".into(),
        negative_prompt: None,
        width_px: 64,
        height_px: 64,
        steps: 3,
        seed: 1,
        true_cfg_scale: 1.0,
        init: None,
    }
}

fn pipeline(dir: &Dir, residence: Residence) -> Pipeline {
    let read = ReadOptions { residence, ..Default::default() };
    Pipeline::open(&ModelSource::Folder(dir.0.clone()), &OpenOptions { read, ..Default::default() }).unwrap()
}

fn draw(pipeline: &mut Pipeline, observer: &mut dyn Observer) -> Result<Vec<Picture>, Error> {
    pipeline.draw(&[request()], &CancelToken::default(), observer)
}

#[test]
fn mapped_and_owned_weights_draw_the_same() {
    let dir = Dir::model("residence");
    let pixels = |residence| draw(&mut pipeline(&dir, residence), &mut Silent).unwrap()[0].pixels.clone();
    assert_eq!(pixels(Residence::Mapped), pixels(Residence::Owned));
}

#[test]
fn row_12_weights_that_are_not_finite_draw_nothing() {
    let dir = Dir::model("nan-drawing");
    let mut bytes = fs::read(dir.0.join(WEIGHTS)).unwrap();
    let nan = 0x7fc0_u16.to_le_bytes();
    // The last tensor: part of the last block, so that it reaches the result.
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&nan);
    dir.write(WEIGHTS, bytes);
    let error = draw(&mut pipeline(&dir, Residence::Mapped), &mut Silent).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 1 }), "{error:?}");
    assert_eq!((error.code(), error.exit_code()), ("INK-0501", 1));
}

/// Cuts the transformer's file short when the first step is done.
struct Cutter<'a>(&'a Dir);

impl Observer for Cutter<'_> {
    fn advance(&mut self, stage: Stage, done: usize) {
        if stage == Stage::Denoise && done == 1 {
            let file = fs::File::options().write(true).open(self.0.0.join(WEIGHTS)).unwrap();
            file.set_len(100).unwrap();
        }
    }
}

#[test]
fn row_15_file_truncated_between_steps() {
    let dir = Dir::model("cut-drawing");
    let mut pipeline = pipeline(&dir, Residence::Mapped);
    let whole = fs::read(dir.0.join(WEIGHTS)).unwrap();
    let before = draw(&mut pipeline, &mut Silent).unwrap().remove(0).pixels;
    let error = draw(&mut pipeline, &mut Cutter(&dir)).unwrap_err();
    assert!(matches!(error, Error::ModelChanged { is_bytes: 100, .. }), "{error:?}");
    assert_eq!((error.code(), error.exit_code()), ("INK-0312", 3));

    // Once the file is whole again, so is the pipeline.
    fs::write(dir.0.join(WEIGHTS), whole).unwrap();
    assert!(
        draw(&mut pipeline, &mut Silent).unwrap()[0].pixels == before,
        "another picture after the repair"
    );
}

/// Notes the stages that begin.
#[derive(Default)]
struct Begun(Vec<Stage>);

impl Observer for Begun {
    fn begin(&mut self, stage: Stage, _: usize) {
        self.0.push(stage);
    }
}

#[test]
fn row_10_weights_of_the_last_stage_are_missed_before_the_first() {
    let dir = Dir::model("no-vae");
    let vae = dir.0.join("vae/diffusion_pytorch_model.safetensors");
    let mut whole = pipeline(&dir, Residence::Mapped);
    let mut file = fs::read(&vae).unwrap();
    // One tensor gets another name of the same length.
    let at = file.windows(22).position(|w| w == b"decoder.conv_in.weight").unwrap();
    file[at] = b'D';
    fs::write(&vae, &file).unwrap();
    let mut begun = Begun::default();
    let error = draw(&mut whole, &mut begun).unwrap_err();
    assert!(matches!(error, Error::Tensors { .. }), "{error:?}");
    assert_eq!(begun.0, [], "the plan reads the headers of all files first");

    fs::remove_file(&vae).unwrap();
    let open = Pipeline::open(&ModelSource::Folder(dir.0.clone()), &OpenOptions::default());
    assert!(matches!(open, Err(Error::MissingFile { .. })), "{open:?}");
}
