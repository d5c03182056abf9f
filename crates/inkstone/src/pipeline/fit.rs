//! Whether a drawing fits into memory, in which way, and what would fit instead.

use inkstone_tensor::DType;

use super::forecast::Forecast;
use super::prediction::Passes;
use super::{Pipeline, Precision, VaeTiling, Way};
use crate::memory::{Alternative, Limits, MemoryPlan, Offload, Shortage, Usage};
use crate::request::{MIN_SIDE_PX, SIDE_STEP_PX};
use crate::{Error, Request, Result};

/// Alternatives that a refusal names.
const ALTERNATIVES: usize = 3;

impl Pipeline {
    /// What drawing a request will take, with what [`super::OpenOptions`] say of precision and offload. The request
    /// need not fit.
    ///
    /// # Errors
    /// A request out of range, weights that do not open, a device of which nothing is known.
    pub fn forecast(&self, request: &Request) -> Result<Forecast> {
        request.validate()?;
        let limits = Limits::now(self.max_memory_bytes);
        let batch = std::slice::from_ref(request);
        let activations = self.networks.activations;
        let mut last = None;
        for way in ways(self.offload, self.vae_tiling) {
            let forecast = self.count(batch, way, activations)?;
            if forecast.memory.shortage(&limits).is_none() {
                return Ok(forecast);
            }
            last = Some(forecast);
        }
        last.ok_or_else(|| uncounted(self))
    }

    /// The same for a certain precision and offload, whatever the limits.
    ///
    /// # Errors
    /// As [`Self::forecast`].
    pub fn forecast_with(
        &self,
        request: &Request,
        precision: Precision,
        offload: Offload,
    ) -> Result<Forecast> {
        request.validate()?;
        let way = Way { offload, passes: Passes::One, strips: self.vae_tiling.ways()[0], pictures: 1 };
        self.count(std::slice::from_ref(request), way, precision.activations(&self.device))
    }

    /// Whether requests can be drawn together in what memory there is, by the plan: as many of the first ones.
    ///
    /// # Errors
    /// [`Error::InsufficientMemory`] if not even the first one fits; as [`Self::forecast`].
    pub fn fits_together(&self, requests: &[Request]) -> Result<usize> {
        requests.iter().try_for_each(Request::validate)?;
        let same = requests.chunk_by(super::can_share).next().unwrap_or_default();
        if same.is_empty() { Ok(0) } else { self.fit(same).map(|way| way.pictures) }
    }

    /// The way to draw a group of requests that may share a forward.
    ///
    /// # Errors
    /// [`Error::InsufficientMemory`], with what would fit.
    pub(super) fn fit(&self, group: &[Request]) -> Result<Way> {
        let limits = Limits::now(self.max_memory_bytes);
        let chosen = if self.offload == Offload::Auto { Offload::None } else { self.offload };
        let strips = self.vae_tiling.ways()[0];
        let unlimited = Way { offload: chosen, passes: Passes::One, strips, pictures: group.len().max(1) };
        if limits == Limits::default() || self.device.counting().is_none() {
            return Ok(unlimited);
        }
        self.fits_address_space(&limits)?;
        let activations = self.networks.activations;
        let mut shortage = None;
        for way in ways(self.offload, self.vae_tiling) {
            match self.count(&group[..1], way, activations)?.memory.shortage(&limits) {
                None => return self.most_together(group, way, &limits),
                Some(found) => shortage = Some(found),
            }
        }
        let Some(shortage) = shortage else { return Ok(unlimited) };
        Err(self.refusal(&group[0], shortage, &limits))
    }

    fn count(&self, batch: &[Request], way: Way, activations: DType) -> Result<Forecast> {
        self.forecast_of(batch, way, activations)?.ok_or_else(|| uncounted(self))
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
        let activations = self.networks.activations;
        let mut pictures = group.len();
        while pictures > 1 {
            let together = Way { pictures, ..way };
            if self.count(&group[..pictures], together, activations)?.memory.shortage(limits).is_none() {
                break;
            }
            pictures = pictures.div_ceil(2);
        }
        Ok(Way { pictures: pictures.max(1), ..way })
    }

    fn refusal(&self, request: &Request, shortage: Shortage, limits: &Limits) -> Error {
        let mut alternatives = Vec::new();
        for (flags, request, way, activations) in self.candidates(request) {
            // One that cannot be counted is none.
            let Ok(forecast) = self.count(std::slice::from_ref(&request), way, activations) else { continue };
            if forecast.memory.shortage(limits).is_none() {
                alternatives.push(Alternative { flags, bytes: needed(&forecast.memory, shortage) });
            }
            if alternatives.len() == ALTERNATIVES {
                break;
            }
        }
        Error::InsufficientMemory { shortage, alternatives }
    }

    /// What may fit instead of a request, the least painful first: what leaves memory, then the arithmetic, then
    /// smaller pictures of the same proportions.
    fn candidates(&self, request: &Request) -> Vec<(String, Request, Way, DType)> {
        let ours = self.networks.activations;
        let mut candidates = Vec::new();
        let lowest = self.vae_tiling.ways().last().copied().unwrap_or(Way::LEAST.strips);
        if self.offload != Offload::Auto {
            for offload in Offload::SETTINGS.into_iter().filter(|offload| *offload > self.offload) {
                let way = Way { offload, strips: lowest, ..Way::LEAST };
                candidates.push((format!("--offload {}", offload.name()), request.clone(), way, ours));
            }
        }
        let offload = if self.offload == Offload::Auto { Offload::Stream } else { self.offload };
        if lowest != Way::LEAST.strips {
            let way = Way { offload, ..Way::LEAST };
            candidates.push(("--vae-tiling auto".into(), request.clone(), way, ours));
        }
        let least = Way { offload, strips: lowest, ..Way::LEAST };
        if ours == DType::F32 {
            candidates.push(("--dtype bf16".into(), request.clone(), least, DType::Bf16));
        }
        for parts in [3, 2, 1] {
            let side = |px: usize| (px * parts / 4 / SIDE_STEP_PX * SIDE_STEP_PX).max(MIN_SIDE_PX);
            let (width_px, height_px) = (side(request.width_px), side(request.height_px));
            if (width_px, height_px) != (request.width_px, request.height_px) {
                let smaller = Request { width_px, height_px, ..request.clone() };
                candidates.push((format!("--size {width_px}x{height_px}"), smaller, least, ours));
            }
        }
        candidates
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
