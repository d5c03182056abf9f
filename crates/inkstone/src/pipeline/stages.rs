//! The stages of a run, in the order of the way.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use inkstone_tensor::{DType, Shape, Tensor, ops};

use super::pixels;
use super::prediction::{Passes, Prediction, Texts};
use super::run::Run;
use super::{Ahead, Pipeline, Plan, Way};
use crate::memory::{Offload, Walk};
use crate::nn::strips::Strips;
use crate::progress::Stage;
use crate::request::InitImage;
use crate::sample::noise::Generator;
use crate::sample::{euler, latents};
use crate::text::PromptTokenizer;
use crate::weights::ModelFiles;
use crate::{Error, Pixels, Request, Result};

/// Embeddings that are kept for later drawings: some MB each with a long prompt.
const KEPT_EMBEDDINGS: usize = 32;
/// Tokens that are embedded for later batches: 30 MB in Qwen-Image's width.
pub(super) const AHEAD_TOKENS: usize = 2048;
/// The same, and the number of texts, where the encoder would have to be made again: 0.5 GB.
const FAR_AHEAD_TOKENS: usize = 32_768;
const FAR_AHEAD_TEXTS: usize = 256;

impl Pipeline {
    /// Prompts to embeddings; those seen before are not computed again.
    pub(super) fn embed(
        &mut self,
        batch: &[Request],
        next: &[Request],
        plan: &Plan,
        way: Way,
        run: &mut Run<'_>,
    ) -> Result<Texts> {
        let (prompts, negatives) = texts_of(batch, plan);
        let unseen = self.unseen_with_next(batch, next, plan, way);
        if self.embeddings.len() + unseen.iter().map(Vec::len).sum::<usize>() > KEPT_EMBEDDINGS {
            let later = texts_of(next, plan);
            let texts = [&prompts, &negatives, &later.0, &later.1];
            self.embeddings.retain(|text, _| texts.iter().any(|texts| texts.contains(&text.as_str())));
        }
        for texts in &unseen {
            self.embed_unseen(texts, run)?;
        }
        let known = |texts: &[&str]| texts.iter().map(|text| self.embeddings[*text].clone()).collect();
        Ok(Texts { prompts: known(&prompts), negatives: known(&negatives) })
    }

