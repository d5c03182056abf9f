//! Convolutions over pictures `[n, h, w, c]`, from weights stored in torch's order.

use std::ops::Range;

use inkstone_tensor::ops::{self, ConvWeight, Padding, Window};
use inkstone_tensor::{AlignedBuffer, DType, Pages, Shape, Storage, Tensor, Weight};

use super::strips::{Walk, size};
use crate::Result;
use crate::weights::Loader;

/// A convolution with a bias.
#[derive(Clone, Debug)]
pub struct Conv {
    weight: ConvWeight,
    bias: Tensor,
    stride: usize,
    padding: Padding,
    activations: DType,
}

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Side of the square kernel: 1 or 3.
    pub kernel: usize,
}

impl Conv {
    /// A causal 3-D convolution that only ever sees one frame: `NAME.weight [c_out, c_in, kernel, kernel, kernel]`.
    ///
    /// Causal padding puts zeros in front of the frame, so the last temporal slice of the kernel alone acts and
    /// the convolution is exactly that slice in two dimensions. Output size equals input size.
    pub fn load_causal(loader: &mut Loader, name: &str, shape: ConvShape) -> Self {
        let ConvShape { c_in, c_out, kernel } = shape;
        let stored = loader.tensor(&format!("{name}.weight"), &[c_out, c_in, kernel, kernel, kernel]);
        Self::finish(loader, name, shape, stored)
    }

    /// A 2-D convolution: `NAME.weight [c_out, c_in, kernel, kernel]`. Output size equals input size.
    pub fn load(loader: &mut Loader, name: &str, shape: ConvShape) -> Self {
        let ConvShape { c_in, c_out, kernel } = shape;
        let stored = loader.tensor(&format!("{name}.weight"), &[c_out, c_in, kernel, kernel]);
        Self::finish(loader, name, shape, stored)
    }

    /// The same convolution that halves the picture: stride 2, one row and column of zeros behind it.
    #[must_use]
    pub fn halving(mut self) -> Self {
        self.stride = 2;
        self.padding = Padding::behind(1);
        self
    }

    fn finish(loader: &mut Loader, name: &str, shape: ConvShape, stored: Tensor) -> Self {
        // A tensor that was misshapen stays as it is; the loader reports it when all are taken.
        let mut pages = Pages::default();
        pages.add(&stored);
        let matrix = tap_major(&stored, shape).unwrap_or(stored);
        pages.release(); // what was copied is not read again
        Self {
            weight: ConvWeight { matrix: Weight::Dense(matrix), kernel: shape.kernel },
            bias: loader.vector(&format!("{name}.bias"), shape.c_out),
            stride: 1,
            padding: Padding::all(shape.kernel / 2),
            activations: loader.activations(),
        }
    }

    /// The convolution of a strip, in the activations' type.
    ///
    /// # Shapes
    /// `x [n, h, w, c_in]`, result `[n, h', w', c_out]`; in a walk of several strips a strip's last lines are answered
    /// with the next one.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward(&self, x: &Tensor, walk: &mut Walk) -> Result<Tensor> {
        self.run(x, walk, self.activations)
    }

    /// The convolution in f32: a model's result.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward_f32(&self, x: &Tensor, walk: &mut Walk) -> Result<Tensor> {
        self.run(x, walk, DType::F32)
    }

    /// `residual + convolution`, in place where the residual is not shared.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward_add(&self, residual: Tensor, x: &Tensor, walk: &mut Walk) -> Result<Tensor> {
        let mut turn = walk.turn(x, self.weight.kernel, &self.window())?;
        let residual = turn.residual(residual)?;
        if turn.lines == 0 {
            return Ok(residual);
        }
        Ok(ops::conv2d_add(residual, x, &self.weight, &self.bias, turn.window())?)
    }

    fn run(&self, x: &Tensor, walk: &mut Walk, out: DType) -> Result<Tensor> {
        let turn = walk.turn(x, self.weight.kernel, &self.window())?;
        if turn.lines == 0 {
            let ([n, _, w, _], pad) = (size(x), self.padding.left + self.padding.right);
            let columns = (w + pad).saturating_sub(self.weight.kernel) / self.stride + 1;
            let nothing = Shape::nhwc(n, 0, columns, self.weight.matrix.n_out());
            return Ok(Tensor::empty(x.device(), out, nothing)?);
        }
        Ok(ops::conv2d(x, &self.weight, &self.bias, turn.window(), out)?)
    }

    /// What it sees of a whole picture.
    fn window(&self) -> Window<'static> {
        Window { above: None, stride: self.stride, padding: self.padding }
    }
}

/// The last temporal slice (the only one of a 2-D kernel) as `[c_out, kernel * kernel * c_in]`, taps outermost, in
/// the stored type. `None` if the tensor has another size.
fn tap_major(stored: &Tensor, shape: ConvShape) -> Option<Tensor> {
    let ConvShape { c_in, c_out, kernel } = shape;
    let taps = kernel * kernel;
    let slices = if stored.shape().dims().len() == 5 { kernel } else { 1 };
    if stored.shape().count() != c_out * c_in * slices * taps {
        return None;
    }
    let matrix = Shape::matrix(c_out, taps * c_in);
    if stored.is_counted() {
        stored.count_read();
        return Tensor::empty(stored.device(), stored.dtype(), matrix).ok();
    }
    let size = stored.dtype().size_bytes();
    let from = stored.to_bytes();
    let mut buffer = AlignedBuffer::zeroed(c_out * taps * c_in * size)?;
    let element = |i: usize| -> Range<usize> { i * size..(i + 1) * size };
    for (row, to) in buffer.as_mut_slice().chunks_exact_mut((taps * c_in * size).max(1)).enumerate() {
        for (i, to) in to.chunks_exact_mut(size).enumerate() {
            let (tap, c) = (i / c_in, i % c_in);
            let last_slice = (row * c_in + c) * slices + slices - 1;
            to.copy_from_slice(&from[element(last_slice * taps + tap)]);
        }
    }
    Tensor::from_storage(stored.device(), Storage::Owned(buffer), stored.dtype(), matrix).ok()
}

#[cfg(test)]
mod tests;
