//! Feed-forward networks.

use inkstone_tensor::Tensor;
use inkstone_tensor::ops::{Activation, RowTable};

use super::linear::Linear;
use crate::Result;
use crate::weights::Loader;

/// Linear, GELU (tanh form), linear: diffusers' `FeedForward` with `gelu-approximate`.
#[derive(Clone, Debug)]
pub struct GeluMlp {
    up: Linear,
    down: Linear,
}

impl GeluMlp {
    /// `NAME.net.0.proj` and `NAME.net.2`; the middle is `hidden` wide.
    pub fn load(loader: &mut Loader, name: &str, dim: usize, hidden: usize) -> Self {
        Self {
            up: Linear::load(loader, &format!("{name}.net.0.proj"), dim, hidden),
            down: Linear::load(loader, &format!("{name}.net.2"), hidden, dim),
        }
    }

    /// `residual + gate * mlp(x)`.
    ///
    /// # Shapes
    /// `residual [rows, dim]`, `x [rows, dim]`.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward_add(&self, residual: Tensor, gate: &RowTable, x: &Tensor) -> Result<Tensor> {
        let hidden = self.up.forward_activated(x, Activation::GeluTanh)?;
        self.down.forward_add(residual, Some(gate), &hidden)
    }
}

/// `down(silu(gate x) * (up x))`, without biases.
#[derive(Clone, Debug)]
pub struct SwigluMlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl SwigluMlp {
    /// `NAME.gate_proj`, `NAME.up_proj`, `NAME.down_proj`; the middle is `hidden` wide.
    pub fn load(loader: &mut Loader, name: &str, dim: usize, hidden: usize) -> Self {
        Self {
            gate: Linear::load_without_bias(loader, &format!("{name}.gate_proj"), dim, hidden),
            up: Linear::load_without_bias(loader, &format!("{name}.up_proj"), dim, hidden),
            down: Linear::load_without_bias(loader, &format!("{name}.down_proj"), hidden, dim),
        }
    }

    /// `residual + mlp(x)`.
    ///
    /// # Shapes
    /// `residual [rows, dim]`, `x [rows, dim]`.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward_add(&self, residual: Tensor, x: &Tensor) -> Result<Tensor> {
        let gate = self.gate.forward_activated(x, Activation::Silu)?;
        let hidden = self.up.forward_mul(gate, x)?;
        self.down.forward_add(residual, None, &hidden)
    }
}
