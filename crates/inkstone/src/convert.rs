//! Saves a model in a smaller format or with LoRAs in its weights: a folder that loads like any other and draws the same
//! pictures as the model does when it is quantized while it is loaded, or drawn with its LoRAs beside it.
//!
//! The model may lie in a folder, in files of their own, or in the program. One layer is in memory at a time. The folder
//! appears under its name when all of it is on the disk.

mod part;
mod place;
mod sources;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use inkstone_tensor::{Device, cpu, free_disk_bytes};

use crate::codec::LoraRecord;
use crate::memory::{self, Limits, Usage};
use crate::progress::{CancelToken, Observer, Stage};
use crate::weights::lora::{self, Applied, LoraSource};
use crate::weights::{Component, LayerFormat, ModelFiles, ModelSource, Quantization, ReadOptions, Rule};
use crate::{Error, Result};

use part::Part;
pub use place::Existing;
use place::Place;
use sources::Others;
pub use sources::Source;

/// How to convert a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format that layers are brought into; `None` leaves them as they are stored.
    pub quantization: Option<Quantization>,
    /// LoRAs that become part of the weights, before these are quantized.
    pub loras: Vec<LoraSource>,
    /// What happens to a folder that is there.
    pub existing: Existing,
    /// Number of threads; `None` for one a core.
    pub threads: Option<usize>,
    /// The most memory that the process may take, in bytes; `None` for what is free.
    pub max_memory_bytes: Option<u64>,
}

/// What a conversion did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The new folder.
    pub folder: PathBuf,
    /// The format.
    pub quantization: Option<Quantization>,
    /// The LoRAs that are in the weights.
    pub loras: Vec<LoraRecord>,
    /// In the order of [`Component::ALL`].
    pub components: Vec<ComponentReport>,
    /// Bytes of configs, tokenizer and the like.
    pub copied_bytes: u64,
}

/// What became of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentReport {
    /// Which one.
    pub component: Component,
    /// Bytes of its weights on disk before.
    pub before_bytes: u64,
    /// And now.
    pub after_bytes: u64,
    /// Its linear layers, in the order of their names; of the VAE the convolutions, if they may become products of bytes.
    pub layers: Vec<LayerFormat>,
    /// How many layers LoRAs were put into.
    pub merged_layers: usize,
    /// The format that it was in already, so that its files were copied.
    pub copied_as: Option<String>,
    /// The files that it was made from.
    pub sources: Vec<Source>,
}

