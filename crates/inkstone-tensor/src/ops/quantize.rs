//! From plain weights to weights of 8 bits.

use super::check;
use crate::{DType, Int8Weight, Result, Shape, Tensor};

/// Rotates and rounds the rows of a matrix; see [`quantize_int8`].
#[derive(Clone, Copy, Debug)]
pub struct QuantizeInt8<'a> {
    /// `[n_out, n_in]`, f32, bf16 or f16.
    pub matrix: &'a Tensor,
    /// How many inputs are rotated together.
    pub group: usize,
}

/// Where a device writes the result of [`QuantizeInt8`].
#[derive(Debug)]
pub struct Int8Rows<'a> {
    /// u8 `[n_out, n_in]`
    pub values: &'a mut Tensor,
    /// f32 `[n_out]`
    pub scales: &'a mut Tensor,
    /// For each row the sum of squares of what rounding changed, and of the values: f32 `[n_out, 2]`.
    pub squares: &'a mut Tensor,
}

/// A weight of 8 bits, and what it lost.
#[derive(Clone, Debug)]
pub struct RoundedWeight {
    /// The weight.
    pub weight: Int8Weight,
    /// Root of the mean square of what rounding changed, relative to that of the values.
    pub relative_error: f64,
}

/// Rotates the rows of a matrix and rounds each to 255 levels that reach to its largest value. `group` inputs are
/// rotated together; [`Int8Weight::group_of`] is the best choice.
///
/// # Shapes
/// `matrix [n_out, n_in]`, f32, bf16 or f16.
///
/// # Memory
/// One byte a value, and a few floats a row.
///
/// # Errors
/// Elements that are no floats, a group that does not fit, no memory.
pub fn quantize_int8(matrix: &Tensor, group: usize) -> Result<RoundedWeight> {
    const OP: &str = "quantize_int8";
    check::float(OP, "matrix", matrix)?;
    let device = matrix.device();
    let (n_out, n_in) = (matrix.rows(), matrix.cols());
    Int8Weight::check_group(OP, n_in, group)?;
    let mut values = Tensor::empty(device, DType::U8, Shape::matrix(n_out, n_in))?;
    let mut scales = Tensor::empty(device, DType::F32, Shape::vector(n_out))?;
    let mut squares = Tensor::empty(device, DType::F32, Shape::matrix(n_out, 2))?;
    let out = Int8Rows { values: &mut values, scales: &mut scales, squares: &mut squares };
    device.backend().quantize_int8(&QuantizeInt8 { matrix, group }, out)?;
    let squares = squares.to_f32()?;
    let sum = |i: usize| squares.iter().skip(i).step_by(2).map(|v| f64::from(*v)).sum::<f64>();
    let (error, all) = (sum(0), sum(1));
    let relative_error = if error == 0.0 { 0.0 } else { (error / all).sqrt() };
    Ok(RoundedWeight { weight: Int8Weight::new(values, scales, group)?, relative_error })
}
