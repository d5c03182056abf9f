//! The table of `plan`, and what it says below.

use std::fmt::Write as _;

use inkstone::Pipeline;
use inkstone::memory::{DiskSpeed, LimitOf, Limits, MemoryPlan, gibibytes};
use inkstone::pipeline::Form;
use inkstone::progress::Stage;

use super::{Row, Seconds, is_best, sooner};
use crate::progress::duration;

/// Below this part of the processor times are said to be those of a busy machine.
const QUIET: f64 = 0.9;

/// What is said where other programs ran, by the median of the measurements.
pub(super) fn busy(rows: &[Row]) -> Option<String> {
    let mut shares: Vec<f64> = rows.iter().filter_map(|row| row.processor_share).collect();
    shares.sort_by(f64::total_cmp);
    let share = shares.get(shares.len() / 2).filter(|share| **share < QUIET)?;
    let percent = 100.0 * share;
    Some(format!(
        "busy: other programs left {percent:.0} % of the processor to the measurements; times are of a machine as busy\n"
    ))
}

/// The rows, what they mean, and what to do.
pub(super) fn table(
    rows: &[Row],
    best: Option<&Row>,
    limits: &Limits,
    pipeline: &Pipeline,
    disk: Option<DiskSpeed>,
    instead: Option<&str>,
) -> String {
    let mut text = format!("{} on {}\n\n", pipeline.model().name, pipeline.device().name());
    text.push_str(
        "size        type  weights    offload  peak memory  not in files      a step   a picture\n",
    );
    rows.iter().for_each(|row| line(row, is_best(row, best), &mut text));
    text.push('\n');
    if rows.iter().any(|row| matches!(row.form, Form::Converted(_))) {
        text.push_str(
            "* weights that are quantized while they are loaded stay in memory; to stream them, save them first:\n  \
             inkstone convert MODEL -q FORMAT -o FOLDER, then draw with -m FOLDER\n",
        );
    }
    let stays = |row: &Row| row.form != Form::Stored && !row.forecast.made_in(Stage::Denoise).is_changed;
    if rows.iter().any(stays) {
        text.push_str("the transformer is quantized already: -q and convert leave it as stored, and its steps as fast\n");
    }
    if rows.iter().any(Row::reads) {
        let time =
            if disk.is_some() { "is in its time" } else { "is not in its time: that could not be measured" };
        let _ = writeln!(
            text,
            "+ memory does not hold a step's weights until the next one: each step reads them from the disk again, which\n  \
             {time}"
        );
    }
    text.push_str(
        "a picture is prompts, steps and decode; reading the weights for the first time, and rounding them with -q, is not in it\n",
    );
    if rows.iter().any(|row| row.seconds.is_none()) {
        text.push_str("- times that are not known: there is no memory to measure them in\n");
    }
    text.extend(busy(rows));
    if let Some(disk) = disk {
        let _ = writeln!(text, "disk: {} of weights a second", per_second(disk));
    }
    for limit in limits.known() {
        let _ = writeln!(text, "limit: {limit}");
    }
    if limits.known().next().is_none() {
        text.push_str("limit: none is known\n");
    }
    let _ = match (best, instead) {
        (Some(row), _) => writeln!(text, "best: {}\n{}", row.commands(), bottleneck(row, disk)),
        (None, Some(instead)) => writeln!(text, "best: nothing fits; what does: {instead}"),
        (None, None) => writeln!(text, "best: nothing fits, and no smaller --size does"),
    };
    if let Some((row, gain)) = best.and_then(|best| faster(rows, best, disk)) {
        let _ = writeln!(
            text,
            "faster: {}, {gain}; pictures are close to those of the best one, not the same",
            row.commands()
        );
    }
    text
}

