//! `convert`: a folder of a model with its weights in a smaller format, or with LoRAs in them.

use std::time::Instant;

use inkstone::Error;
use inkstone::codec::LoraRecord;
use inkstone::convert::{self, ComponentReport, Existing, Options, Report};
use inkstone::weights::{LayerFormat, Quantization};
use inkstone_tensor::Error as TensorError;
use serde_json::json;

use super::Session;
use crate::args::{Bytes, Convert, Quantize, Threads};
use crate::drawing::{self, lora_source};
use crate::failure::{Failure, Result, printable};
use crate::progress::{Progress, duration};

/// Layers that the report names: those that lost most.
const WORST: usize = 10;

pub(super) fn run(args: &Convert, session: &Session) -> Result<()> {
    let begun = Instant::now();
    let cancel = session.interrupt.arm();
    let mut progress = Progress::new(&session.terminal, cancel.clone());
    let options = Options {
        quantization: args.quantize.map(Quantize::quantization),
        loras: args.lora.iter().map(|arg| lora_source(arg, None)).collect(),
        existing: if args.overwrite { Existing::Replace } else { Existing::Refuse },
        threads: args.threads.or(session.config.settings.threads).map(|Threads(n)| n),
        max_memory_bytes: args.max_memory.or(session.config.settings.max_memory).map(|Bytes(bytes)| bytes),
    };
    let source = drawing::source(args.model.as_ref(), &args.parts);
    let result = convert::convert(&source, &args.output, &options, &cancel, &mut progress);
    session.interrupt.disarm();
    if let Some(failure) = progress.failed.take() {
        return Err(failure);
    }
    let report = result.map_err(|error| failure(error, args))?;
    if session.terminal.json() {
        return session.terminal.event(&event(&report, begun.elapsed().as_secs_f64()));
    }
    session.terminal.note(&table(&report));
    session.terminal.note(&format!("done in {}", duration(begun.elapsed().as_secs_f64())));
    session.terminal.path(&report.folder)
}

/// The error, with what to do about it in this command.
fn failure(error: Error, args: &Convert) -> Failure {
    match &error {
        Error::ModelNotFound { .. } => {
            Failure::from(error).with_cure("name the folder or file of a model that is there")
        }
        Error::AlreadyQuantized { .. } if args.quantize.is_none() => Failure::from(error).with_cure(
            "draw with --lora, or put it into the model as it was published, before it is quantized",
        ),
        Error::InvalidParam { param: "quantize", .. } => {
            Failure::from(error).with_cure("say what to do: -q int8, q8 or q4, or --lora FILE, or both")
        }
        Error::MissingParts { .. } => Failure::from(error).with_cure(
            "add what is missing with --transformer, --text-encoder or --vae, or name the folder of a whole model",
        ),
        Error::InsufficientMemory { .. } => {
            Failure::from(error).with_what("the conversion does not fit into memory")
        }
        // Nothing is drawn that could be smaller.
        Error::Tensor(TensorError::OutOfMemory { .. }) => {
            Failure::from(error).with_cure("close other programs, or give it more memory where ulimit or a container limits it")
        }
        _ => error.into(),
    }
}

/// Sizes of the components, what layers lost, and which stay as they were.
fn table(report: &Report) -> String {
    let mut lines = vec!["component       before        after   layers   smaller".to_owned()];
    let row = |name: &str, [before, after]: [u64; 2], [layers, smaller]: [usize; 2]| {
        format!("{name:12} {:>9}    {:>9} {layers:>8} {smaller:>9}", megabytes(before), megabytes(after))
    };
    let mut total = [[0; 2], [report.copied_bytes; 2]];
    for part in &report.components {
        let sizes = [part.before_bytes, part.after_bytes];
        let smaller = part.layers.iter().filter(|layer| layer.format.is_smaller()).count();
        lines.push(row(part.component.name(), sizes, [part.layers.len(), smaller]));
        total[0] = [total[0][0] + sizes[0], total[0][1] + sizes[1]];
    }
    let [sizes, copied] = total;
    lines.push(row("all files", [sizes[0] + copied[0], sizes[1] + copied[1]], counts(report)));
    let merged: usize = report.components.iter().map(|part| part.merged_layers).sum();
    let copied = |part: &ComponentReport| {
        let format = part.copied_as.as_ref()?;
        Some(format!("the {} is quantized already ({format}): copied", part.component.name()))
    };
    lines.extend(report.components.iter().filter_map(copied));
    let lora =
        |lora: &LoraRecord| format!("  {} = {}: in {merged} layers", printable(&lora.name), lora.scale);
    lines.extend(report.loras.iter().map(lora));
    let lost = lost(report);
    if let Some((_, median)) = lost.get(lost.len() / 2) {
        lines.push(format!("lost, relative to the weights: median {}; most:", percent(*median)));
    }
    lines.extend(lost.iter().take(WORST).map(|(layer, lost)| format!("  {} {layer}", percent(*lost))));
    let kept = report.components.iter().flat_map(|part| &part.layers);
    let kept: Vec<&LayerFormat> = kept.filter(|layer| !layer.format.is_smaller()).collect();
    if !kept.is_empty() {
        lines.push(format!("{} layers are as they were:", kept.len()));
    }
    lines.extend(kept.iter().map(|layer| format!("  {}: {}", layer.name, layer.format)));
    lines.join("\n")
}

fn counts(report: &Report) -> [usize; 2] {
    let layers = || report.components.iter().flat_map(|part| &part.layers);
    [layers().count(), layers().filter(|layer| layer.format.is_smaller()).count()]
}

/// Layers that are smaller and what they lost, the worst first.
fn lost(report: &Report) -> Vec<(&str, f64)> {
    let layers = report.components.iter().flat_map(|part| &part.layers);
    let smaller = layers.filter(|layer| layer.format.is_smaller());
    let mut lost: Vec<(&str, f64)> =
        smaller.filter_map(|layer| Some((layer.name.as_str(), layer.format.lost()?))).collect();
    lost.sort_by(|a, b| b.1.total_cmp(&a.1));
    lost
}

fn event(report: &Report, seconds: f64) -> serde_json::Value {
    let part = |part: &ComponentReport| {
        let layers = part.layers.iter().map(|layer| {
            json!({"name": layer.name, "smaller": layer.format.is_smaller(), "lost": layer.format.lost(),
                "format": layer.format.to_string()})
        });
        let sources = part
            .sources
            .iter()
            .map(|file| json!({"name": file.name, "bytes": file.bytes, "sha256": file.sha256}));
        json!({
            "component": part.component.name(), "before_bytes": part.before_bytes,
            "after_bytes": part.after_bytes, "merged_layers": part.merged_layers,
            "copied_as": part.copied_as, "layers": layers.collect::<Vec<_>>(),
            "sources": sources.collect::<Vec<_>>(),
        })
    };
    let lost = lost(report);
    json!({
        "event": "converted", "path": report.folder.to_string_lossy(), "quantize": report.quantization.map(Quantization::name),
        "loras": report.loras,
        "seconds": seconds, "copied_bytes": report.copied_bytes,
        "median_lost": lost.get(lost.len() / 2).map(|(_, lost)| lost),
        "components": report.components.iter().map(part).collect::<Vec<_>>(),
    })
}

fn percent(part: f64) -> String {
    format!("{:6.3} %", 100.0 * part)
}

fn megabytes(bytes: u64) -> String {
    /// Tenths of a megabyte.
    const TENTH: u64 = 100_000;
    let tenths = bytes.div_ceil(TENTH);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}
