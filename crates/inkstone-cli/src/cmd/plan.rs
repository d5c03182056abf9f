//! `plan`: what this machine can run, as a table of precision, offload and size.

use std::fmt::Write as _;
use std::time::Duration;

use inkstone::bench::{Bench, Clock, Options, Rates};
use inkstone::memory::{Limits, MemoryPlan, gibibytes};
use inkstone::pipeline::Forecast;
use inkstone::progress::Stage;
use inkstone::request::{MAX_SIDE_PX, MIN_SIDE_PX, SIDE_STEP_PX, Size};
use inkstone::weights::RandomModel;
use inkstone::{Offload, OpenOptions, Pipeline, Precision, Request};
use serde_json::json;

use super::Session;
use crate::args::{self, Bytes, Threads};
use crate::drawing;
use crate::failure::Result;
use crate::progress::duration;

/// Time for both precisions together.
const CALIBRATION: Duration = Duration::from_secs(2);
const PRECISIONS: [(Precision, &str); 2] = [(Precision::Bf16, "bf16"), (Precision::F32, "f32")];
/// A prompt of the usual length.
const PROMPT: &str = "a coffee shop with a chalkboard sign that says good morning, warm light, 35 mm";

/// One line of the table.
#[derive(Debug)]
struct Row {
    size: Size,
    dtype: &'static str,
    offload: Offload,
    forecast: Forecast,
    step_s: f64,
    picture_s: f64,
    fits: bool,
}

pub(super) fn run(args: &args::Plan, session: &Session) -> Result<()> {
    let settings = &session.config.settings;
    let source = drawing::source(args.model.as_ref().or(settings.model.as_ref()), &args.parts)?;
    let threads = args.threads.or(settings.threads).map(|Threads(n)| n);
    let max_memory_bytes = args.max_memory.or(settings.max_memory).map(|Bytes(bytes)| bytes);
    let pipeline = Pipeline::open(&source, &OpenOptions { threads, ..OpenOptions::default() })?;
    let limits = Limits::now(max_memory_bytes);
    let rows = rows(args, &pipeline, &limits, threads)?;
    let best = best(&rows, &pipeline);
    if session.terminal.json() {
        return rows.iter().try_for_each(|row| event(row, is_best(row, best), session));
    }
    if args.optimal {
        let flags = best.map_or_else(String::new, |row| format!("{}\n", flags(row)));
        return session.terminal.print(&flags);
    }
    session.terminal.print(&table(&rows, best, &limits, &pipeline))
}

fn rows(args: &args::Plan, pipeline: &Pipeline, limits: &Limits, threads: Option<usize>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (precision, dtype) in PRECISIONS {
        let model = RandomModel { blocks: 1, layers: 1 };
        let bench = Bench::new(Options {
            threads,
            isa: None,
            precision,
            quantization: None,
            clock: Clock::Wall,
            model,
        })?;
        let rates = Rates::measure(&bench, CALIBRATION / 2)?;
        drop(bench);
        for size in sizes(args, pipeline) {
            let request = request(size, args.steps, pipeline);
            for offload in Offload::SETTINGS {
                let forecast = pipeline.forecast_with(&request, precision, offload)?;
                let fits = forecast.memory.shortage(limits).is_none();
                let (step_s, picture_s) = seconds(&forecast, &rates);
                rows.push(Row { size, dtype, offload, forecast, step_s, picture_s, fits });
            }
        }
    }
    rows.sort_by_key(|row| (row.size.width_px * row.size.height_px, row.dtype, row.offload));
    Ok(rows)
}

fn request(size: Size, steps: Option<usize>, pipeline: &Pipeline) -> Request {
    let defaults = &pipeline.model().defaults;
    Request {
        prompt: PROMPT.into(),
        negative_prompt: Some(defaults.negative_prompt.clone()),
        width_px: size.width_px,
        height_px: size.height_px,
        steps: steps.unwrap_or(defaults.steps),
        seed: 0,
        true_cfg_scale: defaults.true_cfg_scale,
        init: None,
    }
}

fn sizes(args: &args::Plan, pipeline: &Pipeline) -> Vec<Size> {
    if !args.size.is_empty() {
        return args.size.clone();
    }
    let native = &pipeline.model().defaults;
    let side = |px: usize, halves: usize| {
        (px * halves / 2 / SIDE_STEP_PX * SIDE_STEP_PX).clamp(MIN_SIDE_PX, MAX_SIDE_PX)
    };
    let mut sizes: Vec<Size> = (1..=4)
        .map(|halves| Size {
            width_px: side(native.width_px, halves),
            height_px: side(native.height_px, halves),
        })
        .collect();
    sizes.dedup();
    sizes
}

