//! How a loader is made, and what it is told before it is asked for tensors.

use std::collections::BTreeMap;
use std::sync::Arc;

use inkstone_tensor::{DType, Device, Ledger, MappedFile, Pages, Quantized, Shape, StandIns, Tensor};

use super::{Loader, OnLayer, Order, Strictness, packed};
use crate::Result;
use crate::error::TensorReport;
use crate::weights::Residence;
use crate::weights::quantize::Rule;
use crate::weights::random::RandomTensors;

impl<'a> Loader<'a> {
    /// A loader over tensors that are already there; component is its name in messages.
    #[must_use]
    pub fn new(
        component: &str,
        device: &Device,
        activations: DType,
        tensors: BTreeMap<String, Tensor>,
    ) -> Self {
        Self {
            component: component.into(),
            device: device.clone(),
            activations,
            tensors,
            random: None,
            quantized: BTreeMap::new(),
            shapes: BTreeMap::new(),
            foreign: BTreeMap::new(),
            order: Order::default(),
            pages: Pages::default(),
            mappings: Vec::new(),
            loras: Vec::new(),
            merges_loras: false,
            strictness: Strictness::default(),
            rule: None,
            formats: Vec::new(),
            reading: None,
            kept: None,
            layers: Vec::new(),
            convolutions: Vec::new(),
            on_layer: None,
            stand_ins: None,
            converted: false,
            report: TensorReport::default(),
            failure: None,
        }
    }

    /// A loader that answers every request with random values of the wanted shape, for benchmarks: the model itself
    /// says what its tensors are.
    #[must_use]
    pub fn random(component: &str, device: &Device, activations: DType) -> Self {
        let mut loader = Self::new(component, device, activations, BTreeMap::new());
        loader.random = Some(RandomTensors::new());
        loader
    }

    /// Adds quantized matrices; only [`Loader::weight`] takes them.
    #[must_use]
    pub fn with_quantized(mut self, quantized: BTreeMap<String, Quantized>) -> Self {
        self.quantized = quantized;
        self
    }

    /// Adds the shapes of quantized tensors whose matrices have others.
    #[must_use]
    pub(in crate::weights) fn with_shapes(mut self, shapes: BTreeMap<String, Shape>) -> Self {
        self.shapes = shapes;
        self
    }

    /// The same loader for a counting device: tensors have no bytes, and count as if they were used where they lie or
    /// read into memory. No weight is touched.
    ///
    /// # Errors
    /// None that the loader itself would not have.
    pub(in crate::weights) fn counted(mut self, ledger: &Arc<Ledger>, residence: Residence) -> Result<Self> {
        let mut stand_ins = StandIns::new(&self.device, ledger);
        for tensor in self.tensors.values_mut() {
            *tensor = match residence {
                Residence::Mapped => stand_ins.like(tensor)?,
                Residence::Owned => stand_ins.owned_like(tensor)?,
            };
        }
        for matrix in self.quantized.values_mut() {
            *matrix = matrix.with_tensors(&mut |tensor| match residence {
                Residence::Mapped => stand_ins.like(tensor),
                Residence::Owned => stand_ins.owned_like(tensor),
            })?;
        }
        if let Some(random) = &mut self.random {
            random.count(ledger);
        }
        self.stand_ins = Some(stand_ins);
        Ok(self)
    }

    /// Adds tensors of types that the engine does not have: an error only where one of them is asked for.
    #[must_use]
    pub fn with_foreign(mut self, foreign: BTreeMap<String, &'static str>) -> Self {
        self.foreign = foreign;
        self
    }

    /// Says how convolutions are stored.
    #[must_use]
    pub(in crate::weights) fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Adds the mapped files that must stay as they are until the end of the loading.
    #[must_use]
    pub(in crate::weights) fn with_mappings(mut self, mappings: Vec<Arc<MappedFile>>) -> Self {
        self.mappings = mappings;
        self
    }

    /// Says what becomes of tensors that nothing asks for.
    #[must_use]
    pub fn with_strictness(mut self, strictness: Strictness) -> Self {
        self.strictness = strictness;
        self
    }

    /// Brings the weights of linear layers, and those of convolutions into products of bytes, into a smaller format where
    /// the rule allows it.
    #[must_use]
    pub fn with_rule(mut self, rule: impl Into<Rule>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// The same, unless the component is quantized already: then it stays as it is. Bytes that are multiplied as they are
    /// count as plain weights.
    #[must_use]
    pub(crate) fn quantizing(self, rule: impl Into<Rule>) -> Self {
        let rule = rule.into();
        if rule.multiplies_bytes() && !packed::already_packed(&self.tensors, &self.quantized) {
            return self.with_rule(rule);
        }
        self.unless_quantized(rule)
    }

    fn unless_quantized(mut self, rule: Rule) -> Self {
        self.kept = self.already_quantized_as();
        if self.kept.is_some() { self } else { self.with_rule(rule) }
    }

    /// Where tensors are counted: as if the rule had been applied before by `convert`, and its results lay in files.
    #[must_use]
    pub(crate) fn converted(self, rule: impl Into<Rule>) -> Self {
        let mut converted = self.unless_quantized(rule.into());
        converted.converted = true;
        converted
    }

    /// Calls `hook` behind each layer; its error ends the loading.
    #[must_use]
    pub fn on_layer(mut self, hook: impl FnMut() -> Result<()> + 'a) -> Self {
        self.on_layer = Some(OnLayer(Box::new(hook)));
        self
    }
}
