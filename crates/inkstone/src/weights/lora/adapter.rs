//! What PEFT notes beside the factors of a LoRA, LoKr or LoHa: alphas, and by what of the rank they are divided.
//!
//! # Source
//! peft 0.19, `LoraConfig`, `LoKrConfig`, `LoHaConfig` and `get_pattern_key`; diffusers 0.42.1 puts the same settings into the file's metadata,
//! with the component's name in front.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::error::LoraProblem;
use crate::weights::json;

/// Where diffusers notes the settings that a LoRA was trained with.
const METADATA: &str = "lora_adapter_metadata";
/// The names of the two files that PEFT writes.
const PEFT_FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_config.json"];

/// Settings of a LoRA.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Adapter {
    /// Of layers without one of their own.
    alpha: Option<f32>,
    /// Ends of layers' names, and their alphas.
    alphas: Vec<(String, f32)>,
    /// Whether alpha is divided by the root of the rank (rsLoRA).
    pub(super) by_root: bool,
    /// What a LoKr's alphas are divided by where its tensors do not say: of all layers, and by ends of their names.
    rank: Option<f32>,
    ranks: Vec<(String, f32)>,
}

impl Adapter {
    /// The settings in a file's metadata, or in PEFT's file beside it; none of both is usual.
    pub(super) fn of(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Result<Self, LoraProblem>> {
        if let Some(text) = metadata.get(METADATA) {
            let settings = serde_json::from_str(text);
            let settings = settings.map_err(|e| LoraProblem::Metadata { reason: e.to_string() });
            return Ok(settings.and_then(|settings| Self::read(&settings)));
        }
        let [weights, config] = PEFT_FILES;
        let config = path.with_file_name(config);
        if path.file_name().is_none_or(|name| name != weights) || !config.is_file() {
            return Ok(Ok(Self::default()));
        }
        let bytes = json::read_file(&config, json::CONFIG_LIMIT_BYTES)?;
        Ok(Self::read(&json::parse(&config, &bytes)?))
    }

    fn read(settings: &Value) -> Result<Self, LoraProblem> {
        let refuse = |reason: String| Err(LoraProblem::Metadata { reason });
        let setting = |name: &str| {
            let prefixed = settings.get(format!("transformer.{name}"));
            prefixed.or_else(|| settings.get(name)).filter(|value| !value.is_null())
        };
        let is_set = |name: &str| setting(name).is_some_and(|value| *value != Value::Bool(false));
        if is_set("use_dora") {
            return refuse("use_dora is set, and a DoRA is not supported".into());
        }
        let kind = setting("peft_type").and_then(Value::as_str);
        let is_lokr = kind == Some("LOKR");
        let number = |name: &str| setting(name).and_then(Value::as_f64).map(to_f32);
        let alpha = number(if is_lokr || kind == Some("LOHA") { "alpha" } else { "lora_alpha" });
        let by_root = is_set("use_rslora");
        if by_root && alpha.is_none() {
            return refuse("use_rslora is set without lora_alpha".into());
        }
        let alphas = patterns("alpha_pattern", setting("alpha_pattern"))?;
        // Of a LoRA or LoHa the tensors say the ranks.
        let ranks = setting("rank_pattern").filter(|_| is_lokr);
        let (rank, ranks) = (number("r").filter(|_| is_lokr), patterns("rank_pattern", ranks)?);
        Ok(Self { alpha, alphas, by_root, rank, ranks })
    }

    /// The alpha of a layer, if there is one.
    pub(super) fn alpha(&self, layer: &str) -> Result<Option<f32>, LoraProblem> {
        Ok(of_layer("alpha_pattern", &self.alphas, layer)?.or(self.alpha))
    }

    /// What a LoKr's alpha is divided by, if that is noted.
    pub(super) fn rank(&self, layer: &str) -> Result<Option<f32>, LoraProblem> {
        Ok(of_layer("rank_pattern", &self.ranks, layer)?.or(self.rank).filter(|rank| *rank > 0.0))
    }

    /// Whether there are alphas.
    pub(super) fn has_alphas(&self) -> bool {
        self.alpha.is_some() || !self.alphas.is_empty()
    }
}

/// Ends of names and their numbers.
fn patterns(setting: &str, stored: Option<&Value>) -> Result<Vec<(String, f32)>, LoraProblem> {
    let refuse = |reason: String| Err(LoraProblem::Metadata { reason });
    let mut numbers = Vec::new();
    for (end, number) in stored.and_then(Value::as_object).into_iter().flatten() {
        let Some(number) = number.as_f64() else {
            return refuse(format!("{setting} has {number} for {:?}", json::shown(end)));
        };
        if !end.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            let end = json::shown(end);
            return refuse(format!("{setting} has the pattern {end:?}; allowed are ends of names"));
        }
        numbers.push((end.clone(), to_f32(number)));
    }
    Ok(numbers)
}

/// The number of the pattern that a layer's name ends with.
fn of_layer(setting: &str, patterns: &[(String, f32)], layer: &str) -> Result<Option<f32>, LoraProblem> {
    let is_end =
        |end: &str| layer.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    let mut own = patterns.iter().filter(|(end, _)| is_end(end)).map(|(_, number)| *number);
    let first = own.next();
    // PEFT takes the first of them, an order that JSON objects do not have here.
    if own.any(|other| Some(other) != first) {
        let reason = format!("{setting} has more than one number for {layer}");
        return Err(LoraProblem::Metadata { reason });
    }
    Ok(first)
}

#[allow(clippy::cast_possible_truncation, reason = "checked like any other alpha")]
fn to_f32(alpha: f64) -> f32 {
    alpha as f32
}
