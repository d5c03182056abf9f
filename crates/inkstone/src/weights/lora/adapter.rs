//! What PEFT notes beside a LoRA's factors: alphas, and by what of the rank they are divided.
//!
//! # Source
//! peft 0.19, `LoraConfig` and `get_pattern_key`; diffusers 0.42.1 puts the same settings into the file's metadata,
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
        let alpha = setting("lora_alpha").and_then(Value::as_f64).map(to_f32);
        let by_root = is_set("use_rslora");
        if by_root && alpha.is_none() {
            return refuse("use_rslora is set without lora_alpha".into());
        }
        let mut alphas = Vec::new();
        for (end, alpha) in setting("alpha_pattern").and_then(Value::as_object).into_iter().flatten() {
            let Some(alpha) = alpha.as_f64() else {
                return refuse(format!("alpha_pattern has {alpha} for {:?}", json::shown(end)));
            };
            if !end.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
                let end = json::shown(end);
                return refuse(format!("alpha_pattern has the pattern {end:?}; allowed are ends of names"));
            }
            alphas.push((end.clone(), to_f32(alpha)));
        }
        Ok(Self { alpha, alphas, by_root })
    }

    /// The alpha of a layer, if there is one.
    pub(super) fn alpha(&self, layer: &str) -> Result<Option<f32>, LoraProblem> {
        let is_end = |end: &str| {
            layer.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let mut own = self.alphas.iter().filter(|(end, _)| is_end(end)).map(|(_, alpha)| *alpha);
        let first = own.next();
        // PEFT takes the first of them, an order that JSON objects do not have here.
        if own.any(|other| Some(other) != first) {
            let reason = format!("alpha_pattern has more than one alpha for {layer}");
            return Err(LoraProblem::Metadata { reason });
        }
        Ok(first.or(self.alpha))
    }

    /// Whether there are alphas.
    pub(super) fn has_alphas(&self) -> bool {
        self.alpha.is_some() || !self.alphas.is_empty()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "checked like any other alpha")]
fn to_f32(alpha: f64) -> f32 {
    alpha as f32
}
