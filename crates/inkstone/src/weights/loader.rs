//! Takes tensors out of a model's files by name and keeps account of what is missing, misshapen or left over.

mod build;
mod conv;
mod nearest;
mod packed;
mod reading;
mod small;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use inkstone_tensor::{
    DType, Device, MappedFile, Pages, Quantized, Shape, StandIns, Storage, Tensor, Weight, ops,
};

use super::lora::{Pending, SidePath};
use super::quantize::{LayerFormat, Rule};
use super::random::RandomTensors;
use crate::error::{TensorReport, WrongTensor};
use crate::{Error, Result};

use reading::Reading;

pub use conv::{ConvShape, Kernel};
pub(crate) use conv::{Order, Stored, tap_major};
pub(super) use packed::float8;
pub(crate) use packed::{already_quantized, is_unused, scaled_layer};
pub(crate) use small::in_f32;

/// What becomes of tensors that nothing asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// They are noted in the log; see [`Loader::left_over`].
    #[default]
    AllowExtra,
    /// They are an error.
    RefuseExtra,
}

/// Called behind each layer.
struct OnLayer<'a>(Box<dyn FnMut() -> Result<()> + 'a>);

impl fmt::Debug for OnLayer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnLayer")
    }
}

/// The tensors of one component (transformer, text encoder, VAE), to be taken by name.
///
/// A missing or misshapen tensor is noted and replaced by an empty one, so that [`Loader::finish`] can name all of
/// them in one error.
#[derive(Debug)]
pub struct Loader<'a> {
    component: String,
    device: Device,
    /// The type in which activations travel between layers: f32, or bf16 with f32 sums.
    activations: DType,
    tensors: BTreeMap<String, Tensor>,
    /// Makes what is asked for, whatever its name.
    random: Option<RandomTensors>,
    quantized: BTreeMap<String, Quantized>,
    /// Of those whose matrix has another one.
    shapes: BTreeMap<String, Shape>,
    foreign: BTreeMap<String, &'static str>,
    /// Of the weights of convolutions.
    order: Order,
    /// Of the tensors taken since they were last asked for.
    pages: Pages,
    /// Files that tensors lie in; a model may copy its weights and let go of them before the end.
    mappings: Vec<Arc<MappedFile>>,
    /// What lies around the weights.
    pub(super) loras: Vec<Pending>,
    /// Whether they are checked only, as they will be put into the weights.
    pub(super) merges_loras: bool,
    strictness: Strictness,
    /// Brings linear layers into a smaller format.
    rule: Option<Rule>,
    formats: Vec<LayerFormat>,
    /// Since the first layer that the rule was applied to.
    reading: Option<Reading>,
    /// Why there is no rule: the first weight that is quantized already, and its format.
    kept: Option<(String, String)>,
    /// The linear layers that were taken.
    layers: Vec<String>,
    /// The convolutions that were taken.
    convolutions: Vec<(String, ConvShape)>,
    on_layer: Option<OnLayer<'a>>,
    /// Where tensors are only counted: what is wrong with them is told when they are used.
    stand_ins: Option<StandIns>,
    /// Whether what the rule makes counts as if it lay in files.
    converted: bool,
    report: TensorReport,
    failure: Option<Error>,
}

