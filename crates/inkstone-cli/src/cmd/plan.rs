//! `plan`: what this machine can run, as a table of precision, weights, offload and size.

use std::cmp::Ordering;
use std::time::Duration;

use inkstone::bench::{Options, Rates};
use inkstone::memory::{DiskSpeed, Limits, Shortage};
use inkstone::pipeline::{Conversion, Forecast, Form, Setting};
use inkstone::progress::Stage;
use inkstone::request::{MAX_SIDE_PX, MIN_SIDE_PX, SIDE_STEP_PX, Size};
use inkstone::weights::{Quantization, RandomModel};
use inkstone::{Offload, OpenOptions, Pipeline, Precision, Request};
use serde_json::json;

use super::Session;
use crate::args::{self, Bytes, Threads};
use crate::drawing;
use crate::failure::{Result, alternatives};

mod table;

/// Time for all kinds of arithmetic together.
const CALIBRATION: Duration = Duration::from_secs(2);
/// What measuring takes at least beside the weights and activations of a layer.
const MEASURING_BYTES: u64 = 16 << 20;
/// Arithmetic and formats of weights that are looked at.
const ARITHMETIC: [(Precision, &str, Option<Quantization>); 5] = [
    (Precision::Bf16, "bf16", None),
    (Precision::Bf16, "bf16", Some(Quantization::Int8)),
    (Precision::Bf16, "bf16", Some(Quantization::Q8)),
    (Precision::Bf16, "bf16", Some(Quantization::Q4)),
    (Precision::F32, "f32", None),
];
/// A prompt of the usual length.
const PROMPT: &str = "a coffee shop with a chalkboard sign that says good morning, warm light, 35 mm";

/// One line of the table.
#[derive(Debug)]
struct Row {
    size: Size,
    dtype: &'static str,
    form: Form,
    offload: Offload,
    /// How the folder is made that it is of, if that is yet to be made.
    conversion: Option<Conversion>,
    forecast: Forecast,
    /// What it takes; `None` where there was no memory to measure in.
    seconds: Option<Seconds>,
    /// The limit that it breaks.
    shortage: Option<Shortage>,
    /// Weights that every step reads from the disk again; `None` if that is not known.
    reread_bytes: Option<u64>,
    /// The part of the processor that was ours while its arithmetic was measured; `None` if that is not known, or where the
    /// clock is the processor's own.
    processor_share: Option<f64>,
}

impl Row {
    fn fits(&self) -> bool {
        self.shortage.is_none()
    }

    /// The flags that draw with it.
    fn flags(&self) -> String {
        let folder = self.conversion.as_ref().map_or_else(String::new, |new| format!("{} ", new.then));
        let smaller = match self.form {
            Form::Loaded(quantization) => format!(" -q {}", quantization.name()),
            Form::Stored | Form::Converted(_) => String::new(),
        };
        let (size, dtype, offload) = (self.size, self.dtype, self.offload.name());
        format!("{folder}--size {size} --dtype {dtype}{smaller} --offload {offload}")
    }

    /// All that is to be typed.
    fn commands(&self) -> String {
        match &self.conversion {
            Some(Conversion { command, .. }) => format!("{command}, then {}", self.flags()),
            None => self.flags(),
        }
    }

    /// Of a step; longer than any where it is not known.
    fn step_s(&self) -> f64 {
        self.seconds.map_or(f64::INFINITY, |seconds| seconds.step_s)
    }

    /// Whether each step reads weights from the disk.
    fn reads(&self) -> bool {
        self.reread_bytes.is_some_and(|bytes| bytes > 0)
    }
}

pub(super) fn run(args: &args::Plan, session: &Session) -> Result<()> {
    let settings = &session.config.settings;
    let source = drawing::source(args.model.as_ref().or(settings.model.as_ref()), &args.parts);
    let threads = args.threads.or(settings.threads).map(|Threads(n)| n);
    let max_memory_bytes = args.max_memory.or(settings.max_memory).map(|Bytes(bytes)| bytes);
    let pipeline =
        Pipeline::open(&source, &OpenOptions { threads, max_memory_bytes, ..OpenOptions::default() })?;
    let limits = Limits::now(max_memory_bytes);
    // Before anything is measured: what that takes is no part of a drawing.
    let instead = instead(args, &pipeline)?;
    let disk = pipeline.disk_speed();
    let rows = rows(args, &pipeline, &limits, threads, disk)?;
    let native = &pipeline.model().defaults;
    let best = best(&rows, Size { width_px: native.width_px, height_px: native.height_px }, disk);
    if session.terminal.json() {
        return rows.iter().try_for_each(|row| event(row, is_best(row, best), disk, session));
    }
    if args.optimal {
        if let Some(Conversion { command, .. }) = best.and_then(|row| row.conversion.as_ref()) {
            session.terminal.warn(&format!("the best setting is of a folder that this makes: {command}"));
        }
        let flags = best.map_or_else(String::new, |row| format!("{}\n", row.flags()));
        return session.terminal.print(&flags);
    }
    session.terminal.print(&table::table(&rows, best, &limits, &pipeline, disk, instead.as_deref()))
}

