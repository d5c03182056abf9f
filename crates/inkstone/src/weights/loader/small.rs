//! Vectors, convolutions and other small tensors in formats that only products read: their values, in f32.
//!
//! Whole networks are cast to 8-bit floats with one call in PyTorch, and some files have blocks or f64 in their vectors.
//! Kernels read those as f32, so they are decoded while they are loaded.

use inkstone_tensor::{DType, Error as TensorError, Result as TensorResult, Shape, Tensor, Weight};

use super::{Loader, packed};
use crate::error::WrongTensor;

impl Loader<'_> {
    /// The values of a tensor in f32, if it is there in blocks, in 8-bit floats or in f64. What does not fit is noted. Its
    /// factors, if it has some, are beside a `.weight` as those of a matrix are: one, or one for each output.
    pub(super) fn decoded(&mut self, name: &str, dims: &[usize]) -> Option<Tensor> {
        let shape = Shape::new(dims)?;
        let (decoded, have) = if let Some(matrix) = self.quantized.remove(name) {
            let format = matrix.format();
            let (have, fits) = match self.shapes.remove(name) {
                Some(have) => (have, have == shape),
                None => (
                    matrix.shape(),
                    matrix.shape().rows() == shape.rows() && matrix.shape().cols() == shape.cols(),
                ),
            };
            let matrix = Weight::from(matrix);
            matrix.tensors().into_iter().for_each(|tensor| self.pages.add(tensor));
            (fits.then(|| values_of(&matrix, shape)), format!("{have} in {format}"))
        } else {
            let dtype = self.tensors.get(name)?.dtype();
            if !matches!(dtype, DType::F8E4m3 | DType::F8E5m2 | DType::F64) {
                return None;
            }
            let stored = self.tensors.remove(name)?;
            let have = format!("{} in {dtype}", stored.shape());
            let fits = stored.shape().dims() == dims;
            (fits.then(|| self.plain_values(name, &stored)).flatten(), have)
        };
        Some(match decoded {
            Some(Ok(values)) => values,
            Some(Err(error)) => {
                self.failure.get_or_insert(error.into());
                self.nothing()
            }
            None => {
                let want = format!("{dims:?}");
                self.report.misshapen.push(WrongTensor { name: name.into(), want, have });
                self.nothing()
            }
        })
    }

    /// Those of a tensor that is no matrix of a format; `None` if its factors do not fit.
    fn plain_values(&mut self, name: &str, stored: &Tensor) -> Option<TensorResult<Tensor>> {
        self.pages.add(stored);
        let layer = name.strip_suffix(".weight");
        let scale = layer.and_then(|layer| self.take_scale(layer));
        layer.into_iter().for_each(|layer| self.drop_unused(layer));
        match in_f32(stored, scale.as_ref()) {
            Err(TensorError::Shape { .. } | TensorError::DType { .. }) => None,
            values => Some(values),
        }
    }
}

/// A tensor of f64 or 8-bit floats in f32, with the factors that a file has for it; others as they are.
///
/// # Errors
/// Factors that do not fit, no memory.
pub(crate) fn in_f32(stored: &Tensor, scale: Option<&Tensor>) -> TensorResult<Tensor> {
    match stored.dtype() {
        DType::F64 => narrowed(stored),
        DType::F8E4m3 | DType::F8E5m2 => {
            let shape = *stored.shape();
            // Outputs are the outermost dimension; a vector has none.
            let outputs = if let [outputs, _, ..] = *shape.dims() { outputs } else { 1 };
            let matrix = Shape::matrix(outputs, shape.count() / outputs.max(1));
            values_of(&packed::float8(stored.clone().reshape(matrix)?, scale)?.into(), shape)
        }
        _ => Ok(stored.clone()),
    }
}

/// The values of a matrix, under another shape.
fn values_of(matrix: &Weight, shape: Shape) -> TensorResult<Tensor> {
    let rows = packed::widened(matrix)?;
    if rows.is_counted() {
        return Tensor::empty(rows.device(), DType::F32, shape);
    }
    Tensor::from_f32(rows.device(), &rows.to_f32()?, shape)
}

/// f64 rounded to f32.
fn narrowed(stored: &Tensor) -> TensorResult<Tensor> {
    if stored.is_counted() {
        stored.count_read();
        return Tensor::empty(stored.device(), DType::F32, *stored.shape());
    }
    #[allow(clippy::cast_possible_truncation, reason = "to the nearest f32")]
    let narrow = |bytes: &[u8; 8]| f64::from_le_bytes(*bytes) as f32;
    let values: Vec<f32> = stored.to_bytes().as_chunks().0.iter().map(narrow).collect();
    Tensor::from_f32(stored.device(), &values, *stored.shape())
}
