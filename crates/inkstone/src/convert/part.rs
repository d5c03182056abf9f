//! A component of the model that is converted: what it is made of, and whether it is converted at all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use inkstone_tensor::{DType, Device, Quantized, Tensor};

use super::sources::{self, Source};
use super::{ComponentReport, Run};
use crate::error::Found;
use crate::models::qwen_image::{self, Transformer};
use crate::models::qwen_vae::{self, Vae};
use crate::models::qwen25_vl::{self, TextEncoder};
use crate::weights::lora::{Applied, Pending};
use crate::weights::safetensors::SafeTensors;
use crate::weights::{
    Component, ConvShape, Loader, ModelFiles, Order, Quantization, Rule, WeightFile, already_quantized,
    is_unused, scaled_layer,
};
use crate::{Error, Result};

/// A component of the source. Its tensors are mapped: nothing of them is in memory yet.
pub(super) struct Part {
    pub(super) component: Component,
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// The scales of those that are 8-bit floats, by layer, with their names.
    pub(super) scales: HashMap<String, (String, Tensor)>,
    /// The linear layers, or the VAE's convolutions, as the network's own loading asks for them.
    pub(super) layers: Vec<String>,
    /// Sizes of those that are convolutions.
    pub(super) convolutions: HashMap<String, ConvShape>,
    /// What goes into them.
    pub(super) loras: Vec<Pending>,
    pub(super) files: Vec<WeightFile>,
    /// Where it is quantized already.
    copied: Option<Copied>,
}

/// A component that is quantized already.
struct Copied {
    /// The first layer that is, and how it is stored.
    layer: String,
    format: String,
    /// Its files, by their names in the new folder.
    files: Vec<(String, PathBuf)>,
}

impl Part {
    /// Opens a component and loads its network from the mapped file, which finds whatever is missing or misshapen.
    pub(super) fn open(
        files: &ModelFiles,
        component: Component,
        quantization: Option<Quantization>,
        device: &Device,
        loras: &[Applied],
    ) -> Result<Self> {
        let loras = if component == Component::Transformer { loras } else { &[] };
        let (layers, convolutions) = layers(files, component, quantization, device, loras)?;
        let SafeTensors { mut tensors, quantized, foreign, order, .. } =
            files.component(component, device)?;
        let already = already_quantized(&tensors, &quantized);
        // A LoRA cannot be put into it. ComfyUI's bytes are multiplied as they are with `-q int8`, and without it in a folder.
        let multiplied = quantized.values().any(|matrix| matches!(matrix, Quantized::ConvRot(_)))
            && (component, quantization) == (Component::Transformer, Some(Quantization::Int8));
        let copies = match &already {
            Some(_) if loras.is_empty() && !multiplied => files.weight_copies(component)?,
            _ => None,
        };
        let loras = loras.iter().cloned().map(Pending::from).collect();
        let files_of = files.weight_files(component)?;
        if let (Some((layer, format)), Some(files)) = (&already, copies) {
            let copied = Some(Copied { layer: layer.clone(), format: format.clone(), files });
            let (tensors, scales, layers) = (BTreeMap::new(), HashMap::new(), Vec::new());
            return Ok(Self {
                component,
                tensors,
                scales,
                layers,
                convolutions,
                loras,
                files: files_of,
                copied,
            });
        }
        if order != Order::default() {
            // Its names would be diffusers', the order of its dimensions would not.
            let (class, want) = ("mflux's, channels last".into(), "AutoencoderKLQwenImage");
            let found = Found::Part { component: "vae", class, want };
            return Err(Error::UnsupportedModel { path: files.root().to_owned(), found });
        }
        // A sum of such floats and of what is put into them would be none.
        let is_merged = component == Component::Transformer && quantization.is_none();
        let float8 =
            |(name, tensor): &(&String, &Tensor)| is_merged && is_float8(tensor) && name.ends_with(".weight");
        let float8 =
            tensors.iter().find(float8).map(|(name, tensor)| (name.clone(), tensor.dtype().to_string()));
        let foreign = foreign.first_key_value().map(|(name, stored)| (name.clone(), (*stored).to_owned()));
        if let Some((layer, format)) = already.or(float8).or(foreign) {
            return Err(Error::AlreadyQuantized { component: component.name().into(), layer, format });
        }
        let scales = take_scales(&mut tensors);
        let copied = None;
        Ok(Self { component, tensors, scales, layers, convolutions, loras, files: files_of, copied })
    }

    /// Whether there is nothing to quantize.
    pub(super) fn has_no_layers(&self) -> bool {
        self.layers.is_empty()
    }

    /// The error for a component that is quantized already, if nothing else is left to quantize.
    pub(super) fn already_quantized(&self) -> Option<Error> {
        let Copied { layer, format, .. } = self.copied.as_ref()?;
        let (component, layer, format) = (self.component.name().into(), layer.clone(), format.clone());
        Some(Error::AlreadyQuantized { component, layer, format })
    }

    /// Files to hash and tensors or files to write.
    pub(super) fn steps(&self) -> usize {
        let copies = self.copied.as_ref().map_or(0, |copied| copied.files.len());
        self.files.len() + self.tensors.len() + copies
    }

    /// Tells of a tensor's name the layer that it is the weight of, if it is one's that may be quantized.
    fn layer_of(&self) -> impl Fn(&str) -> Option<&str> {
        let layers: HashSet<&str> = self.layers.iter().map(String::as_str).collect();
        move |name| name.strip_suffix(".weight").filter(|layer| layers.contains(layer))
    }

