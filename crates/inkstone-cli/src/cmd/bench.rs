//! `bench`: how fast this machine is, as a table or as events, and against an earlier time.

mod compare;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use inkstone::bench::{self, Case, Group, Measurement, Options, ParseCaseError};
use inkstone::weights::{Quantization, RandomModel};
use inkstone::{Error, Precision};
use inkstone_tensor::Error as TensorError;
use serde_json::json;

use super::Session;
use crate::args::{self, Dtype, Threads};
use crate::failure::{Failure, Result};
use compare::Earlier;

/// Reads cases from standard input.
const REQUESTS: &str = "-";
/// Every instruction set.
const ALL: &str = "all";

pub(super) fn run(args: &args::Bench, session: &Session) -> Result<()> {
    let earlier = args.compare.as_deref().map(Earlier::read).transpose()?;
    let isas = instruction_sets(&args.isa);
    if args.what == [REQUESTS] {
        let options = options(args, session, isas.into_iter().next().flatten(), arithmetics(args, false)[0]);
        return requests::serve(&bench::Bench::new(options)?, session);
    }
    let cases = cases(args)?;
    let mut seen = HashSet::new();
    for isa in isas {
        for arithmetic in arithmetics(args, true) {
            let options = options(args, session, isa.clone(), arithmetic);
            let bench = bench::Bench::new(options).map_err(|error| match isa {
                Some(_) => Failure::from(error).with_cure("choose another --isa, or leave it out"),
                None => error.into(),
            })?;
            let explicit = args.dtype.is_some() || args.quantize.is_some();
            let (precision, quantization) = arithmetic;
            // Of the kernels, matrix products have weights of a smaller format, and convolutions those of bytes.
            let wanted = |case: &Case| match quantization {
                Some(Quantization::Int8) if matches!(case, Case::Conv { .. }) => true,
                Some(_) => explicit && !is_kernel(*case) || matches!(case, Case::Linear { .. }),
                None => is_kernel(*case) || explicit || precision == Precision::Auto,
            };
            let wanted: Vec<Case> = cases.iter().copied().filter(wanted).collect();
            if seen.insert(bench.device()) {
                heading(&bench, session)?;
            }
            for case in wanted.into_iter().filter(|case| seen.insert(key(&bench, *case))) {
                let runs = usize::from(args.runs);
                let measured = bench.prepare(case).and_then(|mut ready| ready.measure(runs));
                let measured = measured.map_err(|error| too_large(case, error))?;
                report(&measured, earlier.as_ref(), session)?;
            }
        }
    }
    Ok(())
}

/// What a case failed with. It draws nothing that could be smaller.
fn too_large(case: Case, error: Error) -> Failure {
    let is_memory = matches!(error, Error::Tensor(TensorError::OutOfMemory { .. }));
    let failure = Failure::about(case.to_string().as_ref(), error);
    if is_memory { failure.with_cure("measure a smaller case, or close other programs") } else { failure }
}

/// Case, type and device: what must agree for two figures to be compared.
fn key(bench: &bench::Bench, case: Case) -> String {
    format!("{case} {} {}", bench.dtype(), bench.device())
}

fn is_kernel(case: Case) -> bool {
    matches!(case, Case::Linear { .. } | Case::Attention { .. } | Case::Conv { .. })
}

fn cases(args: &args::Bench) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let default = ["kernels".to_owned(), "stages".to_owned()];
    for what in if args.what.is_empty() { &default[..] } else { &args.what } {
        match what.as_str() {
            "kernels" => cases.extend(Group::Kernels.cases(args.size)),
            "stages" => cases.extend(Group::Stages.cases(args.size)),
            "pictures" => cases.extend(Group::Pictures.cases(args.size)),
            name => cases.push(name.parse().map_err(|allowed: ParseCaseError| {
                let allowed = format!("allowed is kernels, stages, pictures, {allowed}");
                Failure::usage(format!("cannot measure '{name}'"), allowed, "inkstone bench block/512")
            })?),
        }
    }
    Ok(cases)
}

