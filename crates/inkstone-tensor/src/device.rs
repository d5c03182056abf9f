//! A device that holds tensors and runs operations on them.

use std::fmt::Debug;
use std::sync::Arc;

use crate::ops::{
    AffineParts, Attention, ChannelNorm, Conv2d, Elementwise, Int8Rows, LayerNorm, Linear, Mix,
    QuantizeAffine, QuantizeInt8, RmsNorm, RopeNorm,
};
use crate::{DType, Ledger, Result, Storage, Tensor, Weight, cpu};

/// What a device must do. Arguments were checked by [`crate::ops`]; outputs are allocated and unshared.
///
/// Every method enqueues its work and returns; only [`Backend::wait`] waits. Later work sees earlier results. An operation
/// fails with [`crate::Error::OutOfMemory`] alone, where it finds no memory for its inside; its outputs are then undefined.
#[allow(clippy::missing_errors_doc, reason = "all operations have the one error above")]
pub trait Backend: Debug + Send + Sync {
    /// A short name for messages, such as `cpu (avx512, 2 threads)`.
    fn name(&self) -> String;
    /// Memory for a tensor, contents undefined.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`].
    fn alloc(&self, bytes: usize) -> Result<Storage>;
    /// Bytes of memory the device has taken for tensors, in use or kept to be used again.
    fn held_bytes(&self) -> usize;
    /// Gives memory that is kept to be used again back to the system.
    fn trim(&self);
    /// Distance between rows, in elements, that suits the device.
    fn row_stride(&self, dtype: DType, cols: usize) -> usize;
    /// Whether products of bf16 operands are faster than those of f32.
    fn multiplies_bf16(&self) -> bool;
    /// Multiplies registers alone, `loops` times on all threads, with the instruction that kernels use for operands of
    /// this type; returns the multiply-adds done, `None` where there is no such instruction.
    fn multiply_registers(&self, _operands: DType, _loops: u32) -> Option<f64> {
        None
    }
    /// A device that takes memory as this one does but only counts it; `None` if that is not known.
    fn counting(&self) -> Option<(Arc<dyn Backend>, Arc<Ledger>)> {
        None
    }
    /// Waits until everything enqueued is done.
    fn wait(&self);

    /// See [`crate::ops::linear`].
    fn linear(&self, args: &Linear<'_>, out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::quantize_int8`].
    fn quantize_int8(&self, args: &QuantizeInt8<'_>, out: Int8Rows<'_>) -> Result<()>;
    /// See [`crate::ops::attention`]; one output a stream.
    fn attention(&self, args: &Attention<'_>, out: &mut [Tensor]) -> Result<()>;
    /// See [`crate::ops::conv2d`].
    fn conv2d(&self, args: &Conv2d<'_>, out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::layer_norm`].
    fn layer_norm(&self, args: &LayerNorm<'_>, out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::rms_norm`].
    fn rms_norm(&self, args: &RmsNorm<'_>, out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::rope_norm`].
    fn rope_norm(&self, args: &RopeNorm<'_>, out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::mix`].
    fn mix(&self, args: &Mix<'_>, out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::channel_norm`].
    fn channel_norm(&self, args: &ChannelNorm<'_>, out: &mut Tensor) -> Result<()>;
    /// Element by element: activations, sums, guidance, conversion. See [`Elementwise`].
    fn elementwise(&self, args: &Elementwise<'_>, out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::embedding`].
    fn embedding(&self, table: &Weight, ids: &[u32], out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::concat_rows`].
    fn concat_rows(&self, parts: &[&Tensor], out: &mut Tensor) -> Result<()>;
    /// See [`crate::ops::quantize_affine`].
    fn quantize_affine(&self, args: &QuantizeAffine<'_>, out: AffineParts<'_>) -> Result<()>;
}

/// A handle on a device; clones are the same device.
#[derive(Clone, Debug)]
pub struct Device(Arc<dyn Backend>);

impl Device {
    /// The processor, with the best instruction set it has (or the one that `INKSTONE_CPU` names).
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the wanted instruction set is unknown or missing, or threads cannot start; [`crate::Error::OutOfMemory`].
    pub fn cpu(options: &cpu::Options) -> Result<Self> {
        Ok(Self(Arc::new(cpu::Cpu::new(options)?)))
    }

    /// A device with this backend.
    #[must_use]
    pub fn from_backend(backend: Arc<dyn Backend>) -> Self {
        Self(backend)
    }

    /// A short name for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Whether products of bf16 operands are faster here than those of f32.
    #[must_use]
    pub fn multiplies_bf16(&self) -> bool {
        self.0.multiplies_bf16()
    }

    /// Bytes of memory taken for tensors, in use or kept to be used again. Weights in mapped files do not count.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.held_bytes()
    }

    /// Multiplies registers alone, for benchmarks: `loops` times on all threads, with the instruction that kernels use
    /// for operands of this type (f32, bf16, i8). Returns the multiply-adds done, `None` where the device has no such
    /// instruction. No kernel can do more in the time that this takes.
    #[must_use]
    pub fn multiply_registers(&self, operands: DType, loops: u32) -> Option<f64> {
        self.0.multiply_registers(operands, loops)
    }

    /// A device that computes nothing and takes no memory, but counts in the ledger what this one would take for the
    /// same operations, and their multiply-adds. Its tensors have shapes and no bytes; weights are given to it as
    /// [`Ledger::file`] ranges. `None` if that is not known of this device.
    #[must_use]
    pub fn counting(&self) -> Option<(Self, Arc<Ledger>)> {
        self.0.counting().map(|(backend, ledger)| (Self(backend), ledger))
    }

    /// Gives memory that is kept to be used again back to the system: between works of different sizes.
    pub fn trim(&self) {
        self.0.trim();
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.0
    }

    pub(crate) fn row_stride(&self, dtype: DType, cols: usize) -> usize {
        self.0.row_stride(dtype, cols)
    }
}
