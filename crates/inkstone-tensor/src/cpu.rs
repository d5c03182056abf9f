//! The processor as a device: one dispatch table of kernels per instruction set, found once at start.

use std::sync::Arc;

use crate::ops::{Attention, ChannelNorm, Conv2d, Elementwise, LayerNorm, Linear, RmsNorm, RopeNorm};
use crate::{Backend, DType, Error, Pool, Result, Storage, Tensor};

/// How to use the processor.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Number of threads; `None` for one a core.
    pub threads: Option<usize>,
    /// Instruction set: `scalar`, `avx2`, `avx512`; `None` for `INKSTONE_CPU`, or the best one there is.
    pub isa: Option<String>,
}

/// The processor.
#[derive(Debug)]
pub struct Cpu {
    pool: Arc<Pool>,
}

impl Cpu {
    /// Finds the instruction set and starts the threads.
    ///
    /// # Errors
    /// [`Error::Device`] if the instruction set is unknown or missing.
    pub fn new(_options: &Options) -> Result<Self> {
        Ok(Self { pool: Arc::default() })
    }
}

impl Backend for Cpu {
    fn name(&self) -> String {
        "cpu".into()
    }

    fn alloc(&self, bytes: usize) -> Result<Storage> {
        let out_of_memory = || Error::OutOfMemory { device: self.name(), wanted_bytes: bytes };
        self.pool.take(bytes).map(Storage::Owned).ok_or_else(out_of_memory)
    }

    fn row_stride(&self, dtype: DType, cols: usize) -> usize {
        // A distance of a multiple of 4 KiB puts all rows into the same L1 sets; one line more avoids it.
        let bytes = cols * dtype.size_bytes();
        if bytes > 0 && bytes.is_multiple_of(4096) { cols + 64 / dtype.size_bytes() } else { cols }
    }

    fn wait(&self) {}

    fn linear(&self, _args: &Linear<'_>, _out: &mut Tensor) {
        todo!()
    }
    fn attention(&self, _args: &Attention<'_>, _out: &mut [Tensor]) {
        todo!()
    }
    fn conv2d(&self, _args: &Conv2d<'_>, _out: &mut Tensor) {
        todo!()
    }
    fn layer_norm(&self, _args: &LayerNorm<'_>, _out: &mut Tensor) {
        todo!()
    }
    fn rms_norm(&self, _args: &RmsNorm<'_>, _out: &mut Tensor) {
        todo!()
    }
    fn rope_norm(&self, _args: &RopeNorm<'_>, _out: &mut Tensor) {
        todo!()
    }
    fn channel_norm(&self, _args: &ChannelNorm<'_>, _out: &mut Tensor) {
        todo!()
    }
    fn elementwise(&self, _args: &Elementwise<'_>, _out: &mut Tensor) {
        todo!()
    }
    fn upsample_nearest(&self, _x: &Tensor, _out: &mut Tensor) {
        todo!()
    }
    fn embedding(&self, _table: &Tensor, _ids: &[u32], _out: &mut Tensor) {
        todo!()
    }
    fn concat_rows(&self, _parts: &[&Tensor], _out: &mut Tensor) {
        todo!()
    }
}