    /// Texts of a batch that have no embedding yet.
    pub(super) fn unseen<'b>(&self, batch: &'b [Request], plan: &Plan) -> Vec<&'b str> {
        let (mut texts, negatives) = texts_of(batch, plan);
        texts.extend(negatives);
        texts.retain(|text| !self.embeddings.contains_key(*text));
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// What the encoder computes for a batch, a list a forward: its texts that have no embedding yet. Where the encoder
    /// then leaves memory, also those of the batches that follow, so that it does not have to come again for each.
    pub(super) fn unseen_with_next<'b>(
        &self,
        batch: &'b [Request],
        next: &'b [Request],
        plan: &Plan,
        way: Way,
    ) -> Vec<Vec<&'b str>> {
        let mut all = vec![self.unseen(batch, plan)];
        if all[0].is_empty() {
            return Vec::new();
        }
        if way.offload == Offload::None {
            return all;
        }
        let (mut room, most) = match way.ahead {
            Ahead::Near => (AHEAD_TOKENS, KEPT_EMBEDDINGS),
            Ahead::Far => (FAR_AHEAD_TOKENS, FAR_AHEAD_TEXTS),
        };
        for requests in next.chunks(way.pictures) {
            let mut texts = self.unseen(requests, plan);
            texts.retain(|text| !all.iter().flatten().any(|other| other == text));
            let count = all.iter().map(Vec::len).sum::<usize>() + texts.len();
            let tokens: usize = texts.iter().map(|text| self.tokens_of(text)).sum();
            if tokens > room || count > most {
                break;
            }
            room -= tokens;
            all.push(texts);
        }
        all.retain(|texts| !texts.is_empty());
        all
    }

    fn embed_unseen(&mut self, texts: &[&str], run: &mut Run<'_>) -> Result<()> {
        let encoder = self.networks.encoder(&self.files)?;
        let tokenizer = built_beside(&self.tokenizer, &self.files, encoder.walk())?;
        run.stage(Stage::Text, 1, |run| {
            let mut all = Vec::with_capacity(texts.len());
            for text in texts {
                let tokens = tokenizer.encode(text)?;
                if let Some(cut) = tokens.truncated {
                    run.observer.warn(&format!(
                        "the prompt is too long for the model: its last {cut} tokens are not used"
                    ));
                }
                all.push(tokens);
            }
            let ids: Vec<Vec<u32>> = all.iter().map(|tokens| tokens.ids.clone()).collect();
            let hidden = encoder.forward(&ids, run.context)?;
            let mut end = 0;
            for (text, tokens) in texts.iter().zip(&all) {
                let start = end + tokens.drop;
                end += tokens.ids.len();
                let embedding = ops::convert(&hidden.rows_range(start..end)?, DType::F32)?;
                self.embeddings.insert((*text).to_owned(), embedding);
            }
            Ok(())
        })?;
        self.files.check_intact()
    }

    /// Latents to start from, as tokens `[batch * n_img, channels]`: noise, or a noisy picture.
    pub(super) fn noisy_latents(
        &mut self,
        batch: &[Request],
        plan: &Plan,
        strips: Strips,
        run: &mut Run<'_>,
    ) -> Result<Tensor> {
        let mut tokens = Vec::new();
        for request in batch {
            let mut generator = Generator::new(request.seed);
            let start = match &request.init {
                Some(init) => {
                    let clean = self.encode(init, request, &mut generator, strips, run)?;
                    let noise = generator.randn(clean.len());
                    // With strength 0 there is no step left, and the picture stays as it is.
                    euler::at_level(&clean, &noise, plan.schedule.sigmas[0])
                }
                None => generator.randn(self.latent_count(plan)),
            };
            let (height, width) = plan.latent_size();
            tokens.extend(latents::pack(&start, self.networks.configs.vae.z_dim, height, width));
        }
        let channels = self.networks.configs.transformer.in_channels;
        let shape = Shape::matrix(tokens.len() / channels, channels);
        Ok(Tensor::from_f32(&self.device, &tokens, shape)?)
    }

    pub(super) fn latent_count(&self, plan: &Plan) -> usize {
        let (height, width) = plan.latent_size();
        self.networks.configs.vae.z_dim * height * width
    }

    /// A picture to normalised latents `[channels, height, width]`: a sample of the posterior, as in the reference.
    fn encode(
        &mut self,
        init: &InitImage,
        request: &Request,
        generator: &mut Generator,
        strips: Strips,
        run: &mut Run<'_>,
    ) -> Result<Vec<f32>> {
        let vae = self.networks.vae(&self.files)?;
        let planes = run.stage(Stage::Encode, 1, |run| {
            let values = pixels::prepare(&init.pixels, request)?;
            pixels::encode(
                vae,
                &values,
                (request.width_px, request.height_px),
                generator,
                strips,
                run.context,
            )
        })?;
        self.files.check_intact()?;
        Ok(planes)
    }

    /// Noise to latents, step by step.
    pub(super) fn denoise(
        &mut self,
        mut latents: Tensor,
        texts: &Texts,
        plan: &Plan,
        passes: Passes,
        run: &mut Run<'_>,
    ) -> Result<Tensor> {
        let transformer = self.networks.transformer(&self.files)?;
        let files = &self.files;
        let (sigmas, steps) = (&plan.schedule.sigmas, plan.schedule.timesteps.len());
        run.stage(Stage::Denoise, steps, |run| {
            let prediction = Prediction::new(transformer, texts, plan, passes, run.context)?;
            for step in 0..steps {
                let velocity = prediction.velocity(&latents, step, run.context)?;
                latents = euler::step(latents, &velocity, sigmas[step], sigmas[step + 1])?;
                run.context.tap(format_args!("latents.{step}"), &latents);
                check_finite(&latents, step)?;
                files.check_intact()?;
                run.observer.advance(Stage::Denoise, step + 1);
            }
            Ok(latents)
        })
    }

    /// A picture's latents as tokens to its pixels.
    pub(super) fn decode(
        &mut self,
        tokens: &[f32],
        plan: &Plan,
        strips: Strips,
        run: &mut Run<'_>,
    ) -> Result<Pixels> {
        let vae = self.networks.vae(&self.files)?;
        let decode = |run: &mut Run<'_>| pixels::decode(vae, tokens, plan.latent_size(), strips, run.context);
        let picture = run.stage(Stage::Decode, 1, decode)?;
        self.networks.set_decoded();
        self.files.check_intact()?;
        Ok(picture)
    }
}

/// The tokenizer, which the first call builds.
pub(super) fn built<'a>(
    tokenizer: &'a OnceLock<PromptTokenizer>,
    files: &ModelFiles,
) -> Result<&'a PromptTokenizer> {
    if let Some(built) = tokenizer.get() {
        return Ok(built);
    }
    let new = PromptTokenizer::from_json(&files.tokenizer()?)?;
    Ok(tokenizer.get_or_init(|| new))
}

/// The same. Only one thread can build it: another brings a network's layers into memory until it is done.
fn built_beside<'a>(
    tokenizer: &'a OnceLock<PromptTokenizer>,
    files: &ModelFiles,
    walk: &Walk,
) -> Result<&'a PromptTokenizer> {
    let done = AtomicBool::new(tokenizer.get().is_some());
    let wanted = || !done.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        if wanted() {
            let thread = std::thread::Builder::new().name("inkstone-reader".into());
            // Without a thread, pages come when they are needed.
            let _ = thread.spawn_scoped(scope, || walk.read_ahead(wanted));
        }
        let built = built(tokenizer, files);
        done.store(true, Ordering::Relaxed);
        built
    })
}

/// That all latents are numbers.
fn check_finite(latents: &Tensor, step: usize) -> Result<()> {
    if latents.is_finite() { Ok(()) } else { Err(Error::NotFinite { step: step + 1 }) }
}

/// The prompts of a batch, and its negative prompts where there is guidance.
fn texts_of<'b>(batch: &'b [Request], plan: &Plan) -> (Vec<&'b str>, Vec<&'b str>) {
    let prompts = batch.iter().map(|r| r.prompt.as_str()).collect();
    let negatives = batch.iter().filter(|_| plan.guidance.is_some());
    (prompts, negatives.map(|r| r.negative_prompt.as_deref().unwrap_or_default()).collect())
}
