//! Whether a drawing fits into memory, in which way, and what would fit instead.

use inkstone_tensor::DType;

use super::forecast::{Forecast, Setting};
use super::networks::{Arithmetic, Form};
use super::prediction::Passes;
use super::{Pipeline, VaeTiling, Way};
use crate::memory::{Alternative, Limits, MemoryPlan, Offload, Shortage, Usage};
use crate::request::{MIN_SIDE_PX, SIDE_STEP_PX};
use crate::weights::Quantization;
use crate::{Error, Request, Result};

/// Rows of the pictures of a batch in the transformer: four pictures of 512 x 512, eight of 256 x 256 with guidance.
const ROWS_TOGETHER: usize = 4096;
/// Alternatives that a refusal names.
const ALTERNATIVES: usize = 3;

impl Pipeline {
    /// What drawing requests will take, with what [`super::OpenOptions`] say of precision and offload: a forecast for each
    /// batch, in the order in which they are drawn. [`MemoryPlan::pictures`] is how many of the requests it is for. They
    /// need not fit.
    ///
    /// # Errors
    /// A request out of range, weights that do not open, a device of which nothing is known.
    pub fn forecast(&self, requests: &[Request]) -> Result<Vec<Forecast>> {
        requests.iter().try_for_each(Request::validate)?;
        let limits = Limits::now(self.max_memory_bytes);
        let arithmetic = self.networks.arithmetic;
        let mut forecasts = Vec::new();
        for group in requests.chunk_by(super::can_share) {
            let (way, _) = self.choose(group, &limits)?;
            for batch in group.chunks(way.pictures) {
                forecasts.push(self.count(batch, way, arithmetic)?);
            }
        }
        Ok(forecasts)
    }

    /// The same for a certain setting, whatever the limits.
    ///
    /// # Errors
    /// As [`Self::forecast`]; [`Error::AlreadyQuantized`] for a form that the model's weights cannot be brought into.
    pub fn forecast_with(&self, request: &Request, setting: Setting) -> Result<Forecast> {
        request.validate()?;
        let Setting { precision, form, offload } = setting;
        let way = Way { offload, passes: Passes::One, strips: self.vae_tiling.ways()[0], pictures: 1 };
        let arithmetic = Arithmetic { activations: precision.activations(&self.device), form };
        self.count(std::slice::from_ref(request), way, arithmetic)
    }

    /// The way to draw a group of requests that may share a forward.
    ///
    /// # Errors
    /// [`Error::InsufficientMemory`], with what would fit.
    pub(super) fn fit(&self, group: &[Request]) -> Result<Way> {
        let limits = Limits::now(self.max_memory_bytes);
        if limits != Limits::default() && self.device.counting().is_some() {
            self.fits_address_space(&limits)?;
        }
        match self.choose(group, &limits)? {
            (way, None) => Ok(way),
            (_, Some(shortage)) => Err(self.refusal(&group[0], shortage, &limits)),
        }
    }

    /// The first way that fits, with as many pictures at a time as fit and gain by it; else the one that takes least, and
    /// what it lacks.
    fn choose(&self, group: &[Request], limits: &Limits) -> Result<(Way, Option<Shortage>)> {
        let group = &group[..gaining(&group[0]).min(group.len())];
        let chosen = if self.offload == Offload::Auto { Offload::None } else { self.offload };
        let strips = self.vae_tiling.ways()[0];
        let unlimited = Way { offload: chosen, passes: Passes::One, strips, pictures: group.len() };
        if *limits == Limits::default() || self.device.counting().is_none() {
            return Ok((unlimited, None));
        }
        let mut least = (unlimited, None);
        for way in ways(self.offload, self.vae_tiling) {
            match self.count(&group[..1], way, self.networks.arithmetic)?.memory.shortage(limits) {
                None => return Ok((self.most_together(group, way, limits)?, None)),
                shortage => least = (way, shortage),
            }
        }
        Ok(least)
    }

    fn count(&self, batch: &[Request], way: Way, arithmetic: Arithmetic) -> Result<Forecast> {
        self.forecast_of(batch, way, arithmetic)?.ok_or_else(|| uncounted(self))
    }

    /// Mapping the files takes address space before anything can be counted.
    fn fits_address_space(&self, limits: &Limits) -> Result<()> {
        let needed_bytes = Usage::now().address_space_bytes + self.weight_bytes;
        match limits.address_space.filter(|limit| limit.bytes < needed_bytes) {
            None => Ok(()),
            Some(limit) => {
                let shortage = Shortage { needed_bytes, limit };
                Err(Error::InsufficientMemory { shortage, alternatives: Vec::new() })
            }
        }
    }

    /// The way with as many pictures at a time as fit.
    fn most_together(&self, group: &[Request], way: Way, limits: &Limits) -> Result<Way> {
        let arithmetic = self.networks.arithmetic;
        let mut pictures = group.len();
        while pictures > 1 {
            let together = Way { pictures, ..way };
            if self.count(&group[..pictures], together, arithmetic)?.memory.shortage(limits).is_none() {
                break;
            }
            pictures = pictures.div_ceil(2);
        }
        Ok(Way { pictures, ..way })
    }

