//! Figures of an earlier run.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use inkstone::bench::Measurement;
use serde::Deserialize;

use crate::failure::{Failure, Result};

/// Differences below this are noise.
const NOISE: f64 = 0.03;

/// What an earlier `bench --json` wrote, by case, type and device.
#[derive(Debug)]
pub(super) struct Earlier(HashMap<(String, String, String), f64>);

#[derive(Deserialize)]
struct Event {
    measurement: Option<Measurement>,
}

impl Earlier {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| Failure::read(path, &error))?;
        Self::parse(&text).ok_or_else(|| {
            let what = format!("{} holds no measurements", path.display());
            Failure::usage(
                what,
                "each line should be an event of inkstone bench --json",
                "inkstone bench --json > FILE",
            )
        })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut seconds = HashMap::new();
        for line in text.lines() {
            if let Some(m) = serde_json::from_str::<Event>(line).ok()?.measurement {
                seconds.insert((m.case, m.dtype, m.device), m.seconds);
            }
        }
        (!seconds.is_empty()).then_some(Self(seconds))
    }

    /// How many times as fast as then; `None` if the case was not measured then.
    pub(super) fn ratio(&self, now: &Measurement) -> Option<f64> {
        let key = (now.case.clone(), now.dtype.clone(), now.device.clone());
        Some(self.0.get(&key)? / now.seconds)
    }
}

/// A ratio in words.
pub(super) fn verdict(ratio: f64) -> String {
    if (ratio - 1.0).abs() < NOISE {
        "as before".into()
    } else if ratio > 1.0 {
        format!("{ratio:.2}x as fast")
    } else {
        format!("{ratio:.2}x as fast: slower")
    }
}
