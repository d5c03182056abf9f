//! The whole way from a request to a picture, on one screen: text, noise, steps, pixels.

mod fit;
mod forecast;
mod info;
mod networks;
mod options;
mod pixels;
mod prediction;
mod run;
mod stages;
#[cfg(test)]
mod tests;
mod tiling;

use std::collections::HashMap;
use std::sync::OnceLock;

use inkstone_tensor::ops::Rescale;
use inkstone_tensor::{Device, Tensor, cpu};

use crate::bench::Sizes;
use crate::memory::Offload;
use crate::models::{qwen_image, qwen_vae, qwen25_vl};
use crate::nn::rope::Grid;
use crate::progress::{CancelToken, Context, Observer, Stage};
use crate::request::SIDE_STEP_PX;
use crate::sample::guidance::Guidance;
use crate::sample::latents::PATCH;
use crate::sample::schedule::{Schedule, SchedulerConfig};
use crate::text::PromptTokenizer;
use crate::weights::lora::{self, Applied};
use crate::weights::{Component, LayerFormat, MODEL_INDEX, ModelFiles, ModelSource, SCHEDULER};
use crate::{Error, Pixels, Request, Result};

use fit::{Ahead, Way};
use forecast::Base;
use info::native_side_px;
use networks::{Arithmetic, Networks};
use run::Run;

pub use fit::{Conversion, Planned};
pub use forecast::{Forecast, Setting};
pub use info::{Defaults, ModelInfo};
pub use networks::{Form, Made};
pub use options::{OpenOptions, Precision};
pub use tiling::VaeTiling;

/// The scale at which guidance does nothing: Lightning LoRAs are distilled with it.
const NO_GUIDANCE: f32 = 1.0;

/// A drawn picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The pixels.
    pub pixels: Pixels,
    /// What was asked for.
    pub request: Request,
    /// Seconds of each stage, in order. Pictures of one batch share all but the last.
    pub stages: Vec<(Stage, f64)>,
}

/// A model that is ready to draw.
#[derive(Debug)]
pub struct Pipeline {
    info: ModelInfo,
    files: ModelFiles,
    device: Device,
    /// Of all weights, on disk.
    weight_bytes: u64,
    max_memory_bytes: Option<u64>,
    vae_tiling: VaeTiling,
    offload: Offload,
    /// What the process takes with this model open and nothing of it used; found by the first forecast.
    base: OnceLock<Base>,
    /// Built for the first prompt, or the first plan of long ones: a full vocabulary takes a quarter of a second.
    tokenizer: OnceLock<PromptTokenizer>,
    scheduler: SchedulerConfig,
    networks: Networks,
    /// Embeddings of prompts seen before: f32 `[n_tokens, d]`, template dropped.
    embeddings: HashMap<String, Tensor>,
}

