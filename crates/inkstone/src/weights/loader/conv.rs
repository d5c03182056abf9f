//! Weights of convolutions: from torch's order to the order that kernels read, and to bytes.

mod doubling;

use std::borrow::Cow;
use std::sync::{Mutex, OnceLock, PoisonError};

use inkstone_tensor::ops::ConvWeight;
use inkstone_tensor::{AlignedBuffer, DType, Error as TensorError, Pages, Shape, Storage, Tensor, Weight};

use super::Loader;
use crate::weights::quantize::Rule;

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Side of the square kernel: 1 or 3; or [`ConvWeight::DOUBLING`], which is stored as one of 3.
    pub kernel: usize,
}

impl ConvShape {
    /// How often a pixel is seen in each direction.
    #[must_use]
    pub const fn zoom(self) -> usize {
        if self.kernel == ConvWeight::DOUBLING { 2 } else { 1 }
    }

    /// Side of the kernel in pixels as they are seen, which is how it is stored.
    #[must_use]
    pub const fn side(self) -> usize {
        if self.kernel == ConvWeight::DOUBLING { 3 } else { self.kernel }
    }

    /// Sizes of the matrix that kernels multiply with.
    const fn matrix(self) -> [usize; 2] {
        [self.zoom() * self.zoom() * self.c_out, self.kernel * self.kernel * self.c_in]
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

/// A convolution's weight as a file holds it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) tensor: Tensor,
    pub(crate) order: Order,
    /// The type of weights that are sums: f32 or bf16.
    pub(crate) sums: DType,
}

impl Loader<'_> {
    /// The weight of the convolution `name`: from `NAME.weight [c_out, c_in, kernel, ..]`, its kernel of 2 or 3 dimensions
    /// of which the last two act, or from bytes as `convert` stores them. A rule of products of bytes decides about it as
    /// about a linear layer; no other rule does, since packed codes save little where every pixel is multiplied with them.
    pub fn kernel(&mut self, name: &str, shape: ConvShape, dims: usize) -> Kernel {
        let ConvShape { c_in, c_out, .. } = shape;
        self.convolutions.push((name.to_owned(), shape));
        let before = self.pages.clone();
        let rule = self.rule.filter(|rule| matches!(rule, Rule::Int8(_)));
        if let Some(bytes) = self.int8(name, shape.matrix(), c_in) {
            let weight = if rule.is_some() { self.by_rule(name, bytes, c_in, before) } else { bytes };
            return Kernel::ready(shape, weight);
        }
        let taps = vec![shape.side(); dims];
        let dims = match self.order {
            Order::ChannelsFirst => [vec![c_out, c_in], taps].concat(),
            Order::ChannelsLast => [vec![c_out], taps, vec![c_in]].concat(),
        };
        let stored = self.tensor(&format!("{name}.weight"), &dims);
        let stored = Stored { tensor: stored, order: self.order, sums: self.activations };
        if rule.is_none() || stored.tensor.shape().count() == 0 {
            return Kernel::new(shape, stored);
        }
        match tap_major_once(&Stored { sums: DType::F32, ..stored.clone() }, shape) {
            Ok(matrix) => Kernel::ready(shape, self.by_rule(name, Weight::Dense(matrix), c_in, before)),
            Err(error) => {
                self.failure.get_or_insert(error.into());
                Kernel::new(shape, stored)
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
    ready: OnceLock<ConvWeight>,
    /// Until it is ready.
    stored: Mutex<Option<Stored>>,
}

impl Kernel {
    /// A tensor that is misshapen stays as it is; the loader reports it when all are taken.
    fn new(shape: ConvShape, stored: Stored) -> Self {
        let mut pages = Pages::default();
        pages.add(&stored.tensor);
        let kernel = Self { shape, ready: OnceLock::new(), stored: Mutex::new(Some(stored)) };
        if pages.len_bytes() == 0 {
            let _ = kernel.weight(); // fails again where it is used
        }
        kernel
    }

    fn ready(shape: ConvShape, matrix: Weight) -> Self {
        let weight = ConvWeight { matrix, kernel: shape.kernel };
        Self { shape, ready: OnceLock::from(weight), stored: Mutex::new(None) }
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
            let matrix = Weight::Dense(tap_major_once(stored, self.shape)?);
            // Nobody else has set it: they wait for the lock.
            let _ = self.ready.set(ConvWeight { matrix, kernel: self.shape.kernel });
            *waiting = None;
        }
        Ok(self.ready.wait())
    }
}

/// [`tap_major`] of a tensor whose file is not read again.
fn tap_major_once(stored: &Stored, shape: ConvShape) -> Result<Tensor, TensorError> {
    let mut pages = Pages::default();
    pages.add(&stored.tensor);
    let matrix = tap_major(stored, shape)?;
    pages.release();
    Ok(matrix)
}

/// The last temporal slice (the only one of a 2-D kernel) as the matrix of a [`ConvWeight`]: in the stored type, sums in
/// theirs.
pub(crate) fn tap_major(stored: &Stored, shape: ConvShape) -> Result<Tensor, TensorError> {
    let (Stored { tensor, order, sums }, ConvShape { c_in, c_out, .. }) = (stored, shape);
    let taps = shape.side() * shape.side();
    let slices = if tensor.shape().dims().len() == 5 { shape.side() } else { 1 };
    if tensor.shape().count() != c_out * c_in * slices * taps {
        let expected = format!("{c_out} x {c_in} x {} elements", slices * taps);
        return Err(TensorError::Shape { op: "conv2d", what: "the kernel", expected, got: *tensor.shape() });
    }
    let [rows, cols] = shape.matrix();
    let (matrix, dtype) = (Shape::matrix(rows, cols), tensor.dtype());
    let doubles = shape.zoom() > 1;
    if tensor.is_counted() {
        tensor.count_read();
        return Tensor::empty(tensor.device(), if doubles { *sums } else { dtype }, matrix);
    }
    let mut buffer = zeroed(c_out * taps * c_in * dtype.size_bytes())?;
    // Rows of files are not padded.
    let whole = tensor.row_stride() == tensor.cols();
    let from = if whole { Cow::Borrowed(tensor.bytes()) } else { Cow::Owned(tensor.to_bytes()) };
    let (from, to) = (&from[..], buffer.as_mut_slice());
    match dtype.size_bytes() {
        2 => gather(from.as_chunks::<2>().0, to.as_chunks_mut::<2>().0, taps, c_in, slices, *order),
        4 => gather(from.as_chunks::<4>().0, to.as_chunks_mut::<4>().0, taps, c_in, slices, *order),
        _ => {
            return Err(TensorError::DType {
                op: "conv2d",
                what: "the kernel",
                expected: "a float",
                got: dtype,
            });
        }
    }
    if !doubles {
        return Tensor::from_storage(tensor.device(), Storage::Owned(buffer), dtype, matrix);
    }
    let mut doubled = zeroed(matrix.count() * sums.size_bytes())?;
    doubling::add_taps(buffer.as_slice(), dtype, (doubled.as_mut_slice(), *sums), shape);
    Tensor::from_storage(tensor.device(), Storage::Owned(doubled), *sums, matrix)
}

fn zeroed(wanted_bytes: usize) -> Result<AlignedBuffer, TensorError> {
    let out_of_memory = || TensorError::OutOfMemory { device: "host".into(), wanted_bytes };
    AlignedBuffer::zeroed(wanted_bytes).ok_or_else(out_of_memory)
}

/// Elements `[c_out, c_in, slices, taps]` or `[c_out, slices, taps, c_in]` to `[c_out, taps, c_in]` of the last slice.
fn gather<T: Copy>(from: &[T], to: &mut [T], taps: usize, c_in: usize, slices: usize, order: Order) {
    let (c_in, taps) = (c_in.max(1), taps.max(1));
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
