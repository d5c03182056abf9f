//! Convolutions over pictures `[n, h, w, c]`, from weights stored in torch's order.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use inkstone_tensor::ops::{self, ConvWeight, Padding, Window};
use inkstone_tensor::{AlignedBuffer, DType, Error as TensorError, Pages, Shape, Storage, Tensor, Weight};

use super::strips::{Walk, size};
use crate::Result;
use crate::weights::Loader;

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
        Self {
            kernel: Arc::new(Kernel::new(shape, stored)),
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
        let mut turn = walk.turn(x, self.kernel.shape.kernel, &self.window())?;
        let residual = turn.residual(residual)?;
        if turn.lines == 0 {
            return Ok(residual);
        }
        Ok(ops::conv2d_add(residual, x, self.kernel.weight()?, &self.bias, turn.window())?)
    }

    fn run(&self, x: &Tensor, walk: &mut Walk, out: DType) -> Result<Tensor> {
        let ConvShape { c_out, kernel, .. } = self.kernel.shape;
        let turn = walk.turn(x, kernel, &self.window())?;
        if turn.lines == 0 {
            let ([n, _, w, _], pad) = (size(x), self.padding.left + self.padding.right);
            let columns = (w + pad).saturating_sub(kernel) / self.stride + 1;
            let nothing = Shape::nhwc(n, 0, columns, c_out);
            return Ok(Tensor::empty(x.device(), out, nothing)?);
        }
        Ok(ops::conv2d(x, self.kernel.weight()?, &self.bias, turn.window(), out)?)
    }

    /// What it sees of a whole picture.
    fn window(&self) -> Window<'static> {
        Window { above: None, stride: self.stride, padding: self.padding }
    }
}

/// A convolution's weight, in torch's order and then in the kernel's.
///
/// One in a mapped file waits there for its first use: a picture drawn from text never needs the encoder's, and no step
/// waits for the decoder's. One in memory is brought into order at once, so that it does not lie there twice.
#[derive(Debug)]
struct Kernel {
    shape: ConvShape,
    ready: OnceLock<ConvWeight>,
    /// Until it is ready.
    stored: Mutex<Option<Tensor>>,
}

impl Kernel {
    /// A tensor that is misshapen stays as it is; the loader reports it when all are taken.
    fn new(shape: ConvShape, stored: Tensor) -> Self {
        let mut pages = Pages::default();
        pages.add(&stored);
        let kernel = Self { shape, ready: OnceLock::new(), stored: Mutex::new(Some(stored)) };
        if pages.len_bytes() == 0 {
            let _ = kernel.weight(); // fails again where it is used
        }
        kernel
    }

    fn weight(&self) -> Result<&ConvWeight, TensorError> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let mut waiting = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = waiting.as_ref() {
            let mut pages = Pages::default();
            pages.add(stored);
            let matrix = Weight::Dense(tap_major(stored, self.shape)?);
            pages.release(); // what was copied is not read again
            // Nobody else has set it: they wait for the lock.
            let _ = self.ready.set(ConvWeight { matrix, kernel: self.shape.kernel });
            *waiting = None;
        }
        Ok(self.ready.wait())
    }
}

/// The last temporal slice (the only one of a 2-D kernel) as `[c_out, kernel * kernel * c_in]`, taps outermost, in
/// the stored type.
fn tap_major(stored: &Tensor, shape: ConvShape) -> Result<Tensor, TensorError> {
    let ConvShape { c_in, c_out, kernel } = shape;
    let taps = kernel * kernel;
    let slices = if stored.shape().dims().len() == 5 { kernel } else { 1 };
    if stored.shape().count() != c_out * c_in * slices * taps {
        let expected = format!("{c_out} x {c_in} x {} elements", slices * taps);
        return Err(TensorError::Shape { op: "conv2d", what: "the kernel", expected, got: *stored.shape() });
    }
    let (matrix, dtype) = (Shape::matrix(c_out, taps * c_in), stored.dtype());
    if stored.is_counted() {
        stored.count_read();
        return Tensor::empty(stored.device(), dtype, matrix);
    }
    let wanted_bytes = matrix.count() * dtype.size_bytes();
    let mut buffer = AlignedBuffer::zeroed(wanted_bytes)
        .ok_or_else(|| TensorError::OutOfMemory { device: "host".into(), wanted_bytes })?;
    // Rows of files are not padded.
    let whole = stored.row_stride() == stored.cols();
    let from = if whole { Cow::Borrowed(stored.bytes()) } else { Cow::Owned(stored.to_bytes()) };
    let (from, to) = (&from[..], buffer.as_mut_slice());
    match dtype.size_bytes() {
        2 => gather(from.as_chunks::<2>().0, to.as_chunks_mut::<2>().0, shape, slices),
        4 => gather(from.as_chunks::<4>().0, to.as_chunks_mut::<4>().0, shape, slices),
        _ => {
            return Err(TensorError::DType {
                op: "conv2d",
                what: "the kernel",
                expected: "a float",
                got: dtype,
            });
        }
    }
    Tensor::from_storage(stored.device(), Storage::Owned(buffer), dtype, matrix)
}

/// Elements `[c_out, c_in, slices, taps]` to `[c_out, taps, c_in]` of the last slice.
fn gather<T: Copy>(from: &[T], to: &mut [T], shape: ConvShape, slices: usize) {
    let (c_in, taps) = (shape.c_in.max(1), (shape.kernel * shape.kernel).max(1));
    let rows = from.chunks_exact(c_in * slices * taps).zip(to.chunks_exact_mut(c_in * taps));
    for (from, to) in rows {
        for (c, from) in from.chunks_exact(slices * taps).enumerate() {
            for (tap, value) in from[(slices - 1) * taps..].iter().enumerate() {
                to[tap * c_in + c] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests;
