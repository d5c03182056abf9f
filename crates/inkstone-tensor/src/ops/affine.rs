//! From plain weights to packed codes with scales and biases.

use super::check;
use crate::quant::{Affine, AffineBits, FITTED_GROUP};
use crate::{DType, Result, Shape, Tensor};

/// Quantizes the rows of a matrix; see [`quantize_affine`].
#[derive(Clone, Copy, Debug)]
pub struct QuantizeAffine<'a> {
    /// `[n_out, n_in]`, f32, bf16 or f16.
    pub matrix: &'a Tensor,
    /// Of a code.
    pub bits: AffineBits,
}

/// Where a device writes the result of [`QuantizeAffine`].
#[derive(Debug)]
pub struct AffineParts<'a> {
    /// u32 `[n_out, n_in * bits / 32]`
    pub packed: &'a mut Tensor,
    /// bf16 `[n_out, n_in / 64]`
    pub scales: &'a mut Tensor,
    /// The same.
    pub biases: &'a mut Tensor,
    /// For each row the root of the mean square of what was changed, and of the values: f32 `[n_out, 2]`.
    pub roots: &'a mut Tensor,
}

/// A quantized matrix, and what it lost.
#[derive(Clone, Debug)]
pub struct FittedMatrix {
    /// The matrix.
    pub matrix: Affine,
    /// Root of the mean square of what was changed, relative to that of the values; not finite if a value is not.
    pub relative_error: f64,
}

/// Rounds the rows of a matrix to codes of 3 to 8 bits, with a bf16 scale and bias for each 64 of them. These are
/// chosen by the error that is left; all devices give the same bytes.
///
/// # Shapes
/// `matrix [n_out, n_in]`, f32, bf16 or f16, `n_in` a multiple of 64.
///
/// # Memory
/// `bits / 8 + 1 / 16` bytes a value, and two floats a row.
///
/// # Errors
/// Elements that are no floats, rows that are no whole groups, no memory.
pub fn quantize_affine(matrix: &Tensor, bits: AffineBits) -> Result<FittedMatrix> {
    const OP: &str = "quantize_affine";
    check::float(OP, "matrix", matrix)?;
    let (device, n_out, n_in) = (matrix.device(), matrix.rows(), matrix.cols());
    if !n_in.is_multiple_of(FITTED_GROUP) {
        return check::shape(OP, "matrix", matrix, format!("rows of a multiple of {FITTED_GROUP} values"));
    }
    let empty = |dtype, cols| Tensor::empty(device, dtype, Shape::matrix(n_out, cols));
    let mut packed = empty(DType::U32, n_in / 32 * usize::from(bits.get()))?;
    let mut scales = empty(DType::Bf16, n_in / FITTED_GROUP)?;
    let mut biases = empty(DType::Bf16, n_in / FITTED_GROUP)?;
    let mut roots = empty(DType::F32, 2)?;
    let out =
        AffineParts { packed: &mut packed, scales: &mut scales, biases: &mut biases, roots: &mut roots };
    device.backend().quantize_affine(&QuantizeAffine { matrix, bits }, out)?;
    let roots = roots.to_f32()?;
    let total = |i: usize| roots.iter().skip(i).step_by(2).map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let (error, all) = (total(0), total(1));
    let relative_error = if error == 0.0 { 0.0 } else { (error / all).sqrt() };
    let matrix = Affine::new(bits, FITTED_GROUP, packed, scales, biases)?;
    Ok(FittedMatrix { matrix, relative_error })
}
