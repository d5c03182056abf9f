//! What a drawing will take, found by running the networks on a device that only counts.
//!
//! There is no second description of the networks: a change of a forward changes its forecast. Weights are opened, but
//! only their headers are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use inkstone_tensor::{DType, Ledger, Products, Shape, Tensor, ops};

use super::networks::{Arithmetic, Form, Made, Networks};
use super::prediction::{Passes, Prediction, Texts};
use super::{Pipeline, Plan, Precision, Way, stages};
use crate::memory::{self, Limits, MemoryPlan, Offload, StageMemory, Usage};
use crate::progress::{Context, Stage};
use crate::sample::euler;
use crate::text::template::{MAX_TOKENS, TEXT_TO_IMAGE_DROP};
use crate::weights::{Component, lora};
use crate::{Request, Result};

/// What a request will take.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Memory, stage by stage.
    pub memory: MemoryPlan,
    /// Denoising steps.
    pub steps: usize,
    /// Bytes of the weights that every step reads.
    pub step_weights_bytes: usize,
    /// What each component's products are made with.
    pub made: BTreeMap<Component, Made>,
}

impl Forecast {
    /// What the products of a stage are made with.
    #[must_use]
    pub fn made_in(&self, stage: Stage) -> Made {
        let component = match stage {
            Stage::Load | Stage::Convert => return Made::default(),
            Stage::Text => Component::TextEncoder,
            Stage::Denoise => Component::Transformer,
            Stage::Encode | Stage::Decode => Component::Vae,
        };
        self.made.get(&component).copied().unwrap_or_default()
    }

    /// Bytes of weights that every step reads from the disk again, as memory does not hold them until the next one: all
    /// of a step's or none, for the system gives up first what was read longest ago. `None` if it is not known how much
    /// there is. `system` is what limits memory, `--max-memory` apart: what the system keeps of files is its own.
    #[must_use]
    pub fn reread_bytes(&self, system: &Limits) -> Option<u64> {
        let weights = self.step_weights_bytes as u64;
        let needed = match self.memory.offload {
            Offload::Stream => self.memory.anonymous_bytes() + weights,
            _ => self.memory.resident_bytes(),
        };
        Some(if needed > system.resident?.bytes { weights } else { 0 })
    }
}

/// What a forecast looks at in place of what [`super::OpenOptions`] say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The arithmetic.
    pub precision: Precision,
    /// The form of linear layers' weights.
    pub form: Form,
    /// What leaves memory.
    pub offload: Offload,
}

/// Pixels' colours as f32: bytes of a pixel on the host.
const PIXEL_BYTES: usize = 12;
/// The same as bytes.
const RGB_BYTES: usize = 3;
/// Longer texts than this together are not taken for a token a byte, which would be four times too many for English:
/// they are encoded.
const LONG_BYTES: usize = 256;
/// Tokens of the template, before and behind the prompt.
const TEMPLATE_TOKENS: usize = TEXT_TO_IMAGE_DROP + 5;
/// What building the tokenizer takes for each byte of its file. Measured on a full vocabulary (151,665 tokens, 5.2 MB): 11.7 at
/// the peak, 9.3 from then on. A small one takes more a byte, which is code.
const TOKENIZER_FACTOR: usize = 12;

impl Pipeline {
    /// What drawing a batch will take, in some way, with `next` behind it.
    pub(super) fn forecast_of(
        &self,
        batch: &[Request],
        next: &[Request],
        way: Way,
        arithmetic: Arithmetic,
    ) -> Result<Option<Forecast>> {
        let plan = self.plan(&batch[0])?;
        self.count_long_texts(batch, &plan)?;
        let Some((networks, ledger)) = self.networks.counting(arithmetic) else { return Ok(None) };
        let mut dry = Dry { pipeline: self, networks, ledger, plan: &plan, way, stages: Vec::new() };
        dry.run(batch, next)?;
        if arithmetic.form != Form::Stored {
            dry.networks.encoder(&self.files)?; // a prompt whose embedding is known did without
            dry.networks.check_form()?;
        }
        let step_weights_bytes = dry.networks.transformer(&self.files)?.walk().len_bytes();
        let memory = MemoryPlan {
            offload: way.offload,
            pictures: batch.len(),
            two_passes: way.passes == Passes::Two && plan.guidance.is_some(),
            stages: dry.stages,
            base: self.base().usage,
            files_bytes: self.weight_bytes,
            before_bytes: self.base().before_bytes,
        };
        let made = dry.networks.made().clone();
        Ok(Some(Forecast { memory, steps: plan.schedule.timesteps.len(), step_weights_bytes, made }))
    }