impl Pipeline {
    /// Reads a model's configuration and the heads of LoRAs. Tokenizer and weights are opened by the first drawing.
    ///
    /// # Errors
    /// A model that is not there, not whole or not supported; a device that cannot be used.
    pub fn open(source: &ModelSource, options: &OpenOptions) -> Result<Self> {
        let device = Device::cpu(&cpu::Options { threads: options.threads, isa: None })?;
        let activations = options.precision.activations(&device);
        let form = options.quantization.map_or(Form::Stored, Form::Loaded);
        let files = ModelFiles::open(source, options.read)?;
        let native_side_px = native_side_px(files.json(MODEL_INDEX)?)?;
        let configs = networks::Configs {
            encoder: qwen25_vl::Config::from_json(files.json(Component::TextEncoder.config_name())?)?,
            transformer: qwen_image::Config::from_json(files.json(Component::Transformer.config_name())?)?,
            vae: qwen_vae::Config::from_json(files.json(Component::Vae.config_name())?)?,
        };
        configs.check()?;
        let loras = lora::open_heads(&options.loras, &device)?;
        let mut defaults = Defaults::for_side(native_side_px);
        let mut scheduler = SchedulerConfig::from_json(files.json(SCHEDULER)?)?;
        if let Some(steps) = lora::distilled_steps(&loras) {
            (defaults.steps, defaults.true_cfg_scale) = (steps, NO_GUIDANCE);
            scheduler = scheduler.lightning();
        }
        Ok(Self {
            info: ModelInfo { name: files.name().to_owned(), defaults },
            tokenizer: OnceLock::new(),
            scheduler,
            networks: Networks::new(configs, device.clone(), Arithmetic { activations, form, loras: true })
                .with_loras(loras),
            embeddings: HashMap::new(),
            weight_bytes: files.weight_bytes()?,
            max_memory_bytes: options.max_memory_bytes,
            vae_tiling: options.vae_tiling,
            offload: options.offload,
            base: OnceLock::new(),
            files,
            device,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ModelInfo {
        &self.info
    }

    /// The LoRAs that it draws with.
    #[must_use]
    pub fn loras(&self) -> &[Applied] {
        &self.networks.loras
    }

    /// The device that draws.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The sizes that its operations have, for [`crate::bench::Rates`].
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let networks::Configs { transformer, vae, .. } = &self.networks.configs;
        // The level in front of the last one: twice the narrowest.
        let channels = vae.base_dim * vae.dim_mult.get(1).copied().unwrap_or(1);
        Sizes { width: transformer.heads.width(), head_dim: transformer.heads.head_dim, channels }
    }

    /// What became of the linear layers of the networks that were opened so far, where [`OpenOptions::quantization`]
    /// asks for a smaller format.
    #[must_use]
    pub fn layer_formats(&self) -> &[LayerFormat] {
        self.networks.formats()
    }

    /// Checks that requests fit into memory, and reads the LoRAs: what can be known before weights are touched. A drawing
    /// does it, too.
    ///
    /// # Errors
    /// A request out of range or too large for memory; LoRAs that cannot be used.
    pub fn prepare(&self, requests: &[Request]) -> Result<()> {
        self.prepared(requests).map(drop)
    }

    /// The same; how many pictures of each group gain by being drawn together.
    fn prepared(&self, requests: &[Request]) -> Result<Vec<usize>> {
        requests.iter().try_for_each(Request::validate)?;
        let fitting = |group: &[Request]| {
            let most = self.gaining(group)?;
            self.fit(group, most).map(|_| most)
        };
        let most = requests.chunk_by(can_share).map(fitting).collect::<Result<_>>()?;
        // Plans count the LoRAs beside what the process takes without them.
        if !self.loras().is_empty() {
            self.base();
        }
        self.loras().iter().try_for_each(|applied| applied.lora.read(&self.device))?;
        Ok(most)
    }

    /// Draws pictures. Requests that differ in prompts, seed and starting picture only are drawn together where memory
    /// allows and they gain by it; each picture's bytes are those of its solo run. What does not fit into memory at all
    /// is refused before a weight is touched.
    ///
    /// # Errors
    /// A request out of range or too large for memory, weights that do not load, numbers that are not finite, an
    /// interruption.
    pub fn draw(
        &mut self,
        requests: &[Request],
        cancel: &CancelToken,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Picture>> {
        self.draw_in(requests, &Context { cancel: Some(cancel), tap: None }, observer)
    }

    /// [`Self::draw`] for an observer that takes what it needs of each picture: none is kept.
    ///
    /// # Errors
    /// As [`Self::draw`].
    pub fn draw_each(
        &mut self,
        requests: &[Request],
        cancel: &CancelToken,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        self.draw_batches(requests, &Context { cancel: Some(cancel), tap: None }, observer, drop)
    }

    /// [`Self::draw`] with a tap on every intermediate result: `latents.N`, `model_call.N` and those of the networks.
    ///
    /// # Errors
    /// As [`Self::draw`].
    pub fn draw_in(
        &mut self,
        requests: &[Request],
        context: &Context<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Picture>> {
        let mut pictures = Vec::with_capacity(requests.len());
        self.draw_batches(requests, context, observer, |drawn| pictures.extend(drawn))?;
        Ok(pictures)
    }

    fn draw_batches(
        &mut self,
        requests: &[Request],
        context: &Context<'_>,
        observer: &mut dyn Observer,
        mut finished: impl FnMut(Vec<Picture>),
    ) -> Result<()> {
        let most = self.prepared(requests)?;
        for (mut group, most) in requests.chunk_by(can_share).zip(most) {
            while !group.is_empty() {
                // What is free changes while others are drawn.
                let way = self.fit(group, most)?;
                let (batch, rest) = group.split_at(way.pictures.min(group.len()));
                group = rest;
                observer.batch(batch);
                let mut run = Run::new(context, observer);
                let mut pictures = Vec::with_capacity(batch.len());
                let drawn = match self.draw_batch(batch, rest, way, &mut run, &mut pictures) {
                    Err(error @ Error::Tensor(inkstone_tensor::Error::OutOfMemory { .. })) => {
                        let missing = &batch[pictures.len()..];
                        self.draw_with_least(error, missing, way, &mut run, &mut pictures)
                    }
                    drawn => drawn,
                };
                self.device.trim();
                if matches!(drawn, Err(Error::ModelChanged { .. })) {
                    self.forget();
                }
                drawn?;
                finished(pictures);
            }
        }
        Ok(())
    }

    /// Draws again what memory did not suffice for, as another program took it in the meantime: with the least memory
    /// that there is a way for. What was drawn so already fails with the error that it had.
    fn draw_with_least(
        &mut self,
        error: Error,
        batch: &[Request],
        way: Way,
        run: &mut Run<'_>,
        pictures: &mut Vec<Picture>,
    ) -> Result<()> {
        self.forget();
        self.device.trim();
        let least = Way::LEAST;
        if way == least && batch.len() == 1 {
            return Err(error);
        }
        run.observer.warn("memory ran out: drawing again, a picture at a time with --offload stream");
        for (i, request) in batch.iter().enumerate() {
            run.stages.clear();
            self.draw_batch(std::slice::from_ref(request), &batch[i + 1..], least, run, pictures)?;
        }
        Ok(())
    }

    /// The story: text, noise, steps, pixels. Each picture is shown and kept as soon as it is finished. `next` are the
    /// requests that follow.
    fn draw_batch(
        &mut self,
        batch: &[Request],
        next: &[Request],
        way: Way,
        run: &mut Run<'_>,
        pictures: &mut Vec<Picture>,
    ) -> Result<()> {
        let plan = self.plan(&batch[0])?;
        self.networks.stream(way.offload == Offload::Stream);
        self.open_networks(batch, &plan, run)?;
        let _ahead = self.networks.read_ahead(!self.unseen(batch, &plan).is_empty());
        let texts = self.embed(batch, next, &plan, way, run)?;
        self.device.trim();
        if way.offload != Offload::None {
            self.networks.close_encoder();
        }
        let noisy = self.noisy_latents(batch, &plan, way.strips, run)?;
        let latents = self.denoise(noisy, &texts, &plan, way.passes, run)?;
        self.device.trim();
        self.networks.rest();
        let latents = latents.to_f32()?;
        let shared = run.stages.len();
        for (request, latents) in batch.iter().zip(latents.chunks_exact(self.latent_count(&plan))) {
            run.stages.truncate(shared);
            let pixels = self.decode(latents, &plan, way.strips, run)?;
            let picture = Picture { pixels, request: request.clone(), stages: run.stages.clone() };
            run.observer.picture(&picture);
            pictures.push(picture);
        }
        Ok(())
    }

    fn plan(&self, request: &Request) -> Result<Plan> {
        let grid = grid(request);
        let schedule = Schedule::new(&self.scheduler, request.steps, grid.tokens())?;
        let schedule = match &request.init {
            Some(init) => schedule.for_strength(init.strength),
            None => schedule,
        };
        Ok(Plan { grid, schedule, guidance: guidance(request) })
    }

    /// Closes the weights and forgets what was computed from them: the next drawing opens them again.
    fn forget(&mut self) {
        self.networks.close();
        self.embeddings.clear();
    }

    /// Opens what this batch needs.
    fn open_networks(&mut self, batch: &[Request], plan: &Plan, run: &mut Run<'_>) -> Result<()> {
        let mut needed = vec![Component::Transformer, Component::Vae];
        if !self.unseen(batch, plan).is_empty() {
            needed.push(Component::TextEncoder);
        }
        self.networks.open(&needed, &self.files, run)
    }
}

/// What the pictures of a batch have in common.
struct Plan {
    /// The picture in tokens.
    grid: Grid,
    schedule: Schedule,
    guidance: Option<Guidance>,
}

impl Plan {
    /// Height and width of the latents.
    fn latent_size(&self) -> (usize, usize) {
        (self.grid.height * PATCH, self.grid.width * PATCH)
    }
}

/// A request's picture in tokens.
fn grid(request: &Request) -> Grid {
    Grid { height: request.height_px / SIDE_STEP_PX, width: request.width_px / SIDE_STEP_PX }
}

fn guidance(request: &Request) -> Option<Guidance> {
    let rescale = Rescale::ToConditional; // as Qwen-Image 1.x does
    Guidance::for_request(request.true_cfg_scale, request.negative_prompt.as_deref(), rescale)
}

/// Whether two requests may be drawn in one batch.
#[allow(clippy::float_cmp, reason = "the same number or another one")]
fn can_share(a: &Request, b: &Request) -> bool {
    let strength = |r: &Request| r.init.as_ref().map(|init| init.strength);
    (a.width_px, a.height_px, a.steps) == (b.width_px, b.height_px, b.steps)
        && a.true_cfg_scale == b.true_cfg_scale
        && a.negative_prompt.is_some() == b.negative_prompt.is_some()
        && strength(a) == strength(b)
}
