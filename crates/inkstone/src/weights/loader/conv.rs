//! Weights of convolutions: from torch's order to the order that kernels read, and to bytes.

use std::borrow::Cow;
use std::sync::{Mutex, OnceLock, PoisonError};

use inkstone_tensor::ops::ConvWeight;
use inkstone_tensor::{AlignedBuffer, Error as TensorError, Pages, Shape, Storage, Tensor, Weight};

use super::Loader;
use crate::weights::quantize::Rule;

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

impl ConvShape {
    /// Of a weight in torch's order; `None` if it is none.
    pub(crate) fn of(stored: &Tensor) -> Option<Self> {
        match *stored.shape().dims() {
            [c_out, c_in, kernel, _] | [c_out, c_in, kernel, _, _] => Some(Self { c_in, c_out, kernel }),
            _ => None,
        }
    }
}

/// In which order a file holds the weights of convolutions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// `[c_out, c_in, taps ..]`, as torch has them.
    #[default]
    ChannelsFirst,
    /// `[c_out, taps .., c_in]`, as MLX has them.
    ChannelsLast,
}

impl Loader<'_> {
    /// The weight of the convolution `name`: from `NAME.weight [c_out, c_in, kernel, ..]`, its kernel of 2 or 3 dimensions
    /// of which the last two act, or from bytes as `convert` stores them. A rule of products of bytes decides about it as
    /// about a linear layer; no other rule does, since packed codes save little where every pixel is multiplied with them.
    pub fn kernel(&mut self, name: &str, shape: ConvShape, dims: usize) -> Kernel {
        let ConvShape { c_in, c_out, kernel } = shape;
        self.convolutions.push(name.to_owned());
        let before = self.pages.clone();
        let rule = self.rule.filter(|rule| matches!(rule, Rule::Int8(_)));
        if let Some(bytes) = self.int8(name, c_out, kernel * kernel * c_in) {
            let weight = if rule.is_some() { self.by_rule(name, bytes, before) } else { bytes };
            return Kernel::ready(shape, weight);
        }
        let taps = vec![kernel; dims];
        let dims = match self.order {
            Order::ChannelsFirst => [vec![c_out, c_in], taps].concat(),
            Order::ChannelsLast => [vec![c_out], taps, vec![c_in]].concat(),
        };
        let (stored, order) = (self.tensor(&format!("{name}.weight"), &dims), self.order);
        if rule.is_none() || stored.shape().count() == 0 {
            return Kernel::new(shape, stored, order);
        }
        match tap_major_once(&stored, shape, order) {
            Ok(matrix) => Kernel::ready(shape, self.by_rule(name, Weight::Dense(matrix), before)),
            Err(error) => {
                self.failure.get_or_insert(error.into());
                Kernel::new(shape, stored, order)
            }
        }
    }

    /// The weight of a convolution of one pixel, `NAME.weight [n_out, n_in, 1, 1]`, as a matrix.
    pub fn pixel_weight(&mut self, name: &str, n_out: usize, n_in: usize) -> Tensor {
        let dims = match self.order {
            Order::ChannelsFirst => [n_out, n_in, 1, 1],
            Order::ChannelsLast => [n_out, 1, 1, n_in],
        };
        let stored = self.tensor(&format!("{name}.weight"), &dims);
        // A tensor that was misshapen stays as it is; the loader reports it when all are taken.
        stored.clone().reshape(Shape::matrix(n_out, n_in)).unwrap_or(stored)
    }

    /// The factors of a norm over a pixel's channels, `NAME.gamma [channels, 1, ..]` with `ones` trailing ones, as a
    /// vector.
    pub fn pixel_norm(&mut self, name: &str, channels: usize, ones: usize) -> Tensor {
        let ones = if self.order == Order::ChannelsLast { 0 } else { ones };
        let dims: Vec<usize> = std::iter::once(channels).chain(std::iter::repeat_n(1, ones)).collect();
        let stored = self.tensor(&format!("{name}.gamma"), &dims);
        stored.clone().reshape(Shape::vector(channels)).unwrap_or(stored)
    }
}

/// A convolution's weight, in the file's order and then in the kernel's.
///
/// One in a mapped file waits there for its first use: a picture drawn from text never needs the encoder's, and no step
/// waits for the decoder's. One in memory is brought into order at once, so that it does not lie there twice.
#[derive(Debug)]
pub struct Kernel {
    shape: ConvShape,
    order: Order,
    ready: OnceLock<ConvWeight>,
    /// Until it is ready.
    stored: Mutex<Option<Tensor>>,
}

impl Kernel {
    /// A tensor that is misshapen stays as it is; the loader reports it when all are taken.
    fn new(shape: ConvShape, stored: Tensor, order: Order) -> Self {
        let mut pages = Pages::default();
        pages.add(&stored);
        let kernel = Self { shape, order, ready: OnceLock::new(), stored: Mutex::new(Some(stored)) };
        if pages.len_bytes() == 0 {
            let _ = kernel.weight(); // fails again where it is used
        }
        kernel
    }

    fn ready(shape: ConvShape, matrix: Weight) -> Self {
        let weight = ConvWeight { matrix, kernel: shape.kernel };
        let order = Order::default();
        Self { shape, order, ready: OnceLock::from(weight), stored: Mutex::new(None) }
    }

    /// Its sizes.
    #[must_use]
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// The weight, in order.
    ///
    /// # Errors
    /// A tensor that was misshapen, no memory.
    pub fn weight(&self) -> Result<&ConvWeight, TensorError> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let mut waiting = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = waiting.as_ref() {
            let matrix = Weight::Dense(tap_major_once(stored, self.shape, self.order)?);
            // Nobody else has set it: they wait for the lock.
            let _ = self.ready.set(ConvWeight { matrix, kernel: self.shape.kernel });
            *waiting = None;
        }
        Ok(self.ready.wait())
    }
}

/// [`tap_major`] of a tensor whose file is not read again.
fn tap_major_once(stored: &Tensor, shape: ConvShape, order: Order) -> Result<Tensor, TensorError> {
    let mut pages = Pages::default();
    pages.add(stored);
    let matrix = tap_major(stored, shape, order)?;
    pages.release();
    Ok(matrix)
}

/// The last temporal slice (the only one of a 2-D kernel) as `[c_out, kernel * kernel * c_in]`, taps outermost, in
/// the stored type.
pub(crate) fn tap_major(stored: &Tensor, shape: ConvShape, order: Order) -> Result<Tensor, TensorError> {
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
        2 => gather(from.as_chunks::<2>().0, to.as_chunks_mut::<2>().0, shape, slices, order),
        4 => gather(from.as_chunks::<4>().0, to.as_chunks_mut::<4>().0, shape, slices, order),
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

/// Elements `[c_out, c_in, slices, taps]` or `[c_out, slices, taps, c_in]` to `[c_out, taps, c_in]` of the last slice.
fn gather<T: Copy>(from: &[T], to: &mut [T], shape: ConvShape, slices: usize, order: Order) {
    let (c_in, taps) = (shape.c_in.max(1), (shape.kernel * shape.kernel).max(1));
    let rows = from.chunks_exact(c_in * slices * taps).zip(to.chunks_exact_mut(c_in * taps));
    for (from, to) in rows {
        if order == Order::ChannelsLast {
            to.copy_from_slice(&from[(slices - 1) * to.len()..]);
            continue;
        }
        for (c, from) in from.chunks_exact(slices * taps).enumerate() {
            for (tap, value) in from[(slices - 1) * taps..].iter().enumerate() {
                to[tap * c_in + c] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests;