    /// Builds the tokenizer if these texts are too long to guess their tokens.
    pub(super) fn count_long_texts(&self, batch: &[Request], plan: &Plan) -> Result<()> {
        if self.unseen(batch, plan).iter().map(|text| text.len()).sum::<usize>() > LONG_BYTES {
            stages::built(&self.tokenizer, &self.files)?;
        }
        Ok(())
    }

    /// Address space without drawing, or what it will be.
    pub(super) fn address_space_bytes(&self) -> u64 {
        let now = || Usage::now().address_space_bytes + self.files.packed_bytes() as u64;
        self.base.get().map_or_else(now, |base| base.usage.address_space_bytes)
    }

    /// Measured by the first call, which comes once the model inside the program is unpacked, if it is that.
    pub(super) fn base(&self) -> &Base {
        let tokenizer = self.tokenizer.get().is_some();
        self.base.get_or_init(|| Base {
            usage: Usage::now(),
            before_bytes: memory::peak_bytes().unwrap_or(0),
            tokenizer,
        })
    }
}

/// What the process takes with a model open and nothing of it used: of LoRAs their heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    usage: Usage,
    /// The most that it took until then.
    before_bytes: u64,
    /// Whether the tokenizer is part of it.
    tokenizer: bool,
}

/// A drawing without its work.
struct Dry<'a> {
    pipeline: &'a Pipeline,
    networks: Networks,
    ledger: Arc<Ledger>,
    plan: &'a Plan,
    way: Way,
    stages: Vec<StageMemory>,
}

