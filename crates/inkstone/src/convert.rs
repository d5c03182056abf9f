//! Saves a model in a smaller format or with LoRAs in its weights: a folder that loads like any other and draws the same
//! pictures as the model does when it is quantized while it is loaded, or drawn with its LoRAs beside it.
//!
//! One layer is in memory at a time. The folder appears under its name when all of it is on the disk.

mod place;
mod sources;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use inkstone_tensor::{DType, Device, Pages, Tensor, Weight, cpu, free_disk_bytes};
use serde_json::json;

use crate::codec::LoraRecord;
use crate::error::Found;
use crate::models::qwen_image::{self, Transformer};
use crate::models::qwen_vae::{self, Vae};
use crate::models::qwen25_vl::{self, TextEncoder};
use crate::progress::{CancelToken, Observer, Stage};
use crate::weights::lora::{self, Applied, LoraSource, Pending};
use crate::weights::safetensors::{ALIGN_BYTES, SafeTensors, Writer};
use crate::weights::{
    Component, ConvShape, LayerFormat, Loader, MODEL_INDEX, ModelFiles, ModelSource, Order, Quantization,
    ReadOptions, Rule, Stored, scan, tap_major,
};
use crate::{Error, Result};

pub use place::Existing;
use place::Place;
pub use sources::Source;

/// What the metadata of a converted file begins with.
const KEY: &str = "inkstone";

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
    /// Bytes of configs, tokenizer and the like, which were copied.
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
    /// The files that it was made from.
    pub sources: Vec<Source>,
}

/// Converts a model's folder.
///
/// # Memory
/// One layer: as stored, in f32 where a LoRA is put into it, and as written.
///
/// # Errors
/// Nothing to do; a LoRA that does not fit; a source that is no whole model, is quantized already, has nothing to quantize or values that are not finite; a
/// place that is taken or too small; an interruption. Whatever happens, nothing but a whole folder has the name `to`.
pub fn convert(
    source: &Path,
    to: &Path,
    options: &Options,
    cancel: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Report> {
    if options.quantization.is_none() && options.loras.is_empty() {
        let (got, allowed) = ("nothing".into(), "a format, or LoRAs to merge".into());
        return Err(Error::InvalidParam { param: "quantize", got, allowed });
    }
    let device = Device::cpu(&cpu::Options { threads: options.threads, isa: None })?;
    let files = ModelFiles::open(&ModelSource::Folder(source.to_owned()), ReadOptions::default())?;
    if files.find(MODEL_INDEX)?.is_none() {
        // The new folder would have none either, and weights of which some were changed do not tell their configs.
        return Err(Error::MissingFile { path: files.root().join(MODEL_INDEX) });
    }
    let place = Place::find(to, files.root(), options.existing)?;
    let loras = lora::open_all(&options.loras, &device)?;
    let parts = Component::ALL
        .into_iter()
        .map(|component| Part::open(&files, component, options.quantization, &device, &loras))
        .collect::<Result<Vec<_>>>()?;
    if options.quantization.is_some() && parts.iter().all(|part| part.layers.is_empty()) {
        return Err(Error::NothingToQuantize { path: source.to_owned() });
    }
    let others = sources::others(&files)?;
    let needed =
        parts.iter().map(|part| part.needed_bytes(options.quantization.map(Rule::from))).sum::<u64>();
    let needed_bytes = needed + others.iter().map(|(_, bytes)| bytes).sum::<u64>();
    if let Some(free_bytes) = free_disk_bytes(place.parent()).filter(|free| *free < needed_bytes) {
        return Err(Error::DiskFull { path: place.parent().to_owned(), needed_bytes, free_bytes });
    }

    let records: Vec<LoraRecord> = loras.iter().map(LoraRecord::of).collect();
    let folder = place.begin()?;
    observer.begin(Stage::Convert, parts.iter().map(Part::steps).sum());
    let mut run = Run { quantization: options.quantization, loras: &records, cancel, observer, done: 0 };
    let components = parts
        .into_iter()
        .map(|part| part.write(&files, folder.path(), &mut run))
        .collect::<Result<Vec<_>>>()?;
    sources::copy(&files, &others, folder.path())?;
    if loras.iter().any(|applied| applied.lora.lightning_steps().is_some()) {
        sources::write_lightning_schedule(&files, folder.path())?;
    }
    folder.publish()?;
    run.observer.end(Stage::Convert);
    let copied_bytes = others.iter().map(|(_, bytes)| bytes).sum();
    let quantization = options.quantization;
    Ok(Report { folder: to.to_owned(), quantization, loras: records, components, copied_bytes })
}

/// What every step has at hand.
struct Run<'a> {
    quantization: Option<Quantization>,
    loras: &'a [LoraRecord],
    cancel: &'a CancelToken,
    observer: &'a mut dyn Observer,
    done: usize,
}