    /// Bytes that it will take at most.
    pub(super) fn needed_bytes(&self, rule: Option<Rule>) -> Result<u64> {
        if let Some(Copied { files, .. }) = &self.copied {
            return files.iter().map(|(_, path)| sources::size_bytes(path)).sum();
        }
        let layer_of = self.layer_of();
        let bytes = |(name, tensor): (&String, &Tensor)| {
            let plain = tensor.shape().count() * tensor.dtype().size_bytes();
            layer_of(name).zip(rule).map_or(plain, |(layer, rule)| rule.most_bytes(layer, tensor)) as u64
        };
        let scales =
            self.scales.values().map(|(_, scale)| scale.shape().count() * scale.dtype().size_bytes());
        Ok(self.tensors.iter().map(bytes).sum::<u64>() + scales.sum::<usize>() as u64)
    }

    /// Bytes that one of its layers takes in memory while it is converted, at most: as written, and in f32 where that is
    /// between. What is read is a mapped file's.
    pub(super) fn layer_bytes(&self, rule: Option<Rule>) -> u64 {
        self.most_bytes(rule, |_| 0)
    }

    /// The same with what is read of the mapped file, layer or not: it is resident until the next one.
    pub(super) fn resident_bytes(&self, rule: Option<Rule>) -> u64 {
        self.most_bytes(rule, |tensor| tensor.shape().count() * tensor.dtype().size_bytes())
    }

    /// The most that a tensor takes, with what is read of it.
    fn most_bytes(&self, rule: Option<Rule>, read: impl Fn(&Tensor) -> usize) -> u64 {
        let layer_of = self.layer_of();
        let of_layer = |layer: &str, tensor: &Tensor| {
            let is_between =
                is_float8(tensor) || !self.loras.is_empty() || self.convolutions.contains_key(layer);
            let between = if is_between { 2 * 4 * tensor.shape().count() } else { 0 };
            between + rule.map_or(0, |rule| rule.most_bytes(layer, tensor))
        };
        let bytes = |(name, tensor): (&String, &Tensor)| {
            read(tensor) + layer_of(name).map_or(0, |layer| of_layer(layer, tensor))
        };
        self.tensors.iter().map(bytes).max().unwrap_or(0) as u64
    }

    /// Saves the component in the new folder.
    pub(super) fn save(
        mut self,
        files: &ModelFiles,
        folder: &Path,
        run: &mut Run<'_>,
    ) -> Result<ComponentReport> {
        let mut sources = Vec::new();
        for file in &self.files {
            sources.push(Source::read(files.root(), file, run)?);
            run.step()?;
        }
        match self.copied.take() {
            Some(copied) => self.copy(copied, folder, sources, run),
            None => self.write(files, folder, sources, run),
        }
    }

    /// Copies its files.
    fn copy(
        self,
        copied: Copied,
        folder: &Path,
        sources: Vec<Source>,
        run: &mut Run<'_>,
    ) -> Result<ComponentReport> {
        for (name, from) in &copied.files {
            sources::copy(from, folder, name, run.cancel)?;
            run.step()?;
        }
        let bytes = sources.iter().map(|source| source.bytes).sum();
        Ok(ComponentReport {
            component: self.component,
            before_bytes: bytes,
            after_bytes: bytes,
            layers: Vec::new(),
            merged_layers: 0,
            copied_as: Some(copied.format),
            sources,
        })
    }
}

/// The linear layers, or the convolutions where these are quantized, and the sizes of convolutions.
fn layers(
    files: &ModelFiles,
    component: Component,
    quantization: Option<Quantization>,
    device: &Device,
    loras: &[Applied],
) -> Result<(Vec<String>, HashMap<String, ConvShape>)> {
    let config = files.json(component.config_name())?;
    let check = |load: &dyn Fn(&mut Loader<'_>) -> Result<()>| {
        let mut loader = files.loader(component, device, DType::F32)?.with_loras_to_merge(loras);
        load(&mut loader)?;
        let convolutions = loader.convolutions().to_vec();
        let names = convolutions.iter().map(|(name, _)| name);
        let layers: Vec<String> = loader.layers().iter().chain(names).cloned().collect();
        loader.finish().map(|()| (layers, convolutions.into_iter().collect()))
    };
    match component {
        Component::TextEncoder => {
            let config = qwen25_vl::Config::from_json(config)?;
            check(&|loader| TextEncoder::load(&config, loader).map(drop))
        }
        Component::Transformer => {
            let config = qwen_image::Config::from_json(config)?;
            check(&|loader| Transformer::load(&config, loader).map(drop))
        }
        Component::Vae if quantization == Some(Quantization::Int8) => {
            let config = qwen_vae::Config::from_json(config)?;
            check(&|loader| Vae::load(&config, loader).map(drop))
        }
        Component::Vae => Ok((Vec::new(), HashMap::new())),
    }
}

/// The scales of 8-bit floats by layer, taken out of the tensors; what is for other programs is dropped.
fn take_scales(tensors: &mut BTreeMap<String, Tensor>) -> HashMap<String, (String, Tensor)> {
    let layer_of = |name: &str, tensors: &BTreeMap<String, Tensor>| {
        let layer = scaled_layer(name)?;
        let is_scaled = tensors.get(&format!("{layer}.weight")).is_some_and(is_float8);
        is_scaled.then(|| layer.to_owned())
    };
    tensors.retain(|name, _| !is_unused(name));
    let scales: Vec<(String, String)> =
        tensors.keys().filter_map(|name| Some((layer_of(name, tensors)?, name.clone()))).collect();
    let taken = scales.into_iter().filter_map(|(layer, name)| {
        let scale = tensors.remove(&name)?;
        Some((layer, (name, scale)))
    });
    taken.collect()
}

pub(super) fn is_float8(tensor: &Tensor) -> bool {
    matches!(tensor.dtype(), DType::F8E4m3 | DType::F8E5m2)
}