/// Converts a model. A part that is quantized already is copied as it is, if no LoRA is to be put into it.
///
/// # Memory
/// One layer: as stored, in f32 where a LoRA is put into it or it is in 8-bit floats, and as written. Files are mapped, and
/// count in full where address space is limited. All of it is compared with the limits before anything is written.
///
/// # Errors
/// Nothing to do; a LoRA that does not fit; a source that is no whole model, that is quantized already, in part where a LoRA
/// should go, that has nothing to quantize or values that are not finite; a place that is taken or too small; an interruption. Whatever
/// happens, nothing but a whole folder has the name `to`.
pub fn convert(
    source: &ModelSource,
    to: &Path,
    options: &Options,
    cancel: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Report> {
    let quantization = options.quantization;
    if quantization.is_none() && options.loras.is_empty() {
        let (got, allowed) = ("nothing".into(), "a format, or LoRAs to merge".into());
        return Err(Error::InvalidParam { param: "quantize", got, allowed });
    }
    let device = Device::cpu(&cpu::Options { threads: options.threads, isa: None })?;
    let files = ModelFiles::open(source, ReadOptions::default())?;
    if files.is_random() {
        let (got, allowed) = ("random weights".into(), "a model that is there".into());
        return Err(Error::InvalidParam { param: "model", got, allowed });
    }
    let place = Place::find(to, &files.places(), options.existing)?;
    let limits = Limits::now(options.max_memory_bytes);
    // Mapping the files takes address space before anything can be counted.
    let mapped_bytes = memory::opening_space_bytes(Usage::now().address_space_bytes, files.weight_bytes()?);
    limits.check_needs([0, mapped_bytes, 0])?;
    let loras = lora::open_all(&options.loras, &device, &limits)?;
    let parts = Component::ALL
        .into_iter()
        .map(|component| Part::open(&files, component, quantization, &device, &loras))
        .collect::<Result<Vec<_>>>()?;
    if quantization.is_some() && parts.iter().all(Part::has_no_layers) {
        let transformer_first = parts.iter().rev().filter(|part| part.component != Component::Vae);
        let already = transformer_first.chain(&parts).find_map(Part::already_quantized);
        return Err(already.unwrap_or_else(|| Error::NothingToQuantize { path: files.root().to_owned() }));
    }
    let others = Others::of(&files)?;
    let rule = quantization.map(Rule::from);
    let mapped_bytes = mapped_bytes + lora::memory_bytes(&loras);
    check_layers(&parts, rule, mapped_bytes, &limits)?;
    let weights_bytes = parts.iter().map(|part| part.needed_bytes(rule)).sum::<Result<u64>>()?;
    let needed_bytes = weights_bytes + others.bytes();
    if let Some(free_bytes) = free_disk_bytes(place.parent()).filter(|free| *free < needed_bytes) {
        return Err(Error::DiskFull { path: place.parent().to_owned(), needed_bytes, free_bytes });
    }

    let records: Vec<LoraRecord> = loras.iter().map(LoraRecord::of).collect::<Result<_>>()?;
    let folder = place.begin()?;
    observer.begin(Stage::Convert, parts.iter().map(Part::steps).sum());
    let mut run = Run { quantization, loras: &records, cancel, observer, done: 0, hashed: HashMap::new() };
    let components = parts
        .into_iter()
        .map(|part| part.save(&files, folder.path(), &mut run))
        .collect::<Result<Vec<_>>>()?;
    others.write(folder.path(), cancel)?;
    if lora::distilled_steps(&loras).is_some() {
        sources::write_lightning_schedule(&files, folder.path())?;
    }
    folder.publish()?;
    run.observer.end(Stage::Convert);
    let copied_bytes = others.bytes();
    Ok(Report { folder: to.to_owned(), quantization, loras: records, components, copied_bytes })
}

/// Whether the largest layer fits beside what the process has; `mapped_bytes` is the address space that it has or will have.
fn check_layers(parts: &[Part], rule: Option<Rule>, mapped_bytes: u64, limits: &Limits) -> Result<()> {
    let most = |bytes: fn(&Part, Option<Rule>) -> u64| parts.iter().map(|part| bytes(part, rule)).max();
    let layer_bytes = most(Part::layer_bytes).unwrap_or(0);
    let resident_bytes = most(Part::resident_bytes).unwrap_or(0);
    let now = Usage::now();
    limits.check_needs([
        memory::with_reserve(now.resident_bytes, resident_bytes),
        now.address_space_bytes.max(mapped_bytes) + layer_bytes,
        now.data_bytes + layer_bytes,
    ])
}

/// What putting LoRAs into a model takes in memory: they, and one layer.
///
/// # Errors
/// A transformer that they cannot be put into.
pub(crate) fn merging_bytes(files: &ModelFiles, device: &Device, loras: &[Applied]) -> Result<u64> {
    let part = Part::open(files, Component::Transformer, None, device, loras)?;
    Ok(lora::memory_bytes(loras) + part.layer_bytes(None))
}

/// What every step has at hand.
struct Run<'a> {
    quantization: Option<Quantization>,
    loras: &'a [LoraRecord],
    cancel: &'a CancelToken,
    observer: &'a mut dyn Observer,
    done: usize,
    /// Files that were read through: one may hold several components.
    hashed: HashMap<PathBuf, Source>,
}

impl Run<'_> {
    fn step(&mut self) -> Result<()> {
        self.done += 1;
        self.observer.advance(Stage::Convert, self.done);
        self.cancel.check()
    }
}
