//! Puts what LoRAs add to a weight into it.

use inkstone_tensor::{DType, Shape, Tensor, Weight, ops};

use super::layers::{Delta, Layer, Matrix, Product};
use crate::Result;

/// `W + sum of factor * delta`, summed in f32 and rounded once: to f32 if the weight is, else to bf16.
///
/// # Shapes
/// `[n_out, n_in]`, as the weight.
///
/// # Memory
/// The weight in f32, for a Kronecker or elementwise product three times, and the result.
///
/// # Errors
/// No memory.
pub(crate) fn merged(weight: &Tensor, layers: &[Layer]) -> Result<Tensor> {
    let out = if weight.dtype() == DType::F32 { DType::F32 } else { DType::Bf16 };
    let mut sum = ops::convert(weight, DType::F32)?;
    for Layer { delta, factor, .. } in layers {
        sum = match delta {
            Delta::LowRank(product) => add_product(sum, product, *factor)?,
            Delta::Kronecker(left, right) => add_kronecker(&sum, &whole(left)?, &whole(right)?, *factor)?,
            Delta::Hadamard(first, second) => {
                let columns = Weight::Dense(transposed(&second.down)?);
                let rows = ops::convert(&second.up, DType::F32)?;
                let both = ops::linear_mul_with(product(first)?, &rows, &columns, None, &[])?;
                ops::scaled_add(sum, &both, *factor)?
            }
            Delta::Whole(difference) => {
                ops::scaled_add(sum, &ops::convert(difference, DType::F32)?, *factor)?
            }
        };
    }
    Ok(ops::convert(&sum, out)?)
}

/// `sum + factor * up down`
fn add_product(sum: Tensor, Product { up, down }: &Product, factor: f32) -> Result<Tensor> {
    // The rows of `up` times the columns of `down`, as a product takes them.
    let scaled = ops::scale(&ops::convert(up, DType::F32)?, factor, DType::F32)?;
    let columns = Weight::Dense(transposed(down)?);
    Ok(ops::linear_add(sum, None, &scaled, &columns, None)?)
}

/// `up down` in f32.
fn product(Product { up, down }: &Product) -> Result<Tensor> {
    let columns = Weight::Dense(transposed(down)?);
    let rows = ops::convert(up, DType::F32)?;
    Ok(ops::linear(&rows, &columns, None, ops::Activation::None, DType::F32)?)
}

/// A matrix of a Kronecker product.
fn whole(matrix: &Matrix) -> Result<Tensor> {
    match matrix {
        Matrix::Whole(matrix) => Ok(matrix.clone()),
        Matrix::Product(parts) => product(parts),
    }
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
