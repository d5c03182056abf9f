//! An open model and the way of its pictures to the disk.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use inkstone::codec::{LoraRecord, Metadata};
use inkstone::memory::Limits;
use inkstone::pipeline::{ModelInfo, Planned};
use inkstone::progress::CancelToken;
use inkstone::request::{DEFAULT_STRENGTH, InitImage, Size};
use inkstone::weights::lora::{Applied, LoraSource};
use inkstone::weights::{LayerFormat, ModelSource, Quantization};
use inkstone::{Offload, OpenOptions, Picture, Pipeline, Precision, Request};

use crate::args::{Bytes, Dtype, How, InitArg, LoraArg, MetadataPlace, Parts, Quantize, Threads, Tiling};
use crate::cmd::Session;
use crate::failure::Result;
use crate::output::{self, Apart, Existing, Fields, Template};
use crate::record;
use crate::saving::{Finishing, Saving};
use crate::terminal::Level;

/// Names of the model inside the program.
const EMBEDDED_NAMES: &[&str] = &["tiny", "inkstone-tiny"];

/// An open model with the flags that say how to draw.
#[derive(Debug)]
pub(crate) struct Drawing<'a> {
    session: &'a Session,
    how: &'a How,
    pipeline: Pipeline,
    /// The arithmetic in use.
    dtype: &'static str,
    quantization: Option<Quantization>,
    metadata: MetadataPlace,
}

impl<'a> Drawing<'a> {
    /// Opens the model that the flags or settings name.
    ///
    /// A stored request decides about the arithmetic and the format of weights, without which its pixels would be
    /// others, and about nothing that is a path.
    pub(crate) fn open(session: &'a Session, how: &'a How, stored: Option<&Metadata>) -> Result<Self> {
        let settings = &session.config.settings;
        let stored_dtype =
            stored.and_then(|s| s.dtype.as_deref()).and_then(|d| Dtype::from_str(d, false).ok());
        let precision = match how.dtype.or(stored_dtype).or(settings.dtype).unwrap_or_default() {
            Dtype::Auto => Precision::Auto,
            Dtype::Bf16 => Precision::Bf16,
            Dtype::F32 => Precision::F32,
        };
        let threads = how.threads.or(settings.threads).map(|Threads(n)| n);
        let source = source(how.model.as_ref().or(settings.model.as_ref()), &how.parts);
        // Settings say how new pictures are drawn; a stored one without a format was drawn without.
        let quantize = how.quantize.or_else(|| match stored {
            Some(stored) => stored.quantize.as_deref().and_then(|q| Quantize::from_str(q, false).ok()),
            None => settings.quantize,
        });
        let quantization = quantize.map(Quantize::quantization);
        let options = OpenOptions {
            threads,
            precision,
            quantization,
            max_memory_bytes: max_memory_bytes(session, how),
            offload: how.offload.or(settings.offload).unwrap_or_default().into(),
            vae_tiling: how
                .vae_tiling
                .or(settings.vae_tiling)
                .map(|Tiling(tiling)| tiling)
                .unwrap_or_default(),
            loras: how.lora.iter().map(|arg| lora_source(arg, stored)).collect(),
            ..OpenOptions::default()
        };
        if let (Some(quantization), Offload::Stream) = (quantization, options.offload) {
            let name = quantization.name();
            session.terminal.warn(&format!(
                "weights that -q {name} makes while it loads stay in memory; to stream them, save them first: \
                 inkstone convert MODEL -q {name} -o FOLDER"
            ));
        }
        let pipeline = Pipeline::open(&source, &options)?;
        let metadata = how.metadata.or(settings.metadata).unwrap_or_default();
        let bf16 = match precision {
            Precision::Auto => pipeline.device().multiplies_bf16(),
            Precision::F32 => false,
            Precision::Bf16 => true,
        };
        Ok(Self { session, how, pipeline, dtype: if bf16 { "bf16" } else { "f32" }, quantization, metadata })
    }

    pub(crate) fn model(&self) -> &ModelInfo {
        self.pipeline.model()
    }

    /// What drawing requests will take, batch by batch, and whether it fits.
    pub(crate) fn forecast(&self, requests: &[Request]) -> Result<Vec<Planned>> {
        Ok(self.pipeline.forecast(requests)?)
    }

    /// The LoRAs that draw.
    pub(crate) fn loras(&self) -> &[Applied] {
        self.pipeline.loras()
    }

    /// What a picture records of them. Their files are read for it.
    pub(crate) fn lora_records(&self) -> Result<Vec<LoraRecord>> {
        Ok(self.loras().iter().map(LoraRecord::of).collect::<inkstone::Result<_>>()?)
    }

    /// The paths that pictures of these requests get, if nothing of their name is there.
    pub(crate) fn paths(&self, requests: &[Request]) -> Result<Vec<PathBuf>> {
        let setting = self.session.config.settings.output.as_deref().map(AsRef::as_ref);
        let template = Template::new(self.how.output.as_deref().or(setting), Apart::of(requests))?;
        let model = &self.model().name;
        let path =
            |(i, request): (usize, &Request)| template.path(Fields { seed: request.seed, n: i + 1, model });
        requests.iter().enumerate().map(path).collect()
    }

    /// Draws the pictures, as many at a time as fit and gain by it; each is saved and named when it is finished.
    pub(crate) fn save(&mut self, requests: &[Request], paths: &[PathBuf]) -> Result<()> {
        self.run(requests, paths, |pipeline, cancel, finishing| {
            pipeline.draw_each(requests, cancel, finishing)
        })
    }

