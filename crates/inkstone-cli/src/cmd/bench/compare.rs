//! Figures of an earlier run.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use inkstone::bench::{Clock, Measurement};
use serde::Deserialize;

use crate::failure::{Failure, Result};

/// Differences below this are noise.
const NOISE: f64 = 0.03;
/// A file of figures is at most this large; those of all cases have 100 KB.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// How a file is made that times are compared with.
const COMPARED: &str = "inkstone bench --json > FILE";

/// What an earlier `bench --json` wrote, by case, type, device and clock.
#[derive(Debug)]
pub(super) struct Earlier(HashMap<Key, Measurement>);

type Key = (String, String, String, Clock);

fn key(m: &Measurement) -> Key {
    (m.case.clone(), m.dtype.clone(), m.device.clone(), m.clock)
}

/// A time against an earlier one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// How many times as fast as then.
    pub(super) ratio: f64,
    /// Whether the machine was busy then, in most of the runs.
    was_busy: bool,
}

#[derive(Deserialize)]
struct Event {
    measurement: Option<Measurement>,
}

impl Earlier {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        // A pipe is allowed: what another program picks from an earlier run.
        let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|error| Failure::read(path, &error))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let why = format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20);
            return Err(Failure::usage(format!("{} is too large", path.display()), why, COMPARED));
        }
        std::str::from_utf8(&bytes).ok().and_then(Self::parse).ok_or_else(|| {
            let what = format!("{} holds no measurements", path.display());
            Failure::usage(what, "each line should be an event of inkstone bench --json", COMPARED)
        })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut earlier = HashMap::new();
        for line in text.lines() {
            if let Some(m) = serde_json::from_str::<Event>(line).ok()?.measurement {
                earlier.insert(key(&m), m);
            }
        }
        (!earlier.is_empty()).then_some(Self(earlier))
    }

    /// `None` if the case was not measured then.
    pub(super) fn change(&self, now: &Measurement) -> Option<Change> {
        let then = self.0.get(&key(now))?;
        let was_busy = 2 * then.busy_rounds > then.rounds.len();
        Some(Change { ratio: then.seconds / now.seconds, was_busy })
    }
}

/// A change in words.
pub(super) fn verdict(change: Option<Change>) -> String {
    let Some(Change { ratio, was_busy }) = change else { return "not measured then".into() };
    let mut words = match ratio {
        ratio if (ratio - 1.0).abs() < NOISE => "as before".into(),
        ratio if ratio > 1.0 => format!("{ratio:.2}x as fast"),
        ratio => format!("{ratio:.2}x as fast: slower"),
    };
    if was_busy {
        words += ", but the machine was busy then";
    }
    words
}
