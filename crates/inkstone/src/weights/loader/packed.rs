//! Weights that are stored as several tensors: packed codes or small numbers beside their scales.
//!
//! # Source
//! - MLX: `NAME.weight` u32 with `NAME.scales` and `NAME.biases`; bits and group follow from the sizes.
//! - This program: `NAME.weight` u8 with `NAME.scales` f32, for products of bytes.
//! - ComfyUI: `NAME.weight` in an 8-bit float with `NAME.scale_weight` or `NAME.weight_scale`, or without a scale.

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
        for unused in UNUSED {
            self.tensors.remove(&format!("{layer}.{unused}"));
        }
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

    fn float8(&mut self, layer: &str, values: Tensor, _n_in: usize) -> Option<TensorResult<Quantized>> {
        let mut scales = SCALES.iter().filter_map(|scale| self.tensors.remove(&format!("{layer}.{scale}")));
        let scale = scales.next();
        let build = |scale: Option<Tensor>| {
            let vector =
                |t: Tensor| ops::convert(&t.clone().reshape(Shape::vector(t.shape().count()))?, DType::F32);
            Ok(Quantized::Float8(Float8::new(values, scale.map(vector).transpose()?)?))
        };
        Some(build(scale))
    }
}
