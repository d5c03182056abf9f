//! Weights that are stored as several tensors: packed codes or small numbers beside their scales.
//!
//! # Source
//! - MLX: `NAME.weight` u32 with `NAME.scales` and `NAME.biases`; bits and group follow from the sizes.
//! - This program: `NAME.weight` u8 with `NAME.scales` f32, for products of bytes.
//! - ComfyUI: `NAME.weight` in an 8-bit float with `NAME.scale_weight` or `NAME.weight_scale`, or without a scale.

use std::collections::BTreeMap;

use inkstone_tensor::{
    Affine, AffineBits, DType, Float8, Int8Weight, Quantized, Result as TensorResult, Shape, Tensor, Weight,
    ops,
};

use super::Loader;
use crate::error::WrongTensor;

/// What a weight's scale is called, behind the layer's name.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];
/// What stands beside a weight and is for other programs: scales of activations, notes on the format.
const UNUSED: [&str; 3] = ["scale_input", "input_scale", "comfy_quant"];
/// A tensor that says that a file is of 8-bit floats.
pub(super) const MARKER: &str = "scaled_fp8";

impl Loader<'_> {
    /// The weight of this name if it is quantized: from a format of blocks, or together from its parts. What does not
    /// fit is noted, as for plain tensors.
    pub(super) fn quantized(&mut self, name: &str, n_out: usize, n_in: usize) -> Option<Weight> {
        let want = format!("[{n_out}, {n_in}]");
        if self.shapes.contains_key(name) {
            return None; // its blocks are no rows
        }
        if let Some(matrix) = self.quantized.remove(name) {
            let have = matrix.shape();
            if have.dims() != [n_out, n_in] {
                let have = format!("{have} in {}", matrix.format());
                self.report.misshapen.push(WrongTensor { name: name.into(), want, have });
                return Some(Weight::Dense(self.nothing()));
            }
            return Some(matrix.into());
        }
        let stored = self.tensors.get(name)?;
        let build = match stored.dtype() {
            DType::U32 => Self::affine,
            DType::F8E4m3 | DType::F8E5m2 => Self::float8,
            _ => return None,
        };
        let (dtype, have) = (stored.dtype(), *stored.shape());
        let layer = name.strip_suffix(".weight").unwrap_or(name).to_owned();
        let stored = self.tensors.remove(name)?;
        let built = build(self, &layer, stored, n_in).and_then(Result::ok);
        self.drop_unused(&layer);
        match built.filter(|matrix| matrix.shape().dims() == [n_out, n_in]) {
            Some(matrix) => Some(matrix.into()),
            None => {
                let want = format!("{want}, packed with the scales that belong to it");
                let have = format!("{have} in {dtype}");
                self.report.misshapen.push(WrongTensor { name: name.into(), want, have });
                Some(Weight::Dense(self.nothing()))
            }
        }
    }

    /// The weight of this layer if it is stored for products of bytes, as `convert` stores it: `NAME.weight` u8, rotated
    /// in the largest groups of each `span` inputs, with `NAME.scales` f32.
    pub(super) fn int8(&mut self, layer: &str, [n_out, n_in]: [usize; 2], span: usize) -> Option<Weight> {
        let (name, scales) = (format!("{layer}.weight"), format!("{layer}.scales"));
        let is_ours =
            |values: &&Tensor| values.dtype() == DType::U8 && values.shape().dims() == [n_out, n_in];
        let values = self.tensors.get(&name).filter(is_ours)?.clone();
        let scales = self.tensors.get(&scales)?.clone();
        let weight = Int8Weight::new(values, scales, Int8Weight::group_of(span)).ok()?;
        self.tensors.remove(&name);
        self.tensors.remove(&format!("{layer}.scales"));
        let weight = Weight::Int8(weight);
        weight.tensors().into_iter().for_each(|tensor| self.pages.add(tensor));
        Some(weight)
    }

    fn affine(&mut self, layer: &str, packed: Tensor, n_in: usize) -> Option<TensorResult<Quantized>> {
        const WORD_BITS: usize = 32;
        let scales = self.tensors.remove(&format!("{layer}.scales"))?;
        let biases = self.tensors.remove(&format!("{layer}.biases"))?;
        let bits = packed.cols().checked_mul(WORD_BITS)?.checked_div(n_in)?;
        let bits = AffineBits::new(u8::try_from(bits).ok()?)?;
        let group = n_in.checked_div(scales.cols())?;
        Some(Affine::new(bits, group, packed, scales, biases).map(Quantized::Affine))
    }

    /// Drops what stands beside a layer's weight for other programs.
    pub(super) fn drop_unused(&mut self, layer: &str) {
        for unused in UNUSED {
            self.tensors.remove(&format!("{layer}.{unused}"));
        }
    }

    fn float8(&mut self, layer: &str, values: Tensor, _n_in: usize) -> Option<TensorResult<Quantized>> {
        Some(float8(values, self.take_scale(layer).as_ref()))
    }

    /// The scale of a layer's 8-bit floats.
    pub(super) fn take_scale(&mut self, layer: &str) -> Option<Tensor> {
        SCALES.iter().find_map(|scale| self.tensors.remove(&format!("{layer}.{scale}")))
    }
}