/// What fits where no row does, if something does.
fn instead(args: &args::Plan, pipeline: &Pipeline) -> Result<Option<String>> {
    let Some(size) = sizes(args, pipeline).first().copied() else { return Ok(None) };
    let plans = pipeline.forecast(&[request(size, args.steps, pipeline)])?;
    let refusal = plans.first().and_then(|plan| plan.refusal.as_ref());
    Ok(refusal.and_then(|refusal| alternatives(&refusal.alternatives)))
}

/// What rates are of: the type of activations, the format of weights.
type Kind = (Precision, Option<Quantization>);

fn rows(
    args: &args::Plan,
    pipeline: &Pipeline,
    limits: &Limits,
    threads: Option<usize>,
    disk: Option<DiskSpeed>,
) -> Result<Vec<Row>> {
    let mut kinds = Vec::new();
    let drafts = drafts(args, pipeline, limits, &mut kinds)?;
    let measured = measured(args, pipeline, threads, &kinds)?;
    let timed = |(mut row, kinds): (Row, Vec<usize>)| {
        let rates: Option<Vec<Rates>> = kinds.iter().map(|kind| measured[*kind]).collect();
        row.seconds = rates.as_ref().map(|rates| seconds(&row.forecast, rates, row.reread_bytes, disk));
        let shares = rates.iter().flatten().filter_map(|rates| rates.processor_share);
        row.processor_share = shares.reduce(f64::min).filter(|_| args.clock == args::Clock::Wall);
        row
    };
    let mut rows: Vec<Row> = drafts.into_iter().map(timed).collect();
    // A stable sort: within a size the order of the arithmetic.
    rows.sort_by_key(|row| row.size.width_px * row.size.height_px);
    Ok(rows)
}

/// All lines without their times, each with which of the kinds of arithmetic its stages are of.
fn drafts(
    args: &args::Plan,
    pipeline: &Pipeline,
    limits: &Limits,
    kinds: &mut Vec<Kind>,
) -> Result<Vec<(Row, Vec<usize>)>> {
    let system = Limits::now(None);
    let mut drafts = Vec::new();
    let mut place = |kind: Kind| {
        kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        })
    };
    for (precision, dtype, quantization) in ARITHMETIC {
        for size in sizes(args, pipeline) {
            let request = request(size, args.steps, pipeline);
            for offload in Offload::SETTINGS {
                let form = form(quantization, offload);
                let conversion = match form {
                    Form::Converted(quantization) => match pipeline.conversion(quantization) {
                        None => continue,
                        conversion => conversion,
                    },
                    Form::Stored | Form::Loaded(_) => None,
                };
                let forecast = match pipeline.forecast_with(&request, Setting { precision, form, offload }) {
                    // A model that is quantized already has no other forms.
                    Err(inkstone::Error::AlreadyQuantized { .. }) => continue,
                    forecast => forecast?,
                };
                let stages = forecast.memory.stages.iter().map(|stage| stage.stage);
                let kinds = stages.map(|stage| place((precision, forecast.made_in(stage).format))).collect();
                let shortage = forecast.memory.shortage(limits);
                let reread_bytes = forecast.reread_bytes(&system);
                let (seconds, processor_share) = (None, None);
                let row = Row {
                    size,
                    dtype,
                    form,
                    offload,
                    conversion,
                    forecast,
                    seconds,
                    shortage,
                    reread_bytes,
                    processor_share,
                };
                drafts.push((row, kinds));
            }
        }
    }
    Ok(drafts)
}

/// How fast each kind of arithmetic is; `None` where there is no memory to measure in, which a table does without.
fn measured(
    args: &args::Plan,
    pipeline: &Pipeline,
    threads: Option<usize>,
    kinds: &[Kind],
) -> Result<Vec<Option<Rates>>> {
    let clock = args.clock.of_bench();
    let model = RandomModel { blocks: 1, layers: 1 };
    let options = |(precision, quantization): &Kind| {
        let (precision, quantization) = (*precision, *quantization);
        Options { threads, isa: None, precision, quantization, clock, model }
    };
    let options: Vec<Options> = kinds.iter().map(options).collect();
    let rates = || {
        Limits::now(None).check(MEASURING_BYTES)?;
        Rates::measure(&options, pipeline.sizes(), CALIBRATION)
    };
    match rates() {
        Ok(rates) => Ok(rates.into_iter().map(Some).collect()),
        // The model is open with these options: a device that cannot be opened again has no memory for its threads.
        Err(inkstone::Error::Tensor(_) | inkstone::Error::InsufficientMemory { .. }) => {
            Ok(vec![None; kinds.len()])
        }
        Err(error) => Err(error.into()),
    }
}

