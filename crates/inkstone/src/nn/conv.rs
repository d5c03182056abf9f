//! Convolutions over pictures `[n, h, w, c]`.

use std::sync::Arc;

use inkstone_tensor::ops::{self, Padding, PixelNorm, Window};
use inkstone_tensor::{DType, Shape, Tensor};

use super::strips::{StripWalk, size};
use crate::Result;
use crate::weights::{Kernel, Loader};

pub use crate::weights::ConvShape;

/// A convolution with a bias.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Clones share it: it is brought into order once.
    kernel: Arc<Kernel>,
    bias: Tensor,
    stride: usize,
    padding: Padding,
    activations: DType,
}

impl Conv {
    /// A causal 3-D convolution that only ever sees one frame: `NAME.weight [c_out, c_in, kernel, kernel, kernel]`.
    ///
    /// Causal padding puts zeros in front of the frame, so the last temporal slice of the kernel alone acts and
    /// the convolution is exactly that slice in two dimensions. Output size equals input size.
    pub fn load_causal(loader: &mut Loader, name: &str, shape: ConvShape) -> Self {
        Self::of_dims(loader, name, shape, 3)
    }

    /// A 2-D convolution: `NAME.weight [c_out, c_in, kernel, kernel]`. Output size equals input size, or is twice that if the
    /// kernel doubles.
    pub fn load(loader: &mut Loader, name: &str, shape: ConvShape) -> Self {
        Self::of_dims(loader, name, shape, 2)
    }

    fn of_dims(loader: &mut Loader, name: &str, shape: ConvShape, dims: usize) -> Self {
        Self {
            kernel: Arc::new(loader.kernel(name, shape, dims)),
            bias: loader.vector(&format!("{name}.bias"), shape.c_out),
            stride: 1,
            padding: Padding::all(shape.side() / 2),
            activations: loader.activations(),
        }
    }

    /// The same convolution that halves the picture: stride 2, one row and column of zeros behind it.
    #[must_use]
    pub fn halving(mut self) -> Self {
        self.stride = 2;
        self.padding = Padding::behind(1);
        self
    }

    /// The convolution of a strip, in the activations' type.
    ///
    /// # Shapes
    /// `x [n, h, w, c_in]`, result `[n, h', w', c_out]`; in a walk of several strips a strip's last lines are answered
    /// with the next one.
    ///
    /// # Errors
    /// Shapes that do not fit, no memory.
    pub fn forward(&self, x: &Tensor, walk: &mut StripWalk) -> Result<Tensor> {
        self.run(x, None, walk, self.activations)
    }

    /// The convolution behind a norm.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward_normed(&self, x: &Tensor, norm: PixelNorm<'_>, walk: &mut StripWalk) -> Result<Tensor> {
        self.run(x, Some(norm), walk, self.activations)
    }

    /// The convolution in f32, behind a norm if there is one: a model's result.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward_f32(
        &self,
        x: &Tensor,
        norm: Option<PixelNorm<'_>>,
        walk: &mut StripWalk,
    ) -> Result<Tensor> {
        self.run(x, norm, walk, DType::F32)
    }

    /// `residual + convolution`, behind a norm, in place where the residual is not shared.
    ///
    /// # Errors
    /// As [`Conv::forward`].
    pub fn forward_add(
        &self,
        residual: Tensor,
        x: &Tensor,
        norm: PixelNorm<'_>,
        walk: &mut StripWalk,
    ) -> Result<Tensor> {
        let mut turn = walk.turn(x, self.kernel.shape(), &self.window())?;
        let residual = turn.residual(residual)?;
        if turn.lines == 0 {
            return Ok(residual);
        }
        let (weight, window) = (self.kernel.weight()?, turn.window());
        Ok(ops::conv2d_add_of(residual, x, Some(norm), weight, &self.bias, window)?)
    }

    fn run(
        &self,
        x: &Tensor,
        norm: Option<PixelNorm<'_>>,
        walk: &mut StripWalk,
        out: DType,
    ) -> Result<Tensor> {
        let shape = self.kernel.shape();
        let turn = walk.turn(x, shape, &self.window())?;
        if turn.lines == 0 {
            let ([n, _, w, _], pad) = (size(x), self.padding.left + self.padding.right);
            let columns = (w * shape.zoom() + pad).saturating_sub(shape.side()) / self.stride + 1;
            let nothing = Shape::nhwc(n, 0, columns, shape.c_out);
            return Ok(Tensor::empty(x.device(), out, nothing)?);
        }
        Ok(ops::conv2d_of(x, norm, self.kernel.weight()?, &self.bias, turn.window(), out)?)
    }

    /// What it sees of a whole picture.
    fn window(&self) -> Window<'static> {
        Window { above: None, stride: self.stride, padding: self.padding }
    }
}