/// `None` is the best one.
fn instruction_sets(isas: &[String]) -> Vec<Option<String>> {
    match isas {
        [] => vec![None],
        [all] if all == ALL => bench::tables().into_iter().map(|isa| Some(isa.to_owned())).collect(),
        isas => isas.iter().cloned().map(Some).collect(),
    }
}

/// Type of activations, and format of weights.
type Arithmetic = (Precision, Option<Quantization>);

/// What to measure with; kernels are measured with each.
fn arithmetics(args: &args::Bench, all: bool) -> Vec<Arithmetic> {
    let quantization = args.quantize.map(args::Quantize::quantization);
    let precision = match args.dtype {
        Some(Dtype::Bf16) => Some(Precision::Bf16),
        Some(Dtype::F32) => Some(Precision::F32),
        Some(Dtype::Auto) => Some(Precision::Auto),
        None => None,
    };
    if all && precision.is_none() && quantization.is_none() {
        let stored = [Precision::Auto, Precision::Bf16, Precision::F32].map(|precision| (precision, None));
        return stored.into_iter().chain([(Precision::Auto, Some(Quantization::Int8))]).collect();
    }
    vec![(precision.unwrap_or_default(), quantization)]
}

fn options(
    args: &args::Bench,
    session: &Session,
    isa: Option<String>,
    (precision, quantization): Arithmetic,
) -> Options {
    let threads = args.threads.or(session.config.settings.threads).map(|Threads(n)| n);
    let model = RandomModel { blocks: usize::from(args.blocks), layers: usize::from(args.layers) };
    Options { threads, isa, precision, quantization, clock: args.clock.of_bench(), model }
}

/// What the processor does on registers alone.
fn heading(bench: &bench::Bench, session: &Session) -> Result<()> {
    let [f32, bf16, int8] = bench.peaks();
    let device = bench.device();
    if session.terminal.json() {
        let event = json!({
            "event": "bench", "version": env!("CARGO_PKG_VERSION"), "device": device,
            "peak_gflops": { "f32": f32, "bf16": bf16, "int8": int8 },
        });
        return session.terminal.event(&event);
    }
    let rate = |peak: Option<f64>| peak.map_or("-".into(), |peak| format!("{peak:.0}"));
    session.terminal.print(&format!(
        "{device}; on registers alone, in G/s: f32 {}, bf16 {}, int8 {}\n{:<28} {:<5} {:>11} {:>21} {:>9} {:>8}\n",
        rate(f32),
        rate(bf16),
        rate(int8),
        "case",
        "type",
        "median",
        "range",
        "GFLOP/s",
        "of peak",
    ))
}

fn report(measured: &Measurement, earlier: Option<&Earlier>, session: &Session) -> Result<()> {
    let change = earlier.map(|earlier| earlier.change(measured));
    let row = row(measured, change.map(compare::verdict).as_deref());
    if !session.terminal.json() {
        return session.terminal.print(&row);
    }
    if session.terminal.is_watched() {
        session.terminal.note(&row);
    }
    let ratio = change.flatten().map(|change| change.ratio);
    session.terminal.event(&json!({ "event": "measurement", "measurement": measured, "ratio": ratio }))
}

/// A line of the table; the verdict is on the time against an earlier one.
fn row(measured: &Measurement, verdict: Option<&str>) -> String {
    let range = format!("{}..{}", time(measured.seconds_min), time(measured.seconds_max));
    let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
    let share = measured.peak_percent.map_or("-".into(), |share| format!("{share:.1} %"));
    let mut row = format!(
        "{:<28} {:<5} {:>11} {range:>21} {:>9} {share:>8}",
        measured.case,
        measured.dtype,
        time(measured.seconds),
        number(measured.gflops, 1),
    );
    if measured.busy_rounds > 0 {
        row += &format!("  {} of {} runs busy", measured.busy_rounds, measured.rounds.len());
    }
    if let Some(verdict) = verdict {
        row += &format!("  {verdict}");
    }
    row.trim_end().to_owned() + "\n"
}

/// Seconds with a unit that fits.
fn time(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.1} us", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{seconds:.3} s")
    }
}
