//! One run of the pipeline as its caller sees it: stages, time, interruption.

use std::time::Instant;

use crate::Result;
use crate::progress::{Context, Observer, Stage};

/// What the stages of a run share.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) observer: &'a mut dyn Observer,
    /// Seconds of each finished stage.
    pub(super) stages: Vec<(Stage, f64)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(context: &'a Context<'a>, observer: &'a mut dyn Observer) -> Self {
        Self { context, observer, stages: Vec::new() }
    }

    /// Runs a stage of `total` parts; the work reports each part through [`Observer::advance`].
    pub(super) fn stage<T>(
        &mut self,
        stage: Stage,
        total: usize,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.context.check_cancelled()?;
        self.observer.begin(stage, total);
        let start = Instant::now();
        let done = work(self)?;
        self.stages.push((stage, start.elapsed().as_secs_f64()));
        self.observer.end(stage);
        Ok(done)
    }
}
