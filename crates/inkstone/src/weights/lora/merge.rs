//! Puts low-rank paths into the weight that they lie around.

use inkstone_tensor::{DType, Shape, Tensor, Weight, ops};

use super::LowRank;
use crate::Result;

/// `W + sum of factor * up down`, summed in f32 and rounded once: to f32 if the weight is, else to bf16.
///
/// # Shapes
/// `[n_out, n_in]`, as the weight.
///
/// # Memory
/// The weight in f32, and the result.
///
/// # Errors
/// No memory.
pub(crate) fn merged(weight: &Tensor, paths: &[LowRank]) -> Result<Tensor> {
    let out = if weight.dtype() == DType::F32 { DType::F32 } else { DType::Bf16 };
    let mut sum = ops::convert(weight, DType::F32)?;
    for path in paths {
        let (Weight::Dense(up), Weight::Dense(down)) = (&path.up, &path.down) else { continue };
        // The rows of `up` times the columns of `down`, as a product takes them.
        let scaled = ops::scale(&ops::convert(up, DType::F32)?, path.factor, DType::F32)?;
        let columns = Weight::Dense(transposed(down)?);
        sum = ops::linear_add(sum, None, &scaled, &columns, None)?;
    }
    Ok(ops::convert(&sum, out)?)
}

fn transposed(matrix: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let values = matrix.to_f32()?;
    let column = |col: usize| (0..rows).map(move |row| row * cols + col);
    let turned: Vec<f32> = (0..cols).flat_map(column).map(|at| values[at]).collect();
    Ok(Tensor::from_f32(matrix.device(), &turned, Shape::matrix(cols, rows))?)
}