fn line(row: &Row, is_best: bool, text: &mut String) {
    let plan = &row.forecast.memory;
    let mark = match (is_best, row.shortage.map(|shortage| shortage.limit.of)) {
        (true, _) => "  best",
        (false, None) => "",
        (false, Some(LimitOf::AddressSpace)) => "  does not fit (ulimit -v)",
        (false, Some(LimitOf::Data)) => "  does not fit (ulimit -d)",
        (false, Some(_)) => "  does not fit",
    };
    let weights = match row.form {
        Form::Stored => "as stored".to_owned(),
        Form::Loaded(q) => format!("-q {}", q.name()),
        Form::Converted(q) => format!("{} *", q.name()),
    };
    let reading = if row.fits() && row.reads() { " +" } else { "" };
    let time =
        |of: fn(Seconds) -> f64| row.seconds.map_or_else(|| "-".into(), |seconds| duration(of(seconds)));
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{:<11} {:<5} {weights:<10} {:<8} {:>11}  {:>12}  {:>10}  {:>10}{reading}{mark}",
        row.size.to_string(),
        row.dtype,
        row.offload.name(),
        gibibytes(plan.resident_bytes()),
        gibibytes(plan.anonymous_bytes()),
        time(|seconds| seconds.step_s),
        time(|seconds| seconds.picture_s),
    );
}

/// The fastest with smaller weights, of a folder too that is yet to be made, and what is gained by it, if that is worth naming.
pub(super) fn faster<'r>(rows: &'r [Row], best: &Row, disk: Option<DiskSpeed>) -> Option<(&'r Row, String)> {
    const WORTH: f64 = 1.2;
    let is_changed = |row: &Row| row.forecast.made_in(Stage::Denoise).is_changed;
    let same =
        |row: &&Row| row.fits() && row.size == best.size && row.form != Form::Stored && is_changed(row);
    let fastest = rows.iter().filter(same).min_by(|a, b| sooner(a, b, disk))?;
    if disk.is_none() && best.reads() && !fastest.reads() {
        return Some((fastest, "whose steps read nothing from the disk".into()));
    }
    let (ours, theirs) = best.seconds.zip(fastest.seconds)?;
    let factor = ours.step_s / theirs.step_s;
    (factor >= WORTH).then(|| (fastest, format!("{factor:.1} times as fast a step")))
}

/// What a step and the memory of a setting mostly are.
pub(super) fn bottleneck(row: &Row, disk: Option<DiskSpeed>) -> String {
    let stages = &row.forecast.memory.stages;
    let step = stages.iter().find(|s| s.stage == Stage::Denoise).map(|s| s.products).unwrap_or_default();
    let percent = |part: f64| format!("{:.0} %", 100.0 * part / step.total().max(1.0));
    let work = format!("matrix products are {}, attention {}", percent(step.linear), percent(step.attention));
    let time = match row.reread_bytes {
        Some(0) => format!("the processor's arithmetic; of a step's work {work}"),
        Some(bytes) => {
            let takes = disk.map(|disk| disk.seconds(bytes));
            let again = format!(
                "each step reads {} from the disk again{}, as memory does not hold it beside the rest",
                gibibytes(bytes),
                takes.map_or_else(String::new, |s| format!(" in {}", duration(s)))
            );
            match takes {
                Some(s) if row.seconds.is_some_and(|row| s <= row.compute_s) => {
                    format!("the processor's arithmetic, of which {work}; meanwhile {again}")
                }
                _ => {
                    let compute = row
                        .seconds
                        .map_or_else(|| "a time that is not known".into(), |s| duration(s.compute_s));
                    format!("reading: {again}; its arithmetic takes {compute}, of which {work}")
                }
            }
        }
        None => format!(
            "the processor's arithmetic, if memory holds the {} that a step reads; of its work {work}",
            gibibytes(row.forecast.step_weights_bytes as u64)
        ),
    };
    format!("time: {time}\nmemory: {}", largest(&row.forecast.memory))
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

/// A disk's speed as people read it.
fn per_second(disk: DiskSpeed) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "speeds are positive, and far below 2^64"
    )]
    let bytes = disk.bytes_a_second as u64;
    gibibytes(bytes)
}