impl Run<'_> {
    fn step(&mut self) -> Result<()> {
        self.done += 1;
        self.observer.advance(Stage::Convert, self.done);
        self.cancel.check()
    }
}

/// A component of the source. Its tensors are mapped: nothing of them is in memory yet.
struct Part {
    component: Component,
    tensors: BTreeMap<String, Tensor>,
    /// The linear layers, or the VAE's convolutions, as the network's own loading asks for them.
    layers: Vec<String>,
    /// Sizes of those that are convolutions.
    convolutions: HashMap<String, ConvShape>,
    /// What goes into them.
    loras: Vec<Pending>,
    files: Vec<PathBuf>,
}

impl Part {
    /// Opens a component and loads its network from the mapped file, which finds whatever is missing or misshapen.
    fn open(
        files: &ModelFiles,
        component: Component,
        quantization: Option<Quantization>,
        device: &Device,
        loras: &[Applied],
    ) -> Result<Self> {
        let loras = if component == Component::Transformer { loras } else { &[] };
        let config = files.json(component.config_name())?;
        let check = |load: &dyn Fn(&mut Loader<'_>) -> Result<()>| {
            let mut loader = files.loader(component, device, DType::F32)?.with_loras(loras);
            load(&mut loader)?;
            let convolutions = loader.convolutions().to_vec();
            let names = convolutions.iter().map(|(name, _)| name);
            let layers: Vec<String> = loader.layers().iter().chain(names).cloned().collect();
            loader.finish().map(|()| (layers, convolutions.into_iter().collect()))
        };
        let (layers, convolutions) = match component {
            Component::TextEncoder => {
                let config = qwen25_vl::Config::from_json(config)?;
                check(&|loader| TextEncoder::load(&config, loader).map(drop))?
            }
            Component::Transformer => {
                let config = qwen_image::Config::from_json(config)?;
                check(&|loader| Transformer::load(&config, loader).map(drop))?
            }
            Component::Vae if quantization == Some(Quantization::Int8) => {
                let config = qwen_vae::Config::from_json(config)?;
                check(&|loader| Vae::load(&config, loader).map(drop))?
            }
            Component::Vae => (Vec::new(), HashMap::new()),
        };
        let SafeTensors { tensors, quantized, foreign, order, .. } = files.component(component, device)?;
        if order != Order::default() {
            // Its names would be diffusers', the order of its dimensions would not.
            let (class, want) = ("mflux's, channels last".into(), "AutoencoderKLQwenImage");
            let found = Found::Part { component: "vae", class, want };
            return Err(Error::UnsupportedModel { path: files.root().to_owned(), found });
        }
        let refuse = |layer: &str, format: String| {
            Err(Error::AlreadyQuantized {
                component: component.name().into(),
                layer: layer.to_owned(),
                format,
            })
        };
        if let Some((name, matrix)) = quantized.first_key_value() {
            return refuse(name, matrix.format());
        }
        if let Some((name, stored)) = foreign.first_key_value() {
            return refuse(name, (*stored).to_owned());
        }
        if let Some((name, stored)) = tensors.iter().find(|(_, tensor)| !tensor.dtype().is_float()) {
            return refuse(name, stored.dtype().to_string());
        }
        let loras = loras.iter().cloned().map(Pending::from).collect();
        Ok(Self { component, tensors, layers, convolutions, loras, files: files.weight_files(component)? })
    }