impl Dry<'_> {
    /// All stages, as [`Pipeline::draw`] has them.
    fn run(&mut self, batch: &[Request], next: &[Request]) -> Result<()> {
        let unseen = self.pipeline.unseen_with_next(batch, next, self.plan, self.way);
        let files = &self.pipeline.files;
        let _tokenizer = self.ledger.hold(self.pipeline.tokenizer_bytes());
        let known =
            self.pipeline.embeddings.values().map(|known| known.shape().count() * DType::F32.size_bytes());
        let _known = self.ledger.hold(known.sum());
        let loras = lora::memory_bytes(&self.networks.loras);
        let _loras = self.ledger.hold(usize::try_from(loras).unwrap_or(usize::MAX));
        self.networks.stream(self.way.offload == Offload::Stream);
        self.networks.transformer(files)?;
        self.networks.vae(files)?;
        if !unseen.is_empty() {
            self.networks.encoder(files)?;
        }
        if matches!(self.networks.arithmetic.form, Form::Converted(_)) {
            self.ledger.begin(); // what converting takes is none of it
        }
        self.end(Stage::Load, None);
        let kept = self.text(&unseen)?;
        self.networks.device.trim();
        if self.way.offload != Offload::None {
            self.networks.close_encoder();
        }
        self.encode(batch)?;
        let latents = self.denoise(batch)?;
        self.networks.device.trim();
        self.networks.rest();
        self.decode(batch.len())?;
        drop((kept, latents));
        Ok(())
    }

    /// Ends a stage: what it took at most is noted.
    fn end(&mut self, stage: Stage, products: Option<Products>) {
        let (peak, anonymous_bytes) = (self.ledger.peak(), self.ledger.anonymous_peak_bytes());
        let products = products.unwrap_or_else(|| self.ledger.products());
        self.stages.push(StageMemory { stage, peak, anonymous_bytes, products });
        self.ledger.begin();
    }

    /// The embeddings, which are kept.
    fn text(&mut self, unseen: &[Vec<&str>]) -> Result<Vec<Tensor>> {
        let mut kept = Vec::new();
        for texts in unseen {
            kept.extend(self.forward(texts)?);
        }
        if !unseen.is_empty() {
            self.end(Stage::Text, None);
        }
        Ok(kept)
    }

    fn forward(&mut self, unseen: &[&str]) -> Result<Vec<Tensor>> {
        let encoder = self.networks.encoder(&self.pipeline.files)?;
        let vocabulary = encoder.config().vocab_size;
        let mut first = 0;
        let mut ids = |text: &&str| -> Vec<u32> {
            let count = self.pipeline.tokens_of(text);
            let range = first..first + count;
            first = range.end;
            // Far from each other, so that each is on a page of its own.
            range.map(|i| u32::try_from(i * 97 % vocabulary).unwrap_or(0)).collect()
        };
        let ids: Vec<Vec<u32>> = unseen.iter().map(&mut ids).collect();
        let hidden = encoder.forward(&ids, &Context::default())?;
        let mut end = 0;
        let mut kept = Vec::with_capacity(ids.len());
        for ids in &ids {
            kept.push(ops::convert(&hidden.rows_range(end..end + ids.len())?, DType::F32)?);
            end += ids.len();
        }
        Ok(kept)
    }

    fn encode(&mut self, batch: &[Request]) -> Result<()> {
        if batch.iter().all(|request| request.init.is_none()) {
            return Ok(());
        }
        let (height, width) = self.plan.latent_size();
        let scale = crate::request::SIDE_STEP_PX / crate::sample::latents::PATCH;
        let (height, width) = (height * scale, width * scale);
        // The resized picture, its values from 0 to 1, and from -1 to 1.
        let _host = self.ledger.hold(height * width * (3 + 2 * PIXEL_BYTES));
        let vae = self.networks.vae(&self.pipeline.files)?;
        let picture = Tensor::empty(vae.device(), DType::F32, Shape::nhwc(1, height, width, 3))?;
        drop(vae.encode(&picture, self.way.strips, &Context::default())?);
        drop(picture);
        self.end(Stage::Encode, None);
        Ok(())
    }

    /// The latents behind two steps, after which nothing more is taken.
    fn denoise(&mut self, batch: &[Request]) -> Result<Tensor> {
        let config = &self.networks.configs;
        let (channels, text_width) = (config.transformer.in_channels, config.encoder.hidden_size);
        let device = self.networks.device.clone();
        let text = |text: &str| {
            Tensor::empty(&device, DType::F32, Shape::matrix(self.pipeline.text_rows(text), text_width))
        };
        let texts = |of: fn(&Request) -> &str| -> Result<Vec<Tensor>> {
            Ok(batch.iter().map(|request| text(of(request))).collect::<Result<_, _>>()?)
        };
        let prompts = texts(|request| &request.prompt)?;
        let negatives = match self.plan.guidance {
            Some(_) => texts(|request| request.negative_prompt.as_deref().unwrap_or_default())?,
            None => Vec::new(),
        };
        let texts = Texts { prompts, negatives };
        let tokens = batch.len() * self.plan.grid.tokens();
        // Noise and tokens on the host; behind the last step the latents, as bytes and as numbers.
        let _host = self.ledger.hold(2 * 4 * tokens * channels);
        let mut latents = Tensor::empty(&device, DType::F32, Shape::matrix(tokens, channels))?;
        let transformer = self.networks.transformer(&self.pipeline.files)?;
        let context = Context::default();
        let prediction = Prediction::new(transformer, &texts, self.plan, self.way.passes, &context)?;
        let mut products = Products::default();
        for step in 0..self.plan.schedule.timesteps.len().min(2) {
            let before = self.ledger.products();
            let velocity = prediction.velocity(&latents, step, &context)?;
            latents = euler::step(latents, &velocity, 1.0, 0.0)?;
            products = self.ledger.products() - before;
        }
        drop(prediction);
        self.end(Stage::Denoise, Some(products));
        Ok(latents)
    }

    fn decode(&mut self, pictures: usize) -> Result<()> {
        let (height, width) = self.plan.latent_size();
        // The latents on the host: of all pictures as tokens, of one as planes.
        let latents = self.plan.grid.tokens() * self.networks.configs.transformer.in_channels;
        let _latents = self.ledger.hold((pictures + 1) * latents * DType::F32.size_bytes());
        let vae = self.networks.vae(&self.pipeline.files)?;
        let input =
            Tensor::empty(vae.device(), DType::F32, Shape::nhwc(1, height, width, vae.config().z_dim))?;
        let picture = vae.decode(&input, self.way.strips, &Context::default())?;
        // Its numbers, and the rounded ones, which are kept of each picture.
        let host = self.ledger.hold(picture.rows() * (PIXEL_BYTES + pictures * RGB_BYTES));
        drop((host, picture, input));
        self.end(Stage::Decode, None);
        Ok(())
    }
}

impl Pipeline {
    /// The tokens of a prompt, template included; without a tokenizer the most that it can have, which is one for each byte,
    /// or what the model reads.
    pub(super) fn tokens_of(&self, text: &str) -> usize {
        if let Some(known) = self.embeddings.get(text) {
            return known.rows() + TEXT_TO_IMAGE_DROP;
        }
        let tokens = self.tokenizer.get().and_then(|tokenizer| tokenizer.encode(text).ok());
        let most = (text.len() + TEMPLATE_TOKENS).min(MAX_TOKENS + TEXT_TO_IMAGE_DROP);
        tokens.map_or(most, |tokens| tokens.ids.len())
    }

    /// The rows of a prompt in the transformer.
    pub(super) fn text_rows(&self, text: &str) -> usize {
        self.tokens_of(text).saturating_sub(TEXT_TO_IMAGE_DROP).max(1)
    }

    /// What building the tokenizer takes beyond what was there when the base was measured.
    fn tokenizer_bytes(&self) -> usize {
        let is_in_base = self.base.get().map_or(self.tokenizer.get().is_some(), |base| base.tokenizer);
        if is_in_base { 0 } else { TOKENIZER_FACTOR * self.files.tokenizer_file_bytes() }
    }
}
