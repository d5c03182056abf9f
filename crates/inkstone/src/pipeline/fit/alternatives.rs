//! What fits instead of a drawing that does not.

use inkstone_tensor::DType;

use super::{Way, ways};
use crate::Request;
use crate::memory::{Alternative, LimitOf, Limits, MemoryPlan, Offload, Refusal, Shortage};
use crate::pipeline::networks::{Arithmetic, Form};
use crate::pipeline::{Pipeline, VaeTiling};
use crate::request::{MIN_SIDE_PX, SIDE_STEP_PX};
use crate::weights::Quantization;

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
    Weights,
    Size,
}

/// A change of a request that may fit.
struct Candidate<'g> {
    kind: Kind,
    flags: String,
    request: Request,
    /// Those that are drawn behind it: their prompts are encoded with its own.
    next: &'g [Request],
    offload: Offload,
    tiling: VaeTiling,
    arithmetic: Arithmetic,
}

impl Pipeline {
    /// Why a request does not fit, with up to three changes that do: the first of each kind, smaller pictures for the
    /// rest, and a higher limit where one can be set.
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
        // Changes together are for where none is enough alone.
        let together = self.together(&ours);
        let (sizes, smallest) = (sizes(&ours), together.iter().flat_map(sizes).collect());
        let mut alternatives = Vec::new();
        for (alone, together) in [(self.settings(&ours), together), (sizes, smallest)] {
            let before = alternatives.len();
            self.add_fitting(alone, shortage, limits, &mut alternatives);
            if alternatives.len() == before {
                self.add_fitting(together, shortage, limits, &mut alternatives);
            }
        }
        if alternatives.len() < ALTERNATIVES {
            alternatives.extend(self.raised(&ours, shortage, limits));
        }
        Refusal { shortage, alternatives }
    }

    /// Adds those that fit: the first of each kind, and all sizes.
    fn add_fitting(
        &self,
        candidates: Vec<Candidate<'_>>,
        shortage: Shortage,
        limits: &Limits,
        alternatives: &mut Vec<Alternative>,
    ) {
        // What only just fits now may not fit the next time.
        let reliable = limits.with_slack();
        let mut kinds = Vec::new();
        for candidate in candidates {
            if alternatives.len() == ALTERNATIVES {
                return;
            }
            if candidate.kind != Kind::Size && kinds.contains(&candidate.kind) {
                continue;
            }
            if self.fitting(&candidate, &reliable).is_none() {
                continue;
            }
            // A drawing does without the slack.
            if let Some(plan) = self.fitting(&candidate, limits) {
                let bytes = needed(&plan, shortage);
                alternatives.push(Alternative { flags: candidate.flags, bytes });
                kinds.push(candidate.kind);
            }
        }
    }

    /// What drawing it will take, in the first way that fits.
    fn fitting(&self, candidate: &Candidate<'_>, limits: &Limits) -> Option<MemoryPlan> {
        let ways = ways(candidate.offload, candidate.tiling);
        // Most do not fit in any way, which the last one tells.
        let fits = |way: &Way| self.plan_of(candidate, *way).filter(|plan| plan.shortage(limits).is_none());
        let least = ways.last().and_then(fits)?;
        Some(ways.iter().find_map(fits).unwrap_or(least))
    }

    /// `None` if it cannot be counted.
    fn plan_of(&self, candidate: &Candidate<'_>, way: Way) -> Option<MemoryPlan> {
        let Candidate { request, next, arithmetic, .. } = candidate;
        Some(self.count(std::slice::from_ref(request), next, way, *arithmetic).ok()?.memory)
    }

    /// A higher limit, if nothing else forbids the drawing then.
    fn raised(&self, ours: &Candidate<'_>, shortage: Shortage, limits: &Limits) -> Option<Alternative> {
        let plan = self.plan_of(ours, *ways(ours.offload, ours.tiling).last()?)?;
        let bytes = needed(&plan, shortage);
        let raised_bytes = bytes + shortage.limit.of.slack_bytes();
        if Limits::hard_bytes(shortage.limit.of).is_some_and(|hard| raised_bytes > hard) {
            return None;
        }
        let flags = shortage.raised(raised_bytes)?;
        let others = limits.without(shortage.limit.of).with_slack();
        plan.shortage(&others).is_none().then_some(Alternative { flags, bytes })
    }

    /// Changes of one setting, the least painful first: what leaves memory, then the arithmetic, then smaller weights.
    fn settings<'g>(&self, ours: &Candidate<'g>) -> Vec<Candidate<'g>> {
        let Candidate { offload, tiling, arithmetic, .. } = *ours;
        let mut candidates = Vec::new();
        let mut add = |kind, flags: String, offload, tiling, arithmetic| {
            let (request, next) = (ours.request.clone(), ours.next);
            candidates.push(Candidate { kind, flags, request, next, offload, tiling, arithmetic });
        };
        for offload in self.further_offloads() {
            add(Kind::Offload, format!("--offload {}", offload.name()), offload, tiling, arithmetic);
        }
        if self.strips_save() {
            add(Kind::Strips, "--vae-tiling auto".into(), offload, VaeTiling::Auto, arithmetic);
        }
        if arithmetic.activations == DType::F32 {
            let bf16 = Arithmetic { activations: DType::Bf16, ..arithmetic };
            add(Kind::Precision, "--dtype bf16".into(), offload, tiling, bf16);
        }
        for (flags, form) in self.smaller_weights(arithmetic.form) {
            add(Kind::Weights, flags, offload, tiling, Arithmetic { form, ..arithmetic });
        }
        candidates
    }

    /// All that may leave memory at once, and the same with smaller weights.
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
        let of = |flags: &[String], arithmetic| Candidate {
            kind: Kind::Offload,
            flags: flags.join(" "),
            request: ours.request.clone(),
            next: ours.next,
            offload,
            tiling,
            arithmetic,
        };
        let mut candidates = Vec::new();
        if !flags.is_empty() {
            candidates.push(of(&flags, ours.arithmetic));
        }
        if ours.arithmetic.form == Form::Stored {
            flags.push("-q q4".into());
            let form = Form::Loaded(Quantization::Q4);
            candidates.push(of(&flags, Arithmetic { form, ..ours.arithmetic }));
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
    fn convert_command(&self) -> Option<impl Fn(Quantization) -> String + use<>> {
        let (words, name) = self.files.convert_words()?;
        // Flags that name parts of a model would name them in place of the new one's.
        let alone = if words.iter().any(|word| word.starts_with("--")) { " alone" } else { "" };
        let model = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        let streams = matches!(self.offload, Offload::Auto | Offload::Stream);
        streams.then_some(move |quantization: Quantization| {
            let format = quantization.name();
            let new = quoted(&format!("{name}-{format}"));
            format!("inkstone convert {model} -q {format} -o {new}, then -m {new}{alone}")
        })
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
        ..*ours
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
