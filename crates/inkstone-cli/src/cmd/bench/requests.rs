//! Cases from standard input, so that a script can take turns with another program while both stay warm.

use std::collections::HashMap;
use std::io::{self, BufRead as _};

use inkstone::bench::{Bench, Case, ParseCaseError, Prepared};
use serde_json::json;

use super::too_large;
use crate::cmd::Session;
use crate::failure::{Failure, Result};

/// Asks for the register-only peaks.
const PEAKS: &str = "peaks";
/// Before a case: makes its weights and runs it once, without measuring.
const PREPARE: &str = "prepare ";

/// Answers every line with one event: a round of the case, or the peaks. A case stays ready until the end.
pub(super) fn serve(bench: &Bench, session: &Session) -> Result<()> {
    let mut ready: HashMap<Case, Prepared> = HashMap::new();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| Failure::read("standard input".as_ref(), &error))?;
        let name = line.trim();
        if name == PEAKS {
            let [f32, bf16, int8] = bench.peaks();
            let peaks = json!({ "f32": f32, "bf16": bf16, "int8": int8 });
            session.terminal.event(&json!({ "event": PEAKS, "peak_gflops": peaks }))?;
            continue;
        }
        let only_prepare = name.strip_prefix(PREPARE);
        let case: Case = only_prepare.unwrap_or(name).parse().map_err(|allowed: ParseCaseError| {
            let cure = format!("{PEAKS}, or a case, alone or behind '{PREPARE}'");
            Failure::usage(format!("cannot measure '{name}'"), format!("allowed is {allowed}"), cure)
        })?;
        let prepared = match ready.remove(&case) {
            Some(prepared) => prepared,
            None => bench.prepare(case).map_err(|error| too_large(case, error))?,
        };
        let prepared = ready.entry(case).or_insert(prepared);
        let mut event = json!({
            "event": if only_prepare.is_some() { "ready" } else { "round" },
            "case": case.to_string(), "dtype": bench.dtype(), "device": bench.device(),
        });
        if only_prepare.is_none() {
            event["round"] = json!(prepared.round().map_err(|error| too_large(case, error))?);
        }
        session.terminal.event(&event)?;
    }
    Ok(())
}