    /// Files to hash and tensors to write.
    fn steps(&self) -> usize {
        self.files.len() + self.tensors.len()
    }

    /// Bytes that it will take at most.
    fn needed_bytes(&self, rule: Option<Rule>) -> u64 {
        let layers: HashSet<&str> = self.layers.iter().map(String::as_str).collect();
        let bytes = |(name, tensor): (&String, &Tensor)| {
            let plain = tensor.shape().count() * tensor.dtype().size_bytes();
            let layer = name.strip_suffix(".weight").filter(|layer| layers.contains(layer));
            layer.zip(rule).map_or(plain, |(layer, rule)| rule.most_bytes(layer, tensor)) as u64
        };
        self.tensors.iter().map(bytes).sum()
    }

    /// Writes the component's file.
    fn write(mut self, files: &ModelFiles, folder: &Path, run: &mut Run<'_>) -> Result<ComponentReport> {
        let mut sources = Vec::new();
        for path in &self.files {
            sources.push(Source::read(files.root(), path, run.cancel)?);
            run.step()?;
        }
        let relative = self.component.weights_name();
        let path = folder.join(&relative);
        let failed = |source| Error::Write { path: relative.clone().into(), source };
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        let parts =
            self.layers.iter().flat_map(|layer| PARTS.iter().map(move |part| format!("{layer}.{part}")));
        let names: Vec<String> = self.tensors.keys().cloned().chain(parts).collect();
        let metadata_bytes: usize = self.layers.iter().map(|layer| 2 * layer.len() + 8).sum();
        let metadata_bytes = metadata_bytes + self.metadata(run, &[], &sources).to_string().len();
        let mut writer = Writer::create(&path, &names, 2 * metadata_bytes).map_err(failed)?;
        let (mut formats, mut merged_layers) = (Vec::new(), 0);
        for name in self.order() {
            let Some(tensor) = self.tensors.remove(&name) else { continue };
            let written = self.layer(&name, &tensor, run)?;
            for (name, tensor) in &written.tensors {
                writer.tensor(name, tensor).map_err(failed)?;
            }
            formats.extend(written.format);
            merged_layers += usize::from(written.is_merged);
            let mut pages = Pages::default();
            pages.add(&tensor);
            pages.release();
            files.check_intact()?;
            run.step()?;
        }
        formats.sort_by(|a, b| a.name.cmp(&b.name));
        let metadata = self.metadata(run, &formats, &sources);
        let metadata = serde_json::from_value(metadata).unwrap_or_default();
        let after_bytes = writer.finish(&metadata).map_err(failed)?;
        let before_bytes = sources.iter().map(|source| source.bytes).sum();
        let (component, layers) = (self.component, formats);
        Ok(ComponentReport { component, before_bytes, after_bytes, layers, merged_layers, sources })
    }

    /// The tensors' names; those that would push others off the alignment come last.
    fn order(&self) -> Vec<String> {
        /// Packed codes, scales and biases of so many values are all whole lines.
        const WHOLE_LAYER: usize = 64 * ALIGN_BYTES / 2;
        let odd = |tensor: &Tensor| {
            let count = tensor.shape().count();
            !(count * tensor.dtype().size_bytes()).is_multiple_of(ALIGN_BYTES)
                || (tensor.rows() > 1 && !count.is_multiple_of(WHOLE_LAYER))
        };
        let (odd, even): (Vec<_>, Vec<_>) = self.tensors.iter().partition(|(_, tensor)| odd(tensor));
        even.into_iter().chain(odd).map(|(name, _)| name.clone()).collect()
    }

