//! `--dry-run`: what would be drawn, what it takes, and whether that fits.

use std::iter;

use inkstone::memory::{Alternative, Limit, Limits, MemoryPlan, Refusal, StageMemory, gibibytes};
use inkstone::pipeline::Planned;
use inkstone::weights::lora::Applied;
use serde_json::{Map, Value, json};

use super::Ready;
use crate::cmd::Session;
use crate::failure::{Result, alternatives, printable};

impl Ready<'_> {
    /// Says what would be drawn, and draws nothing.
    pub(in crate::cmd) fn tell(&self, session: &Session) -> Result<()> {
        let Self { drawing, requests, paths } = self;
        let model = &drawing.model().name;
        // Without their hashes, for which the files would be read.
        let lora = |applied: &Applied| json!({"name": applied.lora.name(), "scale": applied.scale});
        let loras: Vec<Value> = drawing.loras().iter().map(lora).collect();
        let plans = drawing.forecast(requests)?;
        // Each picture has the plan of the batch that it is drawn in.
        let plans = plans.iter().flat_map(|plan| iter::repeat_n(plan, plan.forecast.memory.pictures));
        for ((request, path), plan) in requests.iter().zip(paths).zip(plans) {
            let memory = &plan.forecast.memory;
            let strength = request.init.as_ref().map(|init| init.strength);
            let mut fields = vec![
                ("model", json!(model)),
                ("prompt", json!(request.prompt)),
                ("negative-prompt", json!(request.negative_prompt)),
                ("width", json!(request.width_px)),
                ("height", json!(request.height_px)),
                ("steps", json!(request.steps)),
                ("true-cfg-scale", json!(request.true_cfg_scale)),
                ("seed", json!(request.seed)),
                ("strength", json!(strength)),
                ("loras", json!((!loras.is_empty()).then_some(&loras))),
                ("output", json!(path.to_string_lossy())),
                ("together", json!((memory.pictures > 1).then_some(memory.pictures))),
                ("offload", json!(memory.offload.name())),
            ];
            if session.terminal.json() {
                fields.extend(numbers(plan));
                let mut event = Map::from_iter([("event".to_owned(), json!("dry-run"))]);
                event.extend(fields.into_iter().map(|(name, value)| (name.replace('-', "_"), value)));
                session.terminal.event(&event)?;
            } else {
                fields.extend(words(plan));
                let known = fields.iter().filter(|(_, value)| !value.is_null());
                let lines: String = known
                    .map(|(name, value)| format!("{name}: {}\n", printable(&value.to_string())))
                    .collect();
                session.terminal.print(&lines)?;
            }
        }
        Ok(())
    }
}

/// What a drawing takes, what there is, and what fits instead: for programs.
fn numbers(plan: &Planned) -> Vec<(&'static str, Value)> {
    let Planned { forecast, limits, refusal } = plan;
    let memory = &forecast.memory;
    let stage = |s: &StageMemory| (s.stage.name().to_owned(), json!(s.peak.total_bytes()));
    let limit = |limit: Limit| json!({"of": limit.of.name(), "bytes": limit.bytes});
    let short = |refusal: &Refusal| {
        let shortage = refusal.shortage;
        json!({"of": shortage.limit.of.name(), "needed_bytes": shortage.needed_bytes, "limit_bytes": shortage.limit.bytes})
    };
    let instead = |a: &Alternative| json!({"flags": a.flags, "bytes": a.bytes});
    let instead = |refusal: &Refusal| refusal.alternatives.iter().map(instead).collect::<Vec<_>>();
    let memory = json!({
        "resident_bytes": memory.peak_bytes(), "anonymous_bytes": memory.anonymous_bytes(),
        "address_space_bytes": memory.address_space_bytes(), "two_passes": memory.two_passes,
        "stages": memory.stages.iter().map(stage).collect::<Map<_, _>>(),
    });
    vec![
        ("memory", memory),
        ("limits", json!(limits.known().map(limit).collect::<Vec<_>>())),
        ("fits", json!(refusal.is_none())),
        ("shortage", json!(refusal.as_ref().map(short))),
        ("alternatives", json!(refusal.as_ref().map_or(Vec::new(), instead))),
    ]
}

/// The same for people.
fn words(plan: &Planned) -> Vec<(&'static str, Value)> {
    let Planned { forecast, limits, refusal } = plan;
    let fits = match refusal {
        None => "yes".to_owned(),
        Some(refusal) => format!("no: it {}", refusal.shortage),
    };
    vec![
        ("memory", json!(taken(&forecast.memory))),
        ("limit", json!(known(limits))),
        ("fits", json!(fits)),
        ("instead", json!(refusal.as_ref().and_then(|refusal| alternatives(&refusal.alternatives)))),
    ]
}

fn taken(plan: &MemoryPlan) -> String {
    let stage = |s: &StageMemory| format!("{} {}", s.stage.name(), gibibytes(s.peak.total_bytes() as u64));
    let stages: Vec<String> = plan.stages.iter().map(stage).collect();
    let (resident, anonymous) = (gibibytes(plan.peak_bytes()), gibibytes(plan.anonymous_bytes()));
    format!("{resident} at most, {anonymous} of it not in files ({})", stages.join(", "))
}

fn known(limits: &Limits) -> String {
    let limits: Vec<String> = limits.known().map(|limit| limit.to_string()).collect();
    if limits.is_empty() { "none is known".into() } else { limits.join("; ") }
}
