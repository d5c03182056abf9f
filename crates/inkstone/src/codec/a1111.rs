//! The text that AUTOMATIC1111's web UI stores: the prompt, the negative prompt, and a last line of settings.
//!
//! # Source
//! `create_infotext` and `parse_generation_parameters` of stable-diffusion-webui, as many programs read them.

use super::Metadata;

const NEGATIVE: &str = "Negative prompt: ";

/// The text for a picture.
pub(super) fn format(metadata: &Metadata) -> String {
    let mut lines = vec![metadata.prompt.clone().unwrap_or_default()];
    if let Some(negative) = &metadata.negative_prompt {
        lines.push(format!("{NEGATIVE}{negative}"));
    }
    let mut settings = Vec::new();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            settings.push(format!("{name}: {value}"));
        }
    };
    set("Steps", metadata.steps.map(|v| v.to_string()));
    set("Sampler", Some("Euler".into()));
    set("CFG scale", metadata.true_cfg_scale.map(|v| v.to_string()));
    set("Seed", metadata.seed.map(|v| v.to_string()));
    let size = metadata.width_px.zip(metadata.height_px);
    set("Size", size.map(|(w, h)| format!("{w}x{h}")));
    set("Model", metadata.model.as_deref().map(quoted));
    set("Denoising strength", metadata.strength.map(|v| v.to_string()));
    set("Version", metadata.version.as_ref().map(|v| format!("Inkstone {v}")));
    lines.push(settings.join(", "));
    lines.join("\n")
}

/// A value that could be mistaken for the next setting is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

/// Reads such a text. What is not understood is left out.
pub(super) fn parse(text: &str) -> Metadata {
    let text = text.trim();
    let (words, settings) = match text.rsplit_once('\n') {
        Some((words, last)) if last.starts_with("Steps: ") => (words, last),
        _ if text.starts_with("Steps: ") => ("", text),
        _ => (text, ""),
    };
    let mut metadata = Metadata::default();
    let (prompt, negative) = match words.strip_prefix(NEGATIVE) {
        Some(negative) => ("", Some(negative)),
        None => match words.split_once(&format!("\n{NEGATIVE}")) {
            Some((prompt, negative)) => (prompt, Some(negative)),
            None => (words, None),
        },
    };
    metadata.prompt = Some(prompt.to_owned());
    metadata.negative_prompt = negative.map(str::to_owned);
    for (name, value) in Settings(settings) {
        let number = || value.parse::<f32>().ok().filter(|v| v.is_finite());
        match name {
            "Steps" => metadata.steps = value.parse().ok(),
            "CFG scale" => metadata.true_cfg_scale = number(),
            "Seed" => metadata.seed = value.parse().ok(),
            "Denoising strength" => metadata.strength = number(),
            "Model" => metadata.model = Some(value),
            "Size" => {
                let sides = value.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
                (metadata.width_px, metadata.height_px) = sides.unzip();
            }
            _ => {}
        }
    }
    metadata
}

/// Walks over `name: value, name: "quoted, value", ...`.
struct Settings<'a>(&'a str);

impl<'a> Iterator for Settings<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = self.0.split_once(": ")?;
        let (value, rest) = match end_of_quoted(rest) {
            Some(end) => {
                let value = serde_json::from_str(&rest[..end]).unwrap_or_else(|_| rest[..end].to_owned());
                (value, rest[end..].strip_prefix(", ").unwrap_or(""))
            }
            None => {
                let (value, rest) = rest.split_once(", ").unwrap_or((rest, ""));
                (value.to_owned(), rest)
            }
        };
        self.0 = rest;
        Some((name.trim(), value))
    }
}

/// Where a JSON string that starts a text ends.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if i == 0 => {}
            _ if i == 0 => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(i + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