/// Seconds of a step, and of a picture.
fn seconds(forecast: &Forecast, rates: &Rates) -> (f64, f64) {
    let of = |stage: Stage| {
        let stages = forecast.memory.stages.iter().filter(|s| s.stage == stage);
        stages.map(|s| rates.seconds(&s.products)).sum::<f64>()
    };
    let step_s = of(Stage::Denoise);
    #[allow(clippy::cast_precision_loss, reason = "at most a few hundred")]
    let steps = forecast.steps as f64;
    (step_s, of(Stage::Text) + steps * step_s + of(Stage::Decode))
}

/// The fastest that fits at the model's own size, or at the largest size that is there; of equals the one that keeps
/// most in memory.
fn best<'r>(rows: &'r [Row], pipeline: &Pipeline) -> Option<&'r Row> {
    let native = &pipeline.model().defaults;
    let is_native =
        |row: &&Row| (row.size.width_px, row.size.height_px) == (native.width_px, native.height_px);
    let fastest = |rows: Vec<&'r Row>| {
        rows.into_iter().min_by(|a, b| a.step_s.total_cmp(&b.step_s).then(a.offload.cmp(&b.offload)))
    };
    let fitting: Vec<&Row> = rows.iter().filter(|row| row.fits).collect();
    let native: Vec<&Row> = fitting.iter().copied().filter(is_native).collect();
    fastest(native).or_else(|| {
        let largest = fitting.iter().map(|row| row.size.width_px * row.size.height_px).max()?;
        fastest(fitting.into_iter().filter(|row| row.size.width_px * row.size.height_px == largest).collect())
    })
}

fn is_best(row: &Row, best: Option<&Row>) -> bool {
    best.is_some_and(|best| std::ptr::eq(row, best))
}

fn flags(row: &Row) -> String {
    format!("--size {} --dtype {} --offload {}", row.size, row.dtype, row.offload.name())
}

fn event(row: &Row, best: bool, session: &Session) -> Result<()> {
    let plan = &row.forecast.memory;
    session.terminal.event(&json!({
        "event": "plan", "width": row.size.width_px, "height": row.size.height_px, "dtype": row.dtype,
        "offload": row.offload.name(), "resident_bytes": plan.resident_bytes(),
        "anonymous_bytes": plan.anonymous_bytes(), "address_space_bytes": plan.address_space_bytes(),
        "seconds_a_step": row.step_s, "seconds": row.picture_s, "steps": row.forecast.steps,
        "fits": row.fits, "best": best,
    }))
}

fn table(rows: &[Row], best: Option<&Row>, limits: &Limits, pipeline: &Pipeline) -> String {
    let mut text = format!("{} on {}\n\n", pipeline.model().name, pipeline.device().name());
    text.push_str("size        type  offload  peak memory  not in files      a step   a picture\n");
    for row in rows {
        let plan = &row.forecast.memory;
        let mark = if is_best(row, best) {
            "  best"
        } else if row.fits {
            ""
        } else {
            "  does not fit"
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:<11} {:<5} {:<8} {:>11}  {:>12}  {:>10}  {:>10}{mark}",
            row.size.to_string(),
            row.dtype,
            row.offload.name(),
            gibibytes(plan.resident_bytes()),
            gibibytes(plan.anonymous_bytes()),
            duration(row.step_s),
            duration(row.picture_s),
        );
    }
    text.push('\n');
    match limits.resident {
        Some(limit) => drop(writeln!(text, "limit: {} {}", limit.of, gibibytes(limit.bytes))),
        None => text.push_str("limit: none is known\n"),
    }
    let _ = match best {
        Some(row) => writeln!(text, "best: {}\n{}", flags(row), bottleneck(row)),
        None => writeln!(text, "best: nothing fits; a smaller --size may"),
    };
    text
}

/// What a step and the memory of a setting mostly are.
fn bottleneck(row: &Row) -> String {
    let stages = &row.forecast.memory.stages;
    let step = stages.iter().find(|s| s.stage == Stage::Denoise).map(|s| s.products).unwrap_or_default();
    let percent = |part: f64| format!("{:.0} %", 100.0 * part / step.total().max(1.0));
    let time = format!("matrix products are {}, attention {}", percent(step.linear), percent(step.attention));
    let memory = largest(&row.forecast.memory);
    format!("time: the processor's arithmetic; of a step's work {time}\nmemory: {memory}")
}

fn largest(plan: &MemoryPlan) -> String {
    let Some(most) = plan.stages.iter().max_by_key(|stage| stage.peak.total_bytes()) else {
        return "nothing is known".into();
    };
    let (weights, work) = (most.peak.mapped_bytes as u64, most.peak.anonymous_bytes() as u64);
    let stage = most.stage.name();
    format!(
        "most is taken in the stage {stage}: {} of weights, {} of work",
        gibibytes(weights),
        gibibytes(work)
    )
}