/// A matrix of 8-bit floats with the scale that a file has for it.
pub(in crate::weights) fn float8(values: Tensor, scale: Option<&Tensor>) -> TensorResult<Quantized> {
    let vector = |t: &Tensor| ops::convert(&t.clone().reshape(Shape::vector(t.shape().count()))?, DType::F32);
    Ok(Quantized::Float8(Float8::new(values, scale.map(vector).transpose()?)?))
}

/// The values of a weight in f32, `[n_out, n_in]`.
pub(crate) fn widened(weight: &Weight) -> TensorResult<Tensor> {
    let rows: Vec<u32> = (0..u32::try_from(weight.n_out()).unwrap_or(u32::MAX)).collect();
    ops::embedding(weight, &rows, DType::F32)
}

/// The layer whose scale is of this name, if it is the scale of 8-bit floats.
pub(crate) fn scaled_layer(name: &str) -> Option<&str> {
    let (layer, part) = name.rsplit_once('.')?;
    SCALES.contains(&part).then_some(layer)
}

/// Whether a tensor of this name is for other programs.
pub(crate) fn is_unused(name: &str) -> bool {
    name == MARKER || name.rsplit_once('.').is_some_and(|(_, part)| UNUSED.contains(&part))
}

/// The first weight that is quantized, floats of 8 bits apart, and its format.
pub(crate) fn already_quantized(
    tensors: &BTreeMap<String, Tensor>,
    quantized: &BTreeMap<String, Quantized>,
) -> Option<(String, String)> {
    let whole = quantized.first_key_value().map(|(name, matrix)| (name.clone(), matrix.format()));
    let is_packed = |(name, tensor): &(&String, &Tensor)| {
        let layer = name.strip_suffix(".weight").filter(|_| matches!(tensor.dtype(), DType::U32 | DType::U8));
        layer.is_some_and(|layer| tensors.contains_key(&format!("{layer}.scales")))
    };
    let format = |codes: &Tensor| if codes.dtype() == DType::U8 { "int8" } else { "affine codes" };
    let packed = || tensors.iter().find(is_packed);
    whole.or_else(|| packed().map(|(name, codes)| (name.clone(), format(codes).to_owned())))
}

/// Whether a weight is quantized in another form than ComfyUI's bytes.
pub(super) fn already_packed(
    tensors: &BTreeMap<String, Tensor>,
    quantized: &BTreeMap<String, Quantized>,
) -> bool {
    quantized.values().any(|matrix| !matches!(matrix, Quantized::ConvRot(_)))
        || already_quantized(tensors, &BTreeMap::new()).is_some()
}
