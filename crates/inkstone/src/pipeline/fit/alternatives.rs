//! What fits instead of a drawing that does not.

use std::cell::RefCell;

use inkstone_tensor::DType;

use super::{Way, ways};
use crate::Request;
use crate::memory::{Alternative, LimitOf, Limits, MemoryPlan, Offload, Refusal, SLACK_BYTES, Shortage};
use crate::pipeline::networks::{Arithmetic, Form};
use crate::pipeline::{Pipeline, VaeTiling};
use crate::request::{MIN_SIDE_PX, SIDE_STEP_PX};
use crate::weights::Quantization;

mod loras;

/// Alternatives that a refusal names.
const ALTERNATIVES: usize = 3;
/// Sides of smaller pictures, in 64ths.
const SIDES: [usize; 11] = [48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1];

/// What a change changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Offload,
    Strips,
    Precision,
    Merged,
    Weights,
    Lora,
    Size,
}

/// A change of a request that may fit.
#[derive(Clone)]
struct Candidate<'g> {
    kind: Kind,
    /// All but that LoRAs are left out.
    flags: String,
    request: Request,
    /// Those that are drawn behind it: their prompts are encoded with its own.
    next: &'g [Request],
    offload: Offload,
    tiling: VaeTiling,
    arithmetic: Arithmetic,
}

impl Candidate<'_> {
    /// What to do.
    fn said(&self) -> String {
        let without = if self.arithmetic.loras { "" } else { " without --lora" };
        format!("{}{without}", self.flags).trim_start().to_owned()
    }
}

impl Pipeline {
    /// Why a request does not fit, with up to three changes that do: the first of each kind and the largest smaller
    /// picture; then other forms of the weights, several changes at once, still smaller pictures, and a higher limit
    /// where one can be set.
    pub(super) fn refusal(&self, group: &[Request], shortage: Shortage, limits: &Limits) -> Refusal {
        let ours = Candidate {
            kind: Kind::Offload,
            flags: String::new(),
            request: group[0].clone(),
            next: &group[1..],
            offload: self.offload,
            tiling: self.vae_tiling,
            arithmetic: self.networks.arithmetic,
        };
        let (settings, together) = (self.settings(&ours), self.together(&ours));
        let (fitting, counted) = (Vec::new(), RefCell::default());
        let mut found = Found { pipeline: self, shortage, limits, fitting, counted };
        found.add_kinds(&settings, ALTERNATIVES);
        if found.fitting.is_empty() {
            found.add_kinds(&together, ALTERNATIVES); // for where none is enough alone
        }
        found.add_size(&ours, ALTERNATIVES);
        if found.fitting.len() < ALTERNATIVES {
            let raised = found.raised(&ours);
            let room = ALTERNATIVES - usize::from(raised.is_some());
            // Another setting of it may do, too, with the same picture.
            let offloads = settings.iter().filter(|candidate| candidate.kind == Kind::Offload);
            offloads.for_each(|candidate| found.add(candidate, room));
            found.add_forms(&settings, room);
            if found.fitting.iter().all(|(candidate, _)| candidate.kind != Kind::Size) {
                // First with what does not suffice alone.
                let mut bases: Vec<_> = together.iter().chain(&settings).collect();
                bases.sort_by_key(|base| found.has(&base.said()));
                bases.into_iter().for_each(|base| found.add_size(base, room));
            }
            found.add_sizes(&ours, room);
            let alternatives = found.alternatives().into_iter().chain(raised).collect();
            return Refusal { shortage, alternatives };
        }
        Refusal { shortage, alternatives: found.alternatives() }
    }

