//! Whether a drawing fits into memory, in which way, and what would fit instead.

use super::forecast::{Forecast, Setting};
use super::networks::{Arithmetic, Form};
use super::prediction::Passes;
use super::{Pipeline, VaeTiling, tiling};
use crate::memory::{self, DiskSpeed, Limits, Offload, Refusal, Shortage};
use crate::nn::strips::Strips;
use crate::{Error, Request, Result};

mod alternatives;

pub use alternatives::Conversion;

/// Rows of the pictures of a batch in the transformer: four pictures of 512 x 512, eight of 256 x 256 with guidance. With
/// their texts they may be twice as many.
const ROWS_TOGETHER: usize = 4096;

/// What a batch will take, and whether that fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What it takes, in the first way that fits; if none does, in the one that takes least.
    pub forecast: Forecast,
    /// What there is.
    pub limits: Limits,
    /// Why it would be refused.
    pub refusal: Option<Refusal>,
}

/// A way to draw: how much memory is traded for time. The bytes are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) offload: Offload,
    pub(super) passes: Passes,
    /// How the VAE takes a picture.
    pub(super) strips: Strips,
    /// Pictures at a time, at most.
    pub(super) pictures: usize,
    pub(super) ahead: Ahead,
}

/// Which prompts of later batches are encoded before a text encoder leaves memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// As many as take little memory: mapped weights come back at no cost but reading.
    Near,
    /// As many as there may be: weights that are quantized while they are loaded would be quantized again.
    Far,
}

impl Way {
    /// The one that takes the least memory.
    pub(super) const LEAST: Self = Self {
        offload: Offload::Stream,
        passes: Passes::Two,
        strips: tiling::LOWEST,
        pictures: 1,
        ahead: Ahead::Near,
    };
}

impl Pipeline {
    /// What drawing requests will take, with what [`super::OpenOptions`] say of precision, offload and memory: a plan for
    /// each batch, in the order in which they are drawn. [`crate::memory::MemoryPlan::pictures`] is how many of the
    /// requests it is for. They need not fit.
    ///
    /// # Errors
    /// A request out of range, weights that do not open, a device of which nothing is known;
    /// [`Error::InsufficientMemory`] where address space does not suffice to look at the weights.
    pub fn forecast(&self, requests: &[Request]) -> Result<Vec<Planned>> {
        requests.iter().try_for_each(Request::validate)?;
        let limits = Limits::now(self.max_memory_bytes);
        self.fits_address_space(&limits)?;
        let arithmetic = self.networks.arithmetic;
        let mut plans = Vec::new();
        for group in requests.chunk_by(super::can_share) {
            let (way, shortage) = self.choose(group, self.gaining(group)?, &limits)?;
            let refusal = shortage.map(|shortage| self.refusal(group, shortage, &limits));
            for start in (0..group.len()).step_by(way.pictures) {
                let (batch, next) = group[start..].split_at(way.pictures.min(group.len() - start));
                // What the first batch encodes for all of them is known when others are drawn.
                let way = if start == 0 { way } else { Way { ahead: Ahead::Near, ..way } };
                let forecast = self.count(batch, next, way, arithmetic)?;
                plans.push(Planned { forecast, limits, refusal: refusal.clone() });
            }
        }
        Ok(plans)
    }

    /// The same for a certain setting, whatever the limits.
    ///
    /// # Errors
    /// As [`Self::forecast`]; [`Error::AlreadyQuantized`] for a form that the model's weights cannot be brought into.
    pub fn forecast_with(&self, request: &Request, setting: Setting) -> Result<Forecast> {
        request.validate()?;
        self.fits_address_space(&Limits::now(None))?;
        let Setting { precision, form, offload } = setting;
        let (strips, ahead) = (self.vae_tiling.ways()[0], Ahead::Near);
        let way = Way { offload, passes: Passes::One, strips, pictures: 1, ahead };
        let activations = precision.activations(&self.device);
        let arithmetic = Arithmetic { activations, form, loras: true };
        self.count(std::slice::from_ref(request), &[], way, arithmetic)
    }

    /// How fast the disk gives this model's weights. Reads up to 256 MiB of them for a second at most, past the system's
    /// cache. `None` for a model that is in no files or too small, and where it cannot be measured.
    #[must_use]
    pub fn disk_speed(&self) -> Option<DiskSpeed> {
        self.files.read_speed().map(|bytes_a_second| DiskSpeed { bytes_a_second })
    }

    /// The way to draw a group of requests that may share a forward, `most` at a time.
    ///
    /// # Errors
    /// [`Error::InsufficientMemory`], with what would fit.
    pub(super) fn fit(&self, group: &[Request], most: usize) -> Result<Way> {
        let limits = Limits::now(self.max_memory_bytes);
        self.fits_address_space(&limits)?;
        match self.choose(group, most, &limits)? {
            (way, None) => Ok(way),
            (_, Some(shortage)) => {
                let Refusal { shortage, alternatives } = self.refusal(group, shortage, &limits);
                Err(Error::InsufficientMemory { shortage, alternatives })
            }
        }
    }

