//! The way of finished pictures to the disk, while others of their batch are still under way.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use inkstone::codec::{self, Metadata};
use inkstone::progress::{CancelToken, Observer, Stage};
use inkstone::{Picture, Request};
use serde_json::json;

use crate::args::MetadataPlace;
use crate::failure::{Failure, Result};
use crate::output::{self, Existing};
use crate::progress::{self, Progress, duration};
use crate::terminal::{Level, Terminal};

/// How pictures are saved and told of.
#[derive(Debug)]
pub(crate) struct Saving<'a> {
    pub(crate) terminal: &'a Terminal,
    pub(crate) existing: Existing,
    pub(crate) place: MetadataPlace,
    /// What is the same of all pictures.
    pub(crate) common: Metadata,
    pub(crate) model: String,
    pub(crate) device: String,
}

impl Saving<'_> {
    fn save(&self, picture: &Picture, path: &Path) -> Result<PathBuf> {
        let settings = self.settings_of(&picture.request);
        let inside = (self.place == MetadataPlace::Png).then_some(&settings);
        let bytes = codec::png::write(&picture.pixels, inside)?;
        let sidecar = match self.place {
            MetadataPlace::Sidecar => Some(settings.to_json()),
            MetadataPlace::Png | MetadataPlace::None => None,
        };
        output::save(path, &bytes, sidecar.as_deref().map(str::as_bytes), self.existing)
    }

    /// What a picture carries: all that draws it again.
    fn settings_of(&self, request: &Request) -> Metadata {
        let Metadata { dtype, quantize, loras, image, .. } = self.common.clone();
        let image = request.init.as_ref().and(image);
        Metadata { dtype, quantize, loras, image, ..Metadata::of(request, &self.model) }
    }

    fn report(&self, picture: &Picture, path: &Path, seconds: f64, progress: &Progress<'_>) -> Result<()> {
        let terminal = self.terminal;
        if terminal.level >= Level::Verbose {
            terminal.note(&format!("device: {}", self.device));
            terminal.note(&progress::table(&progress.taken));
        }
        terminal.note(&format!("done in {}", duration(seconds)));
        if !terminal.json() {
            return terminal.path(path);
        }
        let request = &picture.request;
        let stages = picture.stages.iter();
        let stages: serde_json::Map<_, _> =
            stages.map(|(stage, seconds)| (stage.name().to_owned(), (*seconds).into())).collect();
        terminal.event(&json!({
            "event": "picture", "path": path.to_string_lossy(), "prompt": request.prompt, "seed": request.seed,
            "width": request.width_px, "height": request.height_px, "steps": request.steps,
            "seconds": seconds, "stages": stages, "peak_bytes": inkstone::memory::peak_bytes(),
        }))
    }
}

/// Shows how far a batch is, and saves each of its pictures when it is finished.
#[derive(Debug)]
pub(crate) struct Finishing<'a> {
    saving: &'a Saving<'a>,
    progress: Progress<'a>,
    /// Where the pictures that are still to come go.
    paths: &'a [PathBuf],
    /// Of all batches.
    pictures: usize,
    /// When the batch began.
    begun: Instant,
    /// Why a picture could not be saved; the run is cancelled then.
    failed: Option<Failure>,
}

impl<'a> Finishing<'a> {
    pub(crate) fn new(saving: &'a Saving<'a>, paths: &'a [PathBuf], cancel: CancelToken) -> Self {
        let progress = Progress::new(saving.terminal, cancel);
        Self { saving, progress, paths, pictures: paths.len(), begun: Instant::now(), failed: None }
    }

    /// What went wrong beside drawing; an interruption, if pictures are missing.
    pub(crate) fn end(mut self) -> Result<()> {
        self.failed.take().or(self.progress.failed.take()).map_or(Ok(()), Err)?;
        if !self.paths.is_empty() {
            self.progress.cancel().check()?;
        }
        Ok(())
    }

    fn finish(&mut self, picture: &Picture) -> Result<()> {
        let Some((path, rest)) = self.paths.split_first() else { return Ok(()) };
        self.paths = rest;
        let path = self.saving.save(picture, path)?;
        self.saving.report(picture, &path, self.begun.elapsed().as_secs_f64(), &self.progress)
    }
}

impl Observer for Finishing<'_> {
    fn batch(&mut self, requests: &[Request]) {
        self.progress.taken.clear();
        self.begun = Instant::now();
        let first = self.pictures - self.paths.len() + 1;
        self.saving.terminal.note(&announced(requests, first, self.pictures, &self.saving.model));
    }

    fn begin(&mut self, stage: Stage, total: usize) {
        self.progress.begin(stage, total);
    }

    fn advance(&mut self, stage: Stage, done: usize) {
        self.progress.advance(stage, done);
    }

    fn end(&mut self, stage: Stage) {
        self.progress.end(stage);
    }

    /// Of an interrupted run nothing more is saved.
    fn picture(&mut self, picture: &Picture) {
        if self.progress.cancel().check().is_ok()
            && let Err(failure) = self.finish(picture)
        {
            self.progress.cancel().cancel();
            self.failed.get_or_insert(failure);
        }
    }

    fn warn(&mut self, warning: &str) {
        self.progress.warn(warning);
    }
}

/// What is about to be drawn: pictures `first` and further ones of `pictures`.
fn announced(batch: &[Request], first: usize, pictures: usize, model: &str) -> String {
    let Some(request) = batch.first() else { return String::new() };
    let several = match (batch.len(), pictures) {
        (_, 1) => String::new(),
        (1, _) => format!("{first} of {pictures}: "),
        (size, _) => format!("{first} to {} of {pictures}: ", first + size - 1),
    };
    let prompts: HashSet<&str> = batch.iter().map(|request| request.prompt.as_str()).collect();
    let prompts = if prompts.len() == 1 { String::new() } else { format!("{} prompts  ", prompts.len()) };
    let mut seeds: Vec<u64> = Vec::new();
    for request in batch {
        if !seeds.contains(&request.seed) {
            seeds.push(request.seed);
        }
    }
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let word = if seeds.len() == 1 { "seed" } else { "seeds" };
    let size = format!("{}x{}", request.width_px, request.height_px);
    let (steps, scale) = (request.steps, request.true_cfg_scale);
    format!("{several}{prompts}{word} {}  {size}  {steps} steps  cfg {scale}  {model}", seeds.join(" "))
}