    /// What is written for a tensor.
    fn layer(&mut self, name: &str, tensor: &Tensor, run: &Run<'_>) -> Result<Written> {
        let component = self.component.name();
        let layer = name.strip_suffix(".weight").filter(|layer| self.layers.iter().any(|l| l == layer));
        let Some(layer) = layer else {
            scan::check_one(component, name, tensor)?;
            return Ok(Written::plain(name, tensor.clone()));
        };
        let (n_out, n_in) = (tensor.rows(), tensor.cols());
        let paths: Vec<_> = self.loras.iter_mut().filter_map(|lora| lora.layer(layer, n_in, n_out)).collect();
        let is_merged = !paths.is_empty();
        let tensor = &if is_merged { lora::merged(tensor, &paths)? } else { tensor.clone() };
        let Some(quantization) = run.quantization else {
            scan::check_one(component, name, tensor)?;
            return Ok(Written { is_merged, ..Written::plain(name, tensor.clone()) });
        };
        // Torch has the taps of a convolution innermost.
        let convolution = self.convolutions.get(layer).copied();
        let in_order = |shape| {
            let (tensor, order, sums) = (tensor.clone(), Order::default(), DType::F32);
            tap_major(&Stored { tensor, order, sums }, shape)
        };
        let matrix = convolution.map(in_order).transpose()?;
        let span = convolution.map_or(n_in, |shape| shape.c_in);
        let matrix = matrix.as_ref().unwrap_or(tensor);
        let (weight, format) = Rule::from(quantization).apply(component, layer, matrix, span)?;
        if !format.is_smaller() {
            scan::check_one(component, name, tensor)?;
        }
        let tensors = match &weight {
            Weight::Dense(_) => vec![(name.to_owned(), tensor.clone())],
            smaller => {
                let parts = PARTS.iter().zip(smaller.tensors());
                parts.map(|(part, tensor)| (format!("{layer}.{part}"), tensor.clone())).collect()
            }
        };
        let format = Some(LayerFormat { name: layer.to_owned(), format });
        Ok(Written { tensors, format, is_merged })
    }

    /// What the file says of itself.
    fn metadata(&self, run: &Run<'_>, formats: &[LayerFormat], sources: &[Source]) -> serde_json::Value {
        let kept = formats.iter().filter(|layer| !layer.format.is_smaller());
        let kept: Vec<&str> = kept.map(|layer| layer.name.as_str()).collect();
        let hashes: BTreeMap<&str, &str> =
            sources.iter().map(|s| (s.name.as_str(), s.sha256.as_str())).collect();
        let mut metadata = json!({
            "format": "pt",
            format!("{KEY}.sources"): json!(hashes).to_string(),
            format!("{KEY}.version"): env!("CARGO_PKG_VERSION"),
        });
        if let Some(quantization) = run.quantization {
            metadata[format!("{KEY}.quantization")] = json!(quantization.name());
            metadata[format!("{KEY}.kept")] = json!(json!(kept).to_string());
        }
        if !self.loras.is_empty() {
            metadata[format!("{KEY}.loras")] = json!(json!(run.loras).to_string());
        }
        metadata
    }
}

/// What the tensors of a quantized layer are called behind its name, as MLX calls them.
const PARTS: [&str; 3] = ["weight", "scales", "biases"];

/// The tensors of a layer as they are written, and what became of it if it is linear.
struct Written {
    tensors: Vec<(String, Tensor)>,
    format: Option<LayerFormat>,
    /// Whether a LoRA is in it.
    is_merged: bool,
}

impl Written {
    /// A tensor under its own name.
    fn plain(name: &str, tensor: Tensor) -> Self {
        Self { tensors: vec![(name.to_owned(), tensor)], format: None, is_merged: false }
    }
}