/// Weights that are quantized while they are loaded stay in memory: only those of a converted folder are streamed.
fn form(quantization: Option<Quantization>, offload: Offload) -> Form {
    match quantization {
        None => Form::Stored,
        Some(quantization) if offload == Offload::Stream => Form::Converted(quantization),
        Some(quantization) => Form::Loaded(quantization),
    }
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

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seconds {
    /// Of a step's arithmetic.
    compute_s: f64,
    /// Of a step.
    step_s: f64,
    /// Of a picture without what is read and rounded at its beginning.
    picture_s: f64,
}

/// By the rates of each stage. Steps that read weights again take as long as that at least, where it is known how fast the disk is.
fn seconds(
    forecast: &Forecast,
    rates: &[Rates],
    reread_bytes: Option<u64>,
    disk: Option<DiskSpeed>,
) -> Seconds {
    let of = |stage: Stage| {
        let stages = forecast.memory.stages.iter().zip(rates).filter(|(s, _)| s.stage == stage);
        stages.map(|(s, rates)| rates.seconds(&s.products)).sum::<f64>()
    };
    let compute_s = of(Stage::Denoise);
    let step_s = disk.map_or(compute_s, |disk| disk.step_seconds(compute_s, reread_bytes.unwrap_or(0)));
    #[allow(clippy::cast_precision_loss, reason = "at most a few hundred")]
    let steps = forecast.steps as f64;
    Seconds { compute_s, step_s, picture_s: of(Stage::Text) + steps * step_s + of(Stage::Decode) }
}

/// The fastest that fits with the weights as they are, which draws what the model draws; if none does, the fastest with
/// smaller ones, of a folder too that is yet to be made. At the model's own size, or at the largest size that is there; of
/// equals, as all are whose time is not known, the one that keeps most in memory.
fn best(rows: &[Row], native: Size, disk: Option<DiskSpeed>) -> Option<&Row> {
    let of_form = |is_ours: fn(Form) -> bool| {
        let fitting: Vec<&Row> = rows.iter().filter(|row| row.fits() && is_ours(row.form)).collect();
        let area = |row: &Row| row.size.width_px * row.size.height_px;
        let largest = fitting.iter().map(|row| area(row)).max()?;
        let has_native = fitting.iter().any(|row| row.size == native);
        let wanted = |row: &&Row| if has_native { row.size == native } else { area(row) == largest };
        fitting.into_iter().filter(wanted).min_by(|a, b| sooner(a, b, disk))
    };
    of_form(|form| form == Form::Stored).or_else(|| of_form(|form| form != Form::Stored))
}

/// Which of two steps ends first. Where the disk's speed is not known, reading counts as slower than any arithmetic.
fn sooner(a: &Row, b: &Row, disk: Option<DiskSpeed>) -> Ordering {
    let reading = a.reads().cmp(&b.reads());
    let time = a.step_s().total_cmp(&b.step_s());
    let first = if disk.is_some() { time.then(reading) } else { reading.then(time) };
    first.then(a.offload.cmp(&b.offload))
}

fn is_best(row: &Row, best: Option<&Row>) -> bool {
    best.is_some_and(|best| std::ptr::eq(row, best))
}

fn event(row: &Row, best: bool, disk: Option<DiskSpeed>, session: &Session) -> Result<()> {
    let plan = &row.forecast.memory;
    session.terminal.event(&json!({
        "event": "plan", "width": row.size.width_px, "height": row.size.height_px, "dtype": row.dtype,
        "quantize": row.form.quantization().map(Quantization::name),
        "converted": matches!(row.form, Form::Converted(_)),
        "offload": row.offload.name(), "resident_bytes": plan.resident_bytes(),
        "anonymous_bytes": plan.anonymous_bytes(), "address_space_bytes": plan.address_space_bytes(),
        "seconds_a_step": row.seconds.map(|s| s.step_s), "seconds_of_arithmetic_a_step": row.seconds.map(|s| s.compute_s),
        "disk_bytes_a_second": disk.map(|disk| disk.bytes_a_second), "seconds": row.seconds.map(|s| s.picture_s), "steps": row.forecast.steps,
        "processor_share": row.processor_share,
        "step_weights_bytes": row.forecast.step_weights_bytes, "reread_bytes_a_step": row.reread_bytes,
        "fits": row.fits(), "broken_limit": row.shortage.map(|shortage| shortage.limit.of.name()), "best": best,
    }))
}

#[cfg(test)]
mod tests;
