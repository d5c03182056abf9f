//! Puts the paths around a weight into it.

use inkstone_tensor::{DType, Shape, Tensor, Weight, ops};

use super::SidePath;
use crate::Result;

/// `W + sum of factor * kron(left, up down)`, summed in f32 and rounded once: to f32 if the weight is, else to bf16.
///
/// # Shapes
/// `[n_out, n_in]`, as the weight.
///
/// # Memory
/// The weight in f32, for a Kronecker product three times, and the result.
///
/// # Errors
/// No memory.
pub(crate) fn merged(weight: &Tensor, paths: &[SidePath]) -> Result<Tensor> {
    let out = if weight.dtype() == DType::F32 { DType::F32 } else { DType::Bf16 };
    let mut sum = ops::convert(weight, DType::F32)?;
    for path in paths {
        let (Weight::Dense(up), down) = (&path.up, path.down.as_ref().map(Weight::tensors)) else { continue };
        let down = down.and_then(|tensors| tensors.first().copied());
        sum = match (path.left.as_slice(), down) {
            ([], Some(down)) => add_product(sum, up, down, path.factor)?,
            ([], None) => continue,
            ([left], _) => add_kronecker(&sum, left, &right(up, down)?, path.factor)?,
            ([first, last, ..], _) => {
                add_kronecker(&sum, &product(last, first)?, &right(up, down)?, path.factor)?
            }
        };
    }
    Ok(ops::convert(&sum, out)?)
}

/// `sum + factor * a b`
fn add_product(sum: Tensor, a: &Tensor, b: &Tensor, factor: f32) -> Result<Tensor> {
    // The rows of `a` times the columns of `b`, as a product takes them.
    let scaled = ops::scale(&ops::convert(a, DType::F32)?, factor, DType::F32)?;
    let columns = Weight::Dense(transposed(b)?);
    Ok(ops::linear_add(sum, None, &scaled, &columns, None)?)
}

/// `a b` in f32.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let columns = Weight::Dense(transposed(b)?);
    let rows = ops::convert(a, DType::F32)?;
    Ok(ops::linear(&rows, &columns, None, ops::Activation::None, DType::F32)?)
}

/// The second matrix of a Kronecker product.
fn right(up: &Tensor, down: Option<&Tensor>) -> Result<Tensor> {
    down.map_or_else(|| Ok(up.clone()), |down| product(up, down))
}

/// `sum + factor * kron(left, right)`
fn add_kronecker(sum: &Tensor, left: &Tensor, right: &Tensor, factor: f32) -> Result<Tensor> {
    let (mut values, blocks, block) = (sum.to_f32()?, left.to_f32()?, right.to_f32()?);
    let (across, [high, wide]) = (left.cols(), [right.rows(), right.cols()]);
    // Each row of `sum` is `across` parts as wide as `right`, which have a row of it with factors of their own.
    for (r, row) in values.chunks_mut((across * wide).max(1)).enumerate() {
        let from = &block[r % high * wide..][..wide];
        let factors = &blocks[r / high * across..][..across];
        for (part, left) in row.chunks_mut(wide.max(1)).zip(factors) {
            for (to, right) in part.iter_mut().zip(from) {
                *to += factor * left * right;
            }
        }
    }
    Ok(Tensor::from_f32(sum.device(), &values, *sum.shape())?)
}

fn transposed(matrix: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let values = matrix.to_f32()?;
    let column = |col: usize| (0..rows).map(move |row| row * cols + col);
    let turned: Vec<f32> = (0..cols).flat_map(column).map(|at| values[at]).collect();
    Ok(Tensor::from_f32(matrix.device(), &turned, Shape::matrix(cols, rows))?)
}