    /// How many pictures of a group gain by being drawn together. Products of some thousand rows are as fast as they get;
    /// beyond that more pictures at a time only come later.
    ///
    /// # Errors
    /// A tokenizer that cannot be read.
    pub(super) fn gaining(&self, group: &[Request]) -> Result<usize> {
        let plan = self.plan(&group[0])?;
        let sequences = if plan.guidance.is_some() { 2 } else { 1 };
        let rows = sequences * plan.grid.tokens();
        let most = (ROWS_TOGETHER / rows).max(1);
        if most.min(group.len()) == 1 {
            return Ok(1);
        }
        let with_texts = || {
            let negative = |request: &Request| match plan.guidance {
                Some(_) => self.text_rows(request.negative_prompt.as_deref().unwrap_or_default()),
                None => 0,
            };
            let texts = group.iter().map(|request| self.text_rows(&request.prompt) + negative(request));
            // Of as many rows again, as texts are short beside pictures.
            2 * ROWS_TOGETHER * group.len() / (group.len() * rows + texts.sum::<usize>())
        };
        if with_texts() >= most {
            return Ok(most);
        }
        self.count_long_texts(group, &plan)?;
        Ok(with_texts().clamp(1, most))
    }

    /// The first way that fits, with as many pictures at a time as fit, up to `most`; else the one that takes least, and
    /// what it lacks.
    fn choose(&self, group: &[Request], most: usize, limits: &Limits) -> Result<(Way, Option<Shortage>)> {
        let most = most.min(group.len());
        let chosen = if self.offload == Offload::Auto { Offload::None } else { self.offload };
        let strips = self.vae_tiling.ways()[0];
        let ahead = if self.makes_encoder() { Ahead::Far } else { Ahead::Near };
        let unlimited = Way { offload: chosen, passes: Passes::One, strips, pictures: most, ahead };
        if *limits == Limits::default() || self.device.counting().is_none() {
            return Ok((unlimited, None));
        }
        let mut least = (unlimited, None);
        for way in ways(self.offload, self.vae_tiling) {
            let forecast = self.count(&group[..1], &group[1..], way, self.networks.arithmetic)?;
            match forecast.memory.shortage(limits) {
                None => {
                    let way = self.most_together(group, Way { pictures: most, ..way }, limits)?;
                    return Ok((self.furthest_ahead(group, way, limits)?, None));
                }
                shortage => least = (way, shortage),
            }
        }
        Ok(least)
    }

    fn count(
        &self,
        batch: &[Request],
        next: &[Request],
        way: Way,
        arithmetic: Arithmetic,
    ) -> Result<Forecast> {
        self.forecast_of(batch, next, way, arithmetic)?.ok_or_else(|| uncounted(self))
    }

    /// Mapping the files takes address space before anything can be counted: every plan has this much, and more.
    fn fits_address_space(&self, limits: &Limits) -> Result<()> {
        let Some(limit) = limits.address_space.filter(|_| self.device.counting().is_some()) else {
            return Ok(());
        };
        let needed_bytes = memory::opening_space_bytes(self.address_space_bytes(), self.weight_bytes);
        if limit.bytes >= needed_bytes {
            return Ok(());
        }
        let shortage = Shortage { needed_bytes, limit, is_least: true };
        Err(Error::InsufficientMemory { shortage, alternatives: Vec::new() })
    }

    /// The way with as many pictures at a time as fit, and no more than it has.
    fn most_together(&self, group: &[Request], way: Way, limits: &Limits) -> Result<Way> {
        let arithmetic = self.networks.arithmetic;
        let mut pictures = way.pictures;
        while pictures > 1 {
            let together = Way { pictures, ..way };
            let (batch, next) = group.split_at(pictures);
            if self.count(batch, next, together, arithmetic)?.memory.shortage(limits).is_none() {
                break;
            }
            pictures = pictures.div_ceil(2);
        }
        Ok(Way { pictures, ..way })
    }

    /// The way with all prompts that follow encoded at once, if the encoder is costly to bring back and that fits.
    fn furthest_ahead(&self, group: &[Request], way: Way, limits: &Limits) -> Result<Way> {
        let far = Way { ahead: Ahead::Far, ..way };
        let (batch, next) = group.split_at(way.pictures.min(group.len()));
        if way.offload == Offload::None || next.is_empty() || !self.makes_encoder() {
            return Ok(way);
        }
        let plan = self.plan(&batch[0])?;
        if self.unseen_with_next(batch, next, &plan, way) == self.unseen_with_next(batch, next, &plan, far) {
            return Ok(way);
        }
        let fits = self.count(batch, next, far, self.networks.arithmetic)?.memory.shortage(limits).is_none();
        Ok(if fits { far } else { way })
    }

    /// Whether opening the text encoder quantizes its weights.
    fn makes_encoder(&self) -> bool {
        matches!(self.networks.arithmetic.form, Form::Loaded(_))
    }
}

/// The ways to draw a picture, the fastest first.
fn ways(offload: Offload, tiling: VaeTiling) -> Vec<Way> {
    let offloads = match offload {
        Offload::Auto => Offload::SETTINGS.to_vec(),
        chosen => vec![chosen],
    };
    let mut ways = Vec::new();
    for offload in offloads {
        for strips in tiling.ways() {
            ways.extend([Passes::One, Passes::Two].map(|passes| Way {
                offload,
                passes,
                strips,
                pictures: 1,
                ahead: Ahead::Near,
            }));
        }
    }
    ways
}

fn uncounted(pipeline: &Pipeline) -> Error {
    let reason = "nothing is known of the memory it takes".into();
    inkstone_tensor::Error::Device { device: pipeline.device.name(), reason }.into()
}