    /// Changes of one setting, the least painful first: what leaves memory, then the arithmetic, LoRAs that are part of the
    /// weights, smaller weights, and no LoRAs.
    fn settings<'g>(&self, ours: &Candidate<'g>) -> Vec<Candidate<'g>> {
        let mut candidates = Vec::new();
        for offload in self.further_offloads() {
            let flags = format!("--offload {}", offload.name());
            candidates.push(Candidate { flags, offload, ..ours.clone() });
        }
        if self.strips_save() {
            let (kind, flags) = (Kind::Strips, "--vae-tiling auto".into());
            candidates.push(Candidate { kind, flags, tiling: VaeTiling::Auto, ..ours.clone() });
        }
        if ours.arithmetic.activations == DType::F32 {
            let arithmetic = Arithmetic { activations: DType::Bf16, ..ours.arithmetic };
            let (kind, flags) = (Kind::Precision, "--dtype bf16".into());
            candidates.push(Candidate { kind, flags, arithmetic, ..ours.clone() });
        }
        candidates.extend(self.merged(ours));
        for (flags, form) in self.smaller_weights(ours.arithmetic.form) {
            let arithmetic = Arithmetic { form, ..ours.arithmetic };
            let smaller = Candidate { kind: Kind::Weights, flags, arithmetic, ..ours.clone() };
            // Weights in files can leave memory, too.
            let further =
                if matches!(form, Form::Converted(_)) { self.further_offloads() } else { Vec::new() };
            let offloaded = further.into_iter().map(|offload| {
                let flags = format!("{} --offload {}", smaller.flags, offload.name());
                Candidate { flags, offload, ..smaller.clone() }
            });
            let offloaded: Vec<_> = offloaded.collect();
            candidates.push(smaller);
            candidates.extend(offloaded);
        }
        candidates.extend(self.without_loras(ours));
        candidates
    }

    /// All that may leave memory at once, and the same with smaller weights or no LoRAs.
    fn together<'g>(&self, ours: &Candidate<'g>) -> Vec<Candidate<'g>> {
        let (mut flags, mut offload, mut tiling) = (Vec::new(), ours.offload, ours.tiling);
        if let Some(least) = self.further_offloads().pop() {
            flags.push(format!("--offload {}", least.name()));
            offload = least;
        }
        if self.strips_save() {
            flags.push("--vae-tiling auto".into());
            tiling = VaeTiling::Auto;
        }
        let least = Candidate { flags: flags.join(" "), offload, tiling, ..ours.clone() };
        let mut candidates = Vec::new();
        for (smaller, form) in self.smaller_weights(ours.arithmetic.form) {
            let flags = [smaller.as_str(), &least.flags].join(" ").trim_end().to_owned();
            let arithmetic = Arithmetic { form, ..ours.arithmetic };
            candidates.push(Candidate { kind: Kind::Weights, flags, arithmetic, ..least.clone() });
        }
        if !least.flags.is_empty() {
            candidates.extend(self.without_loras(&least));
            candidates.insert(0, least);
        }
        candidates
    }

    /// Whether lower strips than the chosen ones save memory.
    fn strips_save(&self) -> bool {
        self.vae_tiling.ways().last() != Some(&Way::LEAST.strips)
    }

    /// Settings of `--offload` that leave less in memory than the one that was chosen.
    fn further_offloads(&self) -> Vec<Offload> {
        match self.offload {
            Offload::Auto => Vec::new(),
            chosen => Offload::SETTINGS.into_iter().filter(|offload| *offload > chosen).collect(),
        }
    }

    /// Forms of the weights that take less, with what the user does for each, those that lose least first. Weights that are
    /// brought into a format while they are loaded stay in memory; those of a converted folder can be streamed.
    fn smaller_weights(&self, ours: Form) -> Vec<(String, Form)> {
        use Quantization::{Q4, Q8};
        let (loaded, converted): (&[_], &[_]) = match ours {
            Form::Stored => (&[Q8, Q4], &[Q8, Q4]),
            Form::Loaded(Q4) | Form::Converted(_) => (&[], &[Q4]),
            Form::Loaded(Q8) => (&[Q4], &[Q8, Q4]),
            Form::Loaded(asked @ Quantization::Int8) => (&[Q4], &[asked, Q4]),
        };
        let mut forms: Vec<_> =
            loaded.iter().map(|q| (format!("-q {}", q.name()), Form::Loaded(*q))).collect();
        let saved = |q: &Quantization| {
            let Conversion { command, then } = self.conversion(*q)?;
            Some((format!("{command}, then {then}"), Form::Converted(*q)))
        };
        forms.extend(converted.iter().filter_map(saved));
        forms
    }

    /// How to save this model in a format, and to draw with it from then on; `None` for random weights, and
    /// for a folder that is no whole model.
    #[must_use]
    pub fn conversion(&self, quantization: Quantization) -> Option<Conversion> {
        let format = quantization.name();
        self.saved_with(&format!(" -q {format}"), format)
    }

    /// The same with other flags of `convert`; the new folder's name ends with `end`.
    fn saved_with(&self, flags: &str, end: &str) -> Option<Conversion> {
        let (words, name) = self.files.convert_words()?;
        // Flags that name parts of a model would name them in place of the new one's.
        let alone = if words.iter().any(|word| word.starts_with("--")) { " alone" } else { "" };
        let model = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let new = quoted(&format!("{}-{end}", name.rsplit('/').next().unwrap_or_default()));
        let command = format!("inkstone convert {model}{flags} -o {new}");
        Some(Conversion { command, then: format!("-m {new}{alone}") })
    }
}