impl Loader<'_> {
    /// The device that holds the tensors.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type in which activations travel between layers.
    #[must_use]
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// A matrix `[n_out, n_in]` as stored.
    pub fn weight(&mut self, name: &str, n_out: usize, n_in: usize) -> Weight {
        match self.quantized(name, n_out, n_in) {
            Some(weight) => {
                weight.tensors().into_iter().for_each(|tensor| self.pages.add(tensor));
                weight
            }
            None => Weight::Dense(self.tensor(name, &[n_out, n_in])),
        }
    }

    /// The matrix of the linear layer `name`, `NAME.weight [n_out, n_in]`, as stored or in a smaller format.
    pub fn layer_weight(&mut self, name: &str, n_out: usize, n_in: usize) -> Weight {
        self.layers.push(name.to_owned());
        let before = self.pages.clone();
        let weight = match self.int8(name, [n_out, n_in], n_in) {
            Some(weight) => weight,
            None => self.weight(&format!("{name}.weight"), n_out, n_in),
        };
        self.by_rule(name, weight, n_in, before)
    }

    /// The weight of a layer in the format that the rule chooses; `before` are the pages without it.
    fn by_rule(&mut self, name: &str, weight: Weight, span: usize, before: Pages) -> Weight {
        let Some(rule) = self.rule.filter(|_| self.failure.is_none()) else { return weight };
        if let Weight::Quantized(matrix) = &weight
            && let Quantized::ConvRot(bytes) = &**matrix
            && let Some((used, format)) = rule.apply_to_bytes(name, bytes)
        {
            self.formats.push(LayerFormat { name: name.to_owned(), format });
            return used.unwrap_or(weight);
        }
        let stored = match &weight {
            Weight::Dense(stored) if stored.shape().count() == 0 => return weight,
            Weight::Dense(stored) => Ok(stored.clone()),
            Weight::Quantized(matrix) if matches!(**matrix, Quantized::Float8(_)) => {
                packed::widened(&weight).map_err(Error::from)
            }
            Weight::Quantized(matrix) => Err(self.already_quantized(name, matrix.format())),
            _ => Err(self.already_quantized(name, "int8".into())),
        };
        let is_widened = matches!(weight, Weight::Quantized(_));
        let mut own = Pages::default();
        weight.tensors().into_iter().for_each(|tensor| own.add(tensor));
        let reading = self.reading.get_or_insert_with(|| Reading::begin(&own, &self.tensors));
        let applied = stored.and_then(|stored| rule.apply(&self.component, name, &stored, span));
        reading.quantized(&own);
        if is_widened {
            self.device.trim(); // in f32 a layer is larger than what the drawing takes
        }
        match applied {
            Ok((smaller, format)) => {
                self.formats.push(LayerFormat { name: name.to_owned(), format });
                if !format.is_smaller() {
                    return weight;
                }
                // What lies in the file is not read again.
                own.release();
                self.pages = before;
                self.filed(smaller)
            }
            Err(error) => {
                self.failure = Some(error);
                weight
            }
        }
    }

    /// The first weight that is quantized already, and its format. Floats of 8 bits count as plain ones: the models that
    /// are published so are quantized from them.
    #[must_use]
    pub fn already_quantized_as(&self) -> Option<(String, String)> {
        packed::already_quantized(&self.tensors, &self.quantized)
    }

    /// What the component is quantized as already, if it should have been quantized: see [`Self::already_quantized_as`].
    pub(crate) fn kept(&self) -> Option<Error> {
        let (name, format) = self.kept.clone()?;
        Some(self.already_quantized(name.strip_suffix(".weight").unwrap_or(&name), format))
    }

    /// The same path on the device of this loader, where that only counts: LoRAs are in memory before.
    pub(super) fn counted_path(&mut self, path: SidePath) -> SidePath {
        if self.stand_ins.is_none() {
            return path;
        }
        path.with_tensors(&mut |tensor| self.held(tensor)).unwrap_or_else(|error| {
            self.fail(error.into());
            path
        })
    }

    /// The same tensor on the device of this loader.
    pub(super) fn held(&mut self, tensor: &Tensor) -> inkstone_tensor::Result<Tensor> {
        self.stand_ins.as_mut().map_or_else(|| Ok(tensor.clone()), |stand_ins| stand_ins.held_like(tensor))
    }

    /// Notes why the loading fails.
    pub(super) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// A new weight as it counts: in files, if the model is looked at as if it were converted.
    fn filed(&mut self, weight: Weight) -> Weight {
        let Some(stand_ins) = self.stand_ins.as_mut().filter(|_| self.converted) else { return weight };
        match weight.with_tensors(&mut |tensor| stand_ins.filed_like(tensor)) {
            Ok(filed) => {
                filed.tensors().into_iter().for_each(|tensor| self.pages.add(tensor));
                drop(weight);
                self.device.trim(); // what made it is not part of what is looked at
                filed
            }
            Err(error) => {
                self.failure = Some(error.into());
                weight
            }
        }
    }

    fn already_quantized(&self, layer: &str, format: String) -> Error {
        Error::AlreadyQuantized { component: self.component.clone(), layer: layer.to_owned(), format }
    }

    /// What became of the linear layers and convolutions, in the order of their loading, if they were to be quantized.
    #[must_use]
    pub fn formats(&self) -> &[LayerFormat] {
        &self.formats
    }

    /// The names of the linear layers that were taken, in the order of their loading.
    #[must_use]
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// The names and sizes of the convolutions that were taken, in the order of their loading.
    #[must_use]
    pub fn convolutions(&self) -> &[(String, ConvShape)] {
        &self.convolutions
    }

    /// A vector, as f32, with what LoRAs add to it.
    pub fn vector(&mut self, name: &str, len: usize) -> Tensor {
        let stored = self.tensor(name, &[len]);
        let vector = match stored.dtype() {
            DType::F32 => Ok(stored),
            _ => ops::convert(&stored, DType::F32),
        };
        vector.and_then(|vector| self.with_differences(name, len, vector)).unwrap_or_else(|error| {
            self.fail(error.into());
            self.nothing()
        })
    }

    /// A tensor of exactly this shape and some float type: as stored, or f32 of one in a format that only products read.
    pub fn tensor(&mut self, name: &str, dims: &[usize]) -> Tensor {
        const FLOATS: &str = "f32, bf16 or f16";
        let mistyped = |have: &dyn ToString| WrongTensor {
            name: name.into(),
            want: FLOATS.into(),
            have: have.to_string(),
        };
        if let Some(random) = &mut self.random {
            return random.tensor(name, dims, &self.device).unwrap_or_else(|error| {
                self.failure.get_or_insert(error);
                self.nothing()
            });
        }
        if let Some(decoded) = self.decoded(name, dims) {
            return decoded;
        }
        if let Some(stored) = self.foreign.remove(name) {
            self.report.mistyped.push(mistyped(&stored));
            return self.nothing();
        }
        let Some(tensor) = self.tensors.remove(name) else {
            self.report.missing.push(name.into());
            return self.nothing();
        };
        self.pages.add(&tensor);
        if !tensor.dtype().is_float() {
            self.report.mistyped.push(mistyped(&tensor.dtype()));
            return self.nothing();
        }
        if tensor.shape().dims() != dims {
            let (want, have) = (format!("{dims:?}"), tensor.shape().to_string());
            self.report.misshapen.push(WrongTensor { name: name.into(), want, have });
            return self.nothing();
        }
        tensor
    }

    /// The pages of the tensors that were taken since the last call: those of a layer, if it is asked behind each.
    pub fn pages(&mut self) -> Pages {
        std::mem::take(&mut self.pages).merged()
    }

    /// Ends a layer; returns its pages.
    pub fn end_layer(&mut self) -> Pages {
        if let Some(OnLayer(hook)) = &mut self.on_layer
            && self.failure.is_none()
        {
            self.failure = hook().err();
        }
        self.pages()
    }

    /// Whether the files have a tensor of this name that was not taken yet.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
            || self.quantized.contains_key(name)
            || self.foreign.contains_key(name)
    }

    /// Drops tensors that this engine has no use for, by prefix.
    pub fn ignore(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
        self.quantized.retain(|name, _| !name.starts_with(prefix));
        self.foreign.retain(|name, _| !name.starts_with(prefix));
    }

    /// The names of the tensors that nothing asked for yet.
    #[must_use]
    pub fn left_over(&self) -> Vec<String> {
        let names = self.tensors.keys().chain(self.quantized.keys()).chain(self.foreign.keys());
        let mut names: Vec<String> = names.filter(|name| *name != packed::MARKER).cloned().collect();
        names.sort();
        names
    }

    /// Ends the loading.
    ///
    /// # Errors
    /// [`Error::Tensors`] names every missing, misshapen and mistyped tensor, and the left-over ones where
    /// [`Strictness::RefuseExtra`] makes them an error; [`Error::Lora`] for a LoRA of another model;
    /// [`Error::ModelChanged`] if a file changed meanwhile.
    pub fn finish(mut self) -> Result<()> {
        self.mappings.iter().try_for_each(|file| check_mapping(file))?;
        let extra = self.left_over();
        match (self.strictness, extra.first()) {
            (_, None) => {}
            (Strictness::AllowExtra, _) if self.stand_ins.is_some() => {}
            (Strictness::RefuseExtra, Some(_)) => self.report.extra = extra,
            (Strictness::AllowExtra, Some(first)) => {
                let component = &self.component;
                match extra.len() {
                    1 => tracing::warn!("the {component} has a tensor that is not used: {first}"),
                    n => tracing::warn!("the {component} has {n} tensors that are not used, such as {first}"),
                }
            }
        }
        if self.report != TensorReport::default() {
            return Err(Error::Tensors { component: self.component, report: Box::new(self.report) });
        }
        self.failure.map_or(Ok(()), Err)?;
        if let Some((_, format)) = self.kept.filter(|_| self.stand_ins.is_none()) {
            tracing::warn!("the {} is quantized already ({format}) and stays as it is", self.component);
        }
        self.loras.into_iter().try_for_each(Pending::finish)
    }

    fn nothing(&self) -> Tensor {
        let shape = Shape::matrix(0, 0);
        // No bytes for no elements: this cannot fail.
        Tensor::from_storage(&self.device, Storage::Static(&[]), DType::F32, shape)
            .unwrap_or_else(|_| unreachable!())
    }
}

/// # Errors
/// [`Error::ModelChanged`] if the file is not what it was when it was mapped.
pub(super) fn check_mapping(file: &MappedFile) -> Result<()> {
    file.check().map_err(|change| Error::ModelChanged {
        path: file.path().to_owned(),
        was_bytes: change.was_bytes,
        is_bytes: change.is_bytes,
    })
}