    /// [`Self::save`], and the pictures for who needs them further.
    pub(crate) fn draw(&mut self, requests: &[Request], paths: &[PathBuf]) -> Result<Vec<Picture>> {
        self.run(requests, paths, |pipeline, cancel, finishing| pipeline.draw(requests, cancel, finishing))
    }

    fn run<T>(
        &mut self,
        requests: &[Request],
        paths: &[PathBuf],
        draw: impl FnOnce(&mut Pipeline, &CancelToken, &mut Finishing<'_>) -> inkstone::Result<T>,
    ) -> Result<T> {
        paths.iter().try_for_each(|path| output::check_place(path))?;
        // What cannot be recorded is told before anything is drawn. LoRAs are recorded as they were read.
        if !self.loras().is_empty() {
            self.pipeline.prepare(requests)?;
        }
        let saving = self.saving()?;
        let cancel = self.session.interrupt.arm();
        let mut finishing = Finishing::new(&saving, paths, cancel.clone());
        let drawn = draw(&mut self.pipeline, &cancel, &mut finishing);
        self.session.interrupt.disarm();
        finishing.end()?;
        let drawn = drawn?;
        let terminal = &self.session.terminal;
        if terminal.level >= Level::Verbose {
            formats(self.quantization, self.pipeline.layer_formats())
                .iter()
                .for_each(|line| terminal.note(line));
        }
        Ok(drawn)
    }

    fn saving(&self) -> Result<Saving<'a>> {
        let settings = &self.session.config.settings;
        let overwrite = self.how.overwrite || settings.overwrite == Some(true);
        Ok(Saving {
            terminal: &self.session.terminal,
            existing: if overwrite { Existing::Replace } else { Existing::Number },
            place: self.metadata,
            common: Metadata {
                dtype: Some(self.dtype.to_owned()),
                quantize: self.quantization.map(|q| q.name().to_owned()),
                loras: self.lora_records()?,
                // Without the folders of this machine.
                image: self
                    .how
                    .image
                    .first()
                    .and_then(|arg| arg.path.file_name())
                    .map(|n| n.to_string_lossy().into()),
                ..Metadata::default()
            },
            model: self.model().name.clone(),
            device: self.pipeline.device().name(),
        })
    }
}

/// How many layers got a smaller format, and each that did not.
fn formats(quantization: Option<Quantization>, layers: &[LayerFormat]) -> Vec<String> {
    let (smaller, kept): (Vec<_>, Vec<_>) = layers.iter().partition(|layer| layer.format.is_smaller());
    let mut lines = Vec::new();
    if let Some(quantization) = quantization.filter(|_| !layers.is_empty()) {
        let name = quantization.name();
        lines.push(format!("{name}: {} of {} layers", smaller.len(), layers.len()));
    }
    lines.extend(kept.iter().map(|layer| format!("  {}: {}", layer.name, layer.format)));
    lines
}

/// The model of this name, folder or file, with weights in place of its own; without one these weights alone, or the model
/// inside the program.
pub(crate) fn source(model: Option<&PathBuf>, parts: &Parts) -> ModelSource {
    match model {
        Some(path) if EMBEDDED_NAMES.iter().all(|name| path.as_os_str() != *name) => {
            ModelSource::Pieces { folder: path.clone(), parts: parts.weights() }
        }
        _ if *parts != Parts::default() => ModelSource::Files(parts.weights()),
        _ => ModelSource::Embedded,
    }
}

/// A LoRA with the scale that was typed, or that a stored request has for a file of this name.
pub(crate) fn lora_source(arg: &LoraArg, stored: Option<&Metadata>) -> LoraSource {
    let name = arg.path.file_name().map(|name| name.to_string_lossy());
    let same = |record: &&LoraRecord| Some(record.name.as_str()) == name.as_deref();
    let noted = stored.and_then(|stored| stored.loras.iter().find(same)).map(|record| record.scale);
    LoraSource { path: arg.path.clone(), scale: arg.scale.or(noted).unwrap_or(1.0) }
}

/// How much the flags or settings allow.
fn max_memory_bytes(session: &Session, how: &How) -> Option<u64> {
    how.max_memory.or(session.config.settings.max_memory).map(|Bytes(bytes)| bytes)
}

/// A picture to start from: its file, before the size is known that it is needed in.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    path: &'a Path,
    file: Vec<u8>,
    strength: f32,
    max_memory_bytes: Option<u64>,
}

impl<'a> Start<'a> {
    pub(crate) fn read(
        arg: &'a InitArg,
        stored_strength: Option<f32>,
        how: &How,
        session: &Session,
    ) -> Result<Self> {
        let max_memory_bytes = max_memory_bytes(session, how);
        let file = record::read(&arg.path, &Limits::now(max_memory_bytes))?;
        let strength = arg.strength.or(stored_strength).unwrap_or(DEFAULT_STRENGTH);
        Ok(Self { path: &arg.path, file, strength, max_memory_bytes })
    }

    /// The picture in the size that is drawn, which is all of it that stays in memory.
    pub(crate) fn sized(self, size: Size) -> Result<InitImage> {
        let limits = Limits::now(self.max_memory_bytes);
        let pixels = record::resized(self.path, &self.file, size, &limits)?;
        Ok(InitImage { pixels: pixels.into(), strength: self.strength })
    }
}
