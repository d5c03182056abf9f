//! Modulation: layer norm whose scale and shift, and residuals whose gate, come from the timestep.

use std::sync::Arc;

use inkstone_tensor::ops::{self, RowTable, Run};
use inkstone_tensor::{DType, Tensor};

use crate::Result;

/// Epsilon of every modulated layer norm of the Qwen-Image transformer (transformer_qwenimage.py, block and `norm_out`).
pub const LAYER_NORM_EPS: f32 = 1e-6;

/// Shift, scale and gate of one sub-layer.
#[derive(Clone, Debug)]
pub struct Modulation {
    /// Added to the norm.
    pub shift: RowTable,
    /// One less than the norm's factor.
    pub scale: RowTable,
    /// Factor of what is added to the residual.
    pub gate: RowTable,
}

impl Modulation {
    /// The `index`-th triple (shift, scale, gate) of a table `[entries, triples * 3 * dim]`.
    ///
    /// # Errors
    /// A table with fewer columns.
    pub fn of(table: &Tensor, index: usize, dim: usize, runs: &Arc<[Run]>) -> Result<Self> {
        let part = |k: usize| columns(table, 3 * index + k, dim, runs);
        Ok(Self { shift: part(0)?, scale: part(1)?, gate: part(2)? })
    }

    /// `norm(x) * (1 + scale) + shift`.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn norm(&self, x: &Tensor, out: DType) -> Result<Tensor> {
        Ok(ops::layer_norm(x, LAYER_NORM_EPS, &self.scale, &self.shift, out)?)
    }
}

/// Columns `index * dim ..` of a table, one entry for each run of rows.
///
/// # Errors
/// A table with fewer columns.
pub fn columns(table: &Tensor, index: usize, dim: usize, runs: &Arc<[Run]>) -> Result<RowTable> {
    Ok(RowTable { table: table.cols_range(index * dim..(index + 1) * dim)?, runs: runs.clone() })
}
