//! Writes a component's new file, tensor by tensor.

use std::collections::BTreeMap;
use std::path::Path;

use inkstone_tensor::{DType, Pages, Shape, Tensor, Weight, ops};
use serde_json::json;

use super::part::{Part, is_float8};
use super::sources::Source;
use super::{ComponentReport, Run};
use crate::weights::safetensors::{ALIGN_BYTES, Writer};
use crate::weights::{LayerFormat, ModelFiles, Order, Rule, Stored, in_f32, lora, scan, tap_major};
use crate::{Error, Result};

/// What the metadata of a converted file begins with.
const KEY: &str = "inkstone";

impl Part {
    /// Writes the component's file.
    pub(super) fn write(
        mut self,
        files: &ModelFiles,
        folder: &Path,
        sources: Vec<Source>,
        run: &mut Run<'_>,
    ) -> Result<ComponentReport> {
        let relative = self.component.weights_name();
        let path = folder.join(&relative);
        let failed = |source| Error::Write { path: relative.clone().into(), source };
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        let parts =
            self.layers.iter().flat_map(|layer| PARTS.iter().map(move |part| format!("{layer}.{part}")));
        let scales = self.scales.values().map(|(name, _)| name.clone());
        let names: Vec<String> = self.tensors.keys().cloned().chain(scales).chain(parts).collect();
        let metadata_bytes: usize = self.layers.iter().map(|layer| 2 * layer.len() + 8).sum();
        let metadata_bytes = metadata_bytes + self.metadata(run, &[], &sources).to_string().len();
        let mut writer = Writer::create(&path, &names, 2 * metadata_bytes).map_err(failed)?;
        let (mut formats, mut merged_layers) = (Vec::new(), 0);
        for name in self.order() {
            let Some(tensor) = self.tensors.remove(&name) else { continue };
            let Written { tensors, format, is_merged } = self.layer(&name, &tensor, run)?;
            for (name, tensor) in &tensors {
                writer.tensor(name, tensor).map_err(failed)?;
            }
            merged_layers += usize::from(is_merged);
            formats.extend(format);
            let mut pages = Pages::default();
            pages.add(&tensor);
            pages.release();
            drop(tensors);
            tensor.device().trim();
            files.check_intact()?;
            run.step()?;
        }
        formats.sort_by(|a, b| a.name.cmp(&b.name));
        let metadata = self.metadata(run, &formats, &sources);
        let metadata = serde_json::from_value(metadata).unwrap_or_default();
        let after_bytes = writer.finish(&metadata).map_err(failed)?;
        let before_bytes = sources.iter().map(|source| source.bytes).sum();
        let (component, layers, copied_as) = (self.component, formats, None);
        Ok(ComponentReport {
            component,
            before_bytes,
            after_bytes,
            layers,
            merged_layers,
            copied_as,
            sources,
        })
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
        let as_stored = self.as_stored(name, tensor);
        let layer = name.strip_suffix(".weight").filter(|layer| self.layers.iter().any(|l| l == layer));
        let Some(layer) = layer else {
            let tensors = self.vector(name, tensor)?.unwrap_or(as_stored);
            scan_all(component, &tensors)?;
            return Ok(Written { tensors, format: None, is_merged: false });
        };
        let (n_out, n_in) = (tensor.rows(), tensor.cols());
        let loras: Vec<_> = self.loras.iter_mut().filter_map(|lora| lora.layer(layer, n_in, n_out)).collect();
        let is_merged = !loras.is_empty();
        let mut values = self.values(layer, tensor)?;
        if is_merged {
            if is_float8(tensor) {
                values = ops::convert(&values, DType::Bf16)?;
            }
            values = lora::merged(&values, &loras)?;
        }
        let as_stored = if is_merged { vec![(name.to_owned(), values.clone())] } else { as_stored };
        let Some(quantization) = run.quantization else {
            scan_all(component, &as_stored)?;
            return Ok(Written { tensors: as_stored, format: None, is_merged });
        };
        // Torch has the taps of a convolution innermost.
        let convolution = self.convolutions.get(layer).copied();
        let in_order = |shape| {
            let (tensor, order, sums) = (values.clone(), Order::default(), DType::F32);
            tap_major(&Stored { tensor, order, sums }, shape)
        };
        let matrix = convolution.map(in_order).transpose()?;
        let span = convolution.map_or(n_in, |shape| shape.c_in);
        let matrix = matrix.as_ref().unwrap_or(&values);
        let (weight, format) = Rule::from(quantization).apply(component, layer, matrix, span)?;
        if !format.is_smaller() {
            scan_all(component, &as_stored)?;
        }
        let tensors = match &weight {
            Weight::Dense(_) => as_stored,
            smaller => {
                let parts = PARTS.iter().zip(smaller.tensors());
                parts.map(|(part, tensor)| (format!("{layer}.{part}"), tensor.clone())).collect()
            }
        };
        let format = Some(LayerFormat { name: layer.to_owned(), format });
        Ok(Written { tensors, format, is_merged })
    }

    /// A vector that LoRAs add something to, with it.
    fn vector(&mut self, name: &str, tensor: &Tensor) -> Result<Option<Vec<(String, Tensor)>>> {
        let (shape, len) = (*tensor.shape(), tensor.shape().count());
        let differences: Vec<_> = self.loras.iter_mut().filter_map(|lora| lora.vector(name, len)).collect();
        if differences.is_empty() || shape.dims().len() != 1 {
            return Ok(None);
        }
        let values = self.values(name.strip_suffix(".weight").unwrap_or(name), tensor)?;
        let sum = lora::merged(&values.reshape(Shape::matrix(len, 1))?, &differences)?;
        Ok(Some(vec![(name.to_owned(), sum.reshape(shape)?)]))
    }

    /// A tensor as the source has it, with its scale.
    fn as_stored(&self, name: &str, tensor: &Tensor) -> Vec<(String, Tensor)> {
        let scale = name.strip_suffix(".weight").and_then(|layer| self.scales.get(layer)).cloned();
        std::iter::once((name.to_owned(), tensor.clone())).chain(scale).collect()
    }

    /// The values of a layer's weight: 8-bit floats and f64 in f32.
    fn values(&self, layer: &str, tensor: &Tensor) -> Result<Tensor> {
        Ok(in_f32(tensor, self.scales.get(layer).map(|(_, scale)| scale))?)
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

/// # Errors
/// [`Error::WeightsNotFinite`].
fn scan_all(component: &str, tensors: &[(String, Tensor)]) -> Result<()> {
    tensors.iter().try_for_each(|(name, tensor)| scan::check_one(component, name, tensor))
}

/// The tensors of a layer as they are written, and what became of it if it is linear.
struct Written {
    tensors: Vec<(String, Tensor)>,
    format: Option<LayerFormat>,
    /// Whether a LoRA is in it.
    is_merged: bool,
}