/// How a model is saved in another form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// The command that does it, as a shell takes it.
    pub command: String,
    /// The flags that draw with the new folder.
    pub then: String,
}

/// The changes that were found to fit.
struct Found<'p, 'g> {
    pipeline: &'p Pipeline,
    shortage: Shortage,
    limits: &'p Limits,
    /// With the bytes that they need of what is short.
    fitting: Vec<(Candidate<'g>, u64)>,
    /// What was counted already, as many candidates are looked at twice.
    counted: RefCell<Vec<Counted>>,
}

/// A size, a way and how products are made, and what it takes; `None` if that cannot be counted.
type Counted = ((usize, usize, Way, Arithmetic), Option<MemoryPlan>);

impl<'g> Found<'_, 'g> {
    /// Adds the first that fits of each kind.
    fn add_kinds(&mut self, candidates: &[Candidate<'g>], most: usize) {
        for candidate in candidates {
            if self.fitting.iter().all(|(other, _)| other.kind != candidate.kind) {
                self.add(candidate, most);
            }
        }
    }

    /// Adds the first that fits of each form of the weights.
    fn add_forms(&mut self, candidates: &[Candidate<'g>], most: usize) {
        for candidate in candidates.iter().filter(|candidate| candidate.kind == Kind::Weights) {
            let form = candidate.arithmetic.form;
            if self.fitting.iter().all(|(other, _)| other.arithmetic.form != form) {
                self.add(candidate, most);
            }
        }
    }

    /// Adds the largest smaller picture that fits with the other changes of a candidate.
    fn add_size(&mut self, base: &Candidate<'g>, most: usize) {
        let sizes = sizes(base);
        // The smallest takes the least.
        if self.fitting.len() < most && sizes.last().is_some_and(|smallest| self.fits(smallest)) {
            let largest = sizes.partition_point(|candidate| !self.fits(candidate));
            sizes.get(largest).into_iter().for_each(|candidate| self.add(candidate, most));
        }
    }

    /// Adds smaller pictures that take less than the ones that are there.
    fn add_sizes(&mut self, ours: &Candidate<'g>, most: usize) {
        let sizes = sizes(ours);
        if self.fitting.len() == most || !sizes.last().is_some_and(|smallest| self.fits(smallest)) {
            return;
        }
        for candidate in sizes {
            let last = self.fitting.iter().rfind(|(other, _)| other.kind == Kind::Size);
            let most_bytes = last.map_or(u64::MAX, |(_, bytes)| *bytes);
            if self.need(&candidate).is_some_and(|bytes| bytes < most_bytes) {
                self.add(&candidate, most);
            }
        }
    }

    fn add(&mut self, candidate: &Candidate<'g>, most: usize) {
        if self.fitting.len() < most
            && !self.has(&candidate.said())
            && let Some(bytes) = self.need(candidate)
        {
            self.fitting.push((candidate.clone(), bytes));
        }
    }

    fn has(&self, said: &str) -> bool {
        self.fitting.iter().any(|(candidate, _)| candidate.said() == said)
    }

    /// Whether it fits in the way that takes least. What only just fits now may not fit the next time.
    fn fits(&self, candidate: &Candidate<'g>) -> bool {
        let least = ways(candidate.offload, candidate.tiling).pop();
        let plan = least.and_then(|way| self.plan_of(candidate, way));
        plan.is_some_and(|plan| plan.shortage(&self.limits.with_slack()).is_none())
    }

    /// What it needs in the first way that fits. A drawing does without the slack.
    fn need(&self, candidate: &Candidate<'g>) -> Option<u64> {
        if !self.fits(candidate) {
            return None;
        }
        let plans = ways(candidate.offload, candidate.tiling).into_iter();
        let mut plans = plans.filter_map(|way| self.plan_of(candidate, way));
        let plan = plans.find(|plan| plan.shortage(self.limits).is_none())?;
        Some(needed(&plan, self.shortage))
    }

    /// A higher limit, if nothing else forbids the drawing then.
    fn raised(&self, ours: &Candidate<'g>) -> Option<Alternative> {
        let of = self.shortage.limit.of;
        let plan = self.plan_of(ours, *ways(ours.offload, ours.tiling).last()?)?;
        let bytes = needed(&plan, self.shortage);
        let raised_bytes = bytes + SLACK_BYTES;
        if Limits::hard_bytes(of).is_some_and(|hard| raised_bytes > hard) {
            return None;
        }
        let flags = self.shortage.raised(raised_bytes)?;
        let others = self.limits.without(of).with_slack();
        plan.shortage(&others).is_none().then_some(Alternative { flags, bytes })
    }

    /// `None` if it cannot be counted.
    fn plan_of(&self, candidate: &Candidate<'g>, way: Way) -> Option<MemoryPlan> {
        let Candidate { request, next, arithmetic, .. } = candidate;
        let key = (request.width_px, request.height_px, way, *arithmetic);
        if let Some((_, plan)) = self.counted.borrow().iter().find(|(known, _)| *known == key) {
            return plan.clone();
        }
        let forecast = self.pipeline.count(std::slice::from_ref(request), next, way, *arithmetic);
        let plan = forecast.ok().map(|forecast| forecast.memory);
        self.counted.borrow_mut().push((key, plan.clone()));
        plan
    }

    fn alternatives(self) -> Vec<Alternative> {
        let of = |(candidate, bytes): (Candidate<'_>, _)| Alternative { flags: candidate.said(), bytes };
        self.fitting.into_iter().map(of).collect()
    }
}

/// Smaller pictures of the same proportions, the largest first.
fn sizes<'g>(ours: &Candidate<'g>) -> Vec<Candidate<'g>> {
    let given = (ours.request.width_px, ours.request.height_px);
    let side = |px: usize, parts: usize| (px * parts / 64 / SIDE_STEP_PX * SIDE_STEP_PX).max(MIN_SIDE_PX);
    let mut sizes: Vec<_> =
        SIDES.iter().map(|parts| (side(given.0, *parts), side(given.1, *parts))).collect();
    sizes.dedup();
    sizes.retain(|size| *size != given);
    let before = if ours.flags.is_empty() { String::new() } else { format!("{} ", ours.flags) };
    let of = |(width_px, height_px)| Candidate {
        kind: Kind::Size,
        flags: format!("{before}--size {width_px}x{height_px}"),
        request: Request { width_px, height_px, ..ours.request.clone() },
        ..ours.clone()
    };
    sizes.into_iter().map(of).collect()
}

/// What a plan needs of what is short.
fn needed(plan: &MemoryPlan, shortage: Shortage) -> u64 {
    match shortage.limit.of {
        LimitOf::MaxMemory | LimitOf::Free | LimitOf::ControlGroup => plan.resident_bytes(),
        LimitOf::AddressSpace => plan.address_space_bytes(),
        LimitOf::Data => plan.data_bytes(),
    }
}

/// A name as a shell takes it.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c));
    if plain { name.to_owned() } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests;