    /// The error, with up to three changes that fit: the first of each kind, and smaller pictures for the rest.
    fn refusal(&self, request: &Request, shortage: Shortage, limits: &Limits) -> Error {
        let mut alternatives = Vec::new();
        let mut kinds = Vec::new();
        for candidate in self.candidates(request) {
            let Candidate { kind, flags, request, way, arithmetic } = candidate;
            if alternatives.len() == ALTERNATIVES || (kind != Kind::Size && kinds.contains(&kind)) {
                continue;
            }
            // One that cannot be counted is none.
            let Ok(forecast) = self.count(std::slice::from_ref(&request), way, arithmetic) else { continue };
            if forecast.memory.shortage(limits).is_none() {
                alternatives.push(Alternative { flags, bytes: needed(&forecast.memory, shortage) });
                kinds.push(kind);
            }
        }
        Error::InsufficientMemory { shortage, alternatives }
    }

    /// What may fit instead of a request, the least painful first: what leaves memory, then the arithmetic, then
    /// smaller weights, then smaller pictures of the same proportions.
    fn candidates(&self, request: &Request) -> Vec<Candidate> {
        let ours = self.networks.arithmetic;
        let lowest = self.vae_tiling.ways().last().copied().unwrap_or(Way::LEAST.strips);
        let offload = if self.offload == Offload::Auto { Offload::Stream } else { self.offload };
        let least = Way { offload, strips: lowest, ..Way::LEAST };
        let mut candidates = Vec::new();
        let mut add = |kind, flags: String, request: &Request, way, arithmetic| {
            candidates.push(Candidate { kind, flags, request: request.clone(), way, arithmetic });
        };
        if self.offload != Offload::Auto {
            for offload in Offload::SETTINGS.into_iter().filter(|offload| *offload > self.offload) {
                let flags = format!("--offload {}", offload.name());
                add(Kind::Offload, flags, request, Way { offload, ..least }, ours);
            }
        }
        if lowest != Way::LEAST.strips {
            let way = Way { offload, ..Way::LEAST };
            add(Kind::Strips, "--vae-tiling auto".into(), request, way, ours);
        }
        if ours.activations == DType::F32 {
            let bf16 = Arithmetic { activations: DType::Bf16, ..ours };
            add(Kind::Precision, "--dtype bf16".into(), request, least, bf16);
        }
        for (flags, form) in self.smaller_weights(ours.form) {
            add(Kind::Weights, flags, request, least, Arithmetic { form, ..ours });
        }
        for parts in [3, 2, 1] {
            let side = |px: usize| (px * parts / 4 / SIDE_STEP_PX * SIDE_STEP_PX).max(MIN_SIDE_PX);
            let (width_px, height_px) = (side(request.width_px), side(request.height_px));
            if (width_px, height_px) != (request.width_px, request.height_px) {
                let smaller = Request { width_px, height_px, ..request.clone() };
                add(Kind::Size, format!("--size {width_px}x{height_px}"), &smaller, least, ours);
            }
        }
        candidates
    }

    /// Forms of the weights that take less, with what the user does for each. Weights that are brought into a format
    /// while they are loaded cannot be streamed; those of a converted folder can.
    fn smaller_weights(&self, ours: Form) -> Vec<(String, Form)> {
        const SMALLER: [Quantization; 2] = [Quantization::Q8, Quantization::Q4];
        let mut forms = Vec::new();
        if ours == Form::Stored {
            forms.extend(SMALLER.map(|q| (format!("-q {}", q.name()), Form::Loaded(q))));
        }
        if let Some(command) = self.convert_command() {
            let asked = ours.quantization();
            let formats = asked.map_or(SMALLER.to_vec(), |asked| vec![asked]);
            forms.extend(formats.into_iter().map(|q| (command(q), Form::Converted(q))));
        }
        forms
    }

    /// The command that saves this model in a format, and how to draw with the new folder; `None` for the one that is
    /// part of the program, and where only a streamed model would gain by it.
    fn convert_command(&self) -> Option<impl Fn(Quantization) -> String + '_> {
        let root = quoted(&self.files.whole_folder()?.to_string_lossy());
        let name = self.info.name.rsplit('/').next().unwrap_or_default();
        let streams = matches!(self.offload, Offload::Auto | Offload::Stream);
        streams.then_some(move |quantization: Quantization| {
            let format = quantization.name();
            let new = quoted(&format!("{name}-{format}"));
            format!("inkstone convert {root} -q {format} -o {new}, then -m {new}")
        })
    }
}

/// How many pictures like this one gain by being drawn together. Products of some thousand rows are as fast as they get;
/// beyond that more pictures at a time only come later.
fn gaining(request: &Request) -> usize {
    let sequences = if super::guidance(request).is_some() { 2 } else { 1 };
    (ROWS_TOGETHER / (sequences * super::grid(request).tokens())).max(1)
}

/// A name as a shell takes it.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c));
    if plain { name.to_owned() } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

/// What a change changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Offload,
    Strips,
    Precision,
    Weights,
    Size,
}

/// A change of a request that may fit.
struct Candidate {
    kind: Kind,
    flags: String,
    request: Request,
    way: Way,
    arithmetic: Arithmetic,
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
            }));
        }
    }
    ways
}

/// What a plan needs of what is short.
fn needed(plan: &MemoryPlan, shortage: Shortage) -> u64 {
    use crate::memory::LimitOf;
    match shortage.limit.of {
        LimitOf::MaxMemory | LimitOf::Free | LimitOf::ControlGroup => plan.resident_bytes(),
        LimitOf::AddressSpace => plan.address_space_bytes(),
        LimitOf::Data => plan.data_bytes(),
    }
}

fn uncounted(pipeline: &Pipeline) -> Error {
    let reason = "nothing is known of the memory it takes".into();
    inkstone_tensor::Error::Device { device: pipeline.device.name(), reason }.into()
}

#[cfg(test)]
mod tests;
