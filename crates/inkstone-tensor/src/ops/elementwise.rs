//! Operations on matching elements.

use super::matrix::own;
use super::{Activation, check};
use crate::{DType, Result, Tensor};

/// An operation on matching elements of matrices of one shape.
#[derive(Clone, Copy, Debug)]
pub enum Elementwise<'a> {
    /// The value, in the output's type; `x` may be any float type.
    Convert(&'a Tensor),
    /// A function of the value.
    Activate(&'a Tensor, Activation),
    /// `factor * x`
    Scale(&'a Tensor, f32),
    /// `a + b`
    Add(&'a Tensor, &'a Tensor),
    /// `out += factor * b`: the output already holds the first term.
    AddScaled {
        /// The second term.
        b: &'a Tensor,
        /// Its factor.
        factor: f32,
    },
    /// `uncond + scale * (cond - uncond)`, rescaled.
    Guidance {
        /// The prediction for the prompt.
        cond: &'a Tensor,
        /// The prediction for the negative prompt.
        uncond: &'a Tensor,
        /// How far beyond the conditional prediction to go; 1 gives it back.
        scale: f32,
        /// What happens to the length of each row.
        rescale: Rescale,
    },
}

/// What guidance does with the length of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescale {
    /// Leaves it.
    None,
    /// Gives each row the length of the conditional prediction's row (Qwen-Image 1.x).
    ToConditional,
}

/// The same values in another type.
///
/// # Errors
/// `x` is not a float type, no memory.
pub fn convert(x: &Tensor, out: DType) -> Result<Tensor> {
    if !x.dtype().is_float() {
        return Err(crate::Error::DType {
            op: "convert",
            what: "x",
            expected: "a float type",
            got: x.dtype(),
        });
    }
    run("convert", x, &Elementwise::Convert(x), out)
}

/// A function of every element.
///
/// # Errors
/// `x` is not f32 or bf16, no memory.
pub fn activate(x: &Tensor, activation: Activation, out: DType) -> Result<Tensor> {
    check::activation("activate", "x", x)?;
    run("activate", x, &Elementwise::Activate(x, activation), out)
}

/// `factor * x`.
///
/// # Errors
/// `x` is not f32 or bf16, no memory.
pub fn scale(x: &Tensor, factor: f32, out: DType) -> Result<Tensor> {
    check::activation("scale", "x", x)?;
    run("scale", x, &Elementwise::Scale(x, factor), out)
}

/// `a + b`.
///
/// # Errors
/// Shapes that differ, no memory.
pub fn add(a: &Tensor, b: &Tensor, out: DType) -> Result<Tensor> {
    pair("add", a, b)?;
    run("add", a, &Elementwise::Add(a, b), out)
}

/// `a + factor * b`, in place where `a` is not shared.
///
/// # Errors
/// Shapes that differ, no memory.
pub fn scaled_add(a: Tensor, b: &Tensor, factor: f32) -> Result<Tensor> {
    pair("scaled_add", &a, b)?;
    let mut out = own(a)?;
    let device = out.device().clone();
    device.backend().elementwise(&Elementwise::AddScaled { b, factor }, &mut out)?;
    Ok(out)
}

/// Classifier-free guidance: `uncond + scale * (cond - uncond)`, each row rescaled as asked.
///
/// # Errors
/// Shapes that differ, no memory.
pub fn guidance(cond: &Tensor, uncond: &Tensor, scale: f32, rescale: Rescale) -> Result<Tensor> {
    pair("guidance", cond, uncond)?;
    run("guidance", cond, &Elementwise::Guidance { cond, uncond, scale, rescale }, cond.dtype())
}

fn pair(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    check::activation(op, "a", a)?;
    check::activation(op, "b", b)?;
    check::same_matrix(op, "b", b, a)
}

fn run(op: &'static str, like: &Tensor, args: &Elementwise<'_>, out: DType) -> Result<Tensor> {
    check::out_dtype(op, out)?;
    let mut result = Tensor::empty(like.device(), out, *like.shape())?;
    like.device().backend().elementwise(args, &mut result)?;
    Ok(result)
}
