//! The processor as a device: one dispatch table of kernels per instruction set, chosen once at start.

mod activation;
mod attention;
mod conv;
mod copy;
mod counting;
mod decode;
mod elementwise;
mod epilogue;
mod few;
mod fit;
mod gemm;
mod int8;
mod lanes;
mod mix;
mod norm;
mod operand;
mod panel;
mod peak;
mod pixels;
mod rope;
mod rotate;
mod rows;
mod scratch;
mod softmax;
mod table;
mod threads;
mod tile;
mod turned;

use std::sync::Arc;

pub use self::peak::process_seconds;
use self::table::Table;
use self::threads::Threads;
use crate::mapped::ahead;
use crate::ops::{
    AffineParts, Attention, ChannelNorm, Conv2d, Elementwise, Int8Rows, LayerNorm, Linear, Mix,
    QuantizeAffine, QuantizeInt8, RmsNorm, RopeNorm,
};
use crate::{AlignedBuffer, Backend, DType, Error, Ledger, Pool, Result, Storage, Tensor, Weight};

/// How to use the processor.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Number of threads; `None` for one a core.
    pub threads: Option<usize>,
    /// Instruction set: `scalar`, `avx2`, `avx512`, `avx512bf16`, `neon`; `None` for `INKSTONE_CPU`, or the best one
    /// there is.
    pub isa: Option<String>,
}

/// Names the instruction set where [`Options::isa`] does not.
const ISA_VARIABLE: &str = "INKSTONE_CPU";

/// The processor.
#[derive(Debug)]
pub struct Cpu {
    pool: Arc<Pool>,
    table: &'static Table,
    threads: Threads,
}

impl Cpu {
    /// Finds the instruction set and starts the threads.
    ///
    /// # Errors
    /// [`Error::Device`] if the instruction set is unknown or missing, or threads cannot start; [`Error::OutOfMemory`].
    pub fn new(options: &Options) -> Result<Self> {
        let variable = || std::env::var(ISA_VARIABLE).ok().filter(|name| !name.is_empty());
        let isa = options.isa.clone().or_else(variable);
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            pool: Arc::default(),
            table: Table::choose(isa.as_deref())?,
            threads: Threads::start(options.threads.unwrap_or_else(cores))?,
        })
    }

    /// The instruction sets this processor has kernels for, the best one last.
    #[must_use]
    pub fn available() -> Vec<&'static str> {
        Table::available().into_iter().map(|table| table.name).collect()
    }

    /// Memory that operations share with their jobs, such as packed keys; returns to the pool like any tensor.
    fn packing_buffer(&self, bytes: usize) -> Result<AlignedBuffer> {
        let out_of_memory = || Error::OutOfMemory { device: self.name(), wanted_bytes: bytes };
        self.pool.take(bytes).ok_or_else(out_of_memory)
    }
}

/// Nanoseconds that the system needs to map a part of a file, at least.
const PIECE_NS: usize = 10_000;

impl Cpu {
    /// Maps a weight's pages before they are read for the first time, on all threads.
    fn bring(&self, weight: &Weight) -> Result<()> {
        match weight {
            Weight::Dense(tensor) => self.bring_tensor(tensor),
            other => other.tensors().into_iter().try_for_each(|tensor| self.bring_tensor(tensor)),
        }
    }

    fn bring_tensor(&self, tensor: &Tensor) -> Result<()> {
        let (storage, span) = tensor.stored();
        let Storage::Mapped(file, range) = storage else { return Ok(()) };
        let range = range.start + span.start..range.start + span.end;
        let pieces = file.missing(range.clone());
        self.threads.run(pieces.len(), pieces.len() * PIECE_NS, |i| {
            file.read_ahead(ahead::within(&range, pieces.start + i));
        })
    }
}

/// A distance of a multiple of 4 KiB puts all rows into the same L1 sets; one line more avoids it.
fn row_stride(dtype: DType, cols: usize) -> usize {
    let bytes = cols * dtype.size_bytes();
    if bytes > 0 && bytes.is_multiple_of(4096) { cols + 64 / dtype.size_bytes() } else { cols }
}

impl Backend for Cpu {
    fn name(&self) -> String {
        format!("cpu ({}, {} threads)", self.table.name, self.threads.count())
    }

    fn alloc(&self, bytes: usize) -> Result<Storage> {
        self.packing_buffer(bytes).map(Storage::Owned)
    }

    fn held_bytes(&self) -> usize {
        self.pool.held_bytes()
    }

    fn trim(&self) {
        self.pool.clear();
    }

    fn row_stride(&self, dtype: DType, cols: usize) -> usize {
        row_stride(dtype, cols)
    }

    fn multiplies_bf16(&self) -> bool {
        self.table.multiplies_bf16()
    }

    fn multiply_registers(&self, operands: DType, loops: u32) -> Option<f64> {
        peak::multiply_registers(self, operands, loops)
    }

    fn counting(&self) -> Option<(Arc<dyn Backend>, Arc<Ledger>)> {
        let ledger = Arc::default();
        let counting = counting::Counting::new(Arc::clone(&ledger), self.table, self.threads.count());
        Some((Arc::new(counting), ledger))
    }

    fn wait(&self) {}

    fn linear(&self, args: &Linear<'_>, out: &mut Tensor) -> Result<()> {
        self.bring(args.weight)?;
        gemm::linear(self, args, out)
    }
    fn quantize_int8(&self, args: &QuantizeInt8<'_>, out: Int8Rows<'_>) -> Result<()> {
        int8::quantize(self, args, out)
    }
    fn attention(&self, args: &Attention<'_>, out: &mut [Tensor]) -> Result<()> {
        attention::attention(self, args, out)
    }
    fn conv2d(&self, args: &Conv2d<'_>, out: &mut Tensor) -> Result<()> {
        conv::conv2d(self, args, out)
    }
    fn layer_norm(&self, args: &LayerNorm<'_>, out: &mut Tensor) -> Result<()> {
        norm::layer_norm(self, args, out)
    }
    fn rms_norm(&self, args: &RmsNorm<'_>, out: &mut Tensor) -> Result<()> {
        norm::rms_norm(self, args, out)
    }
    fn rope_norm(&self, args: &RopeNorm<'_>, out: &mut Tensor) -> Result<()> {
        rope::rope_norm(self, args, out)
    }
    fn mix(&self, args: &Mix<'_>, out: &mut Tensor) -> Result<()> {
        mix::mix(self, args, out)
    }
    fn channel_norm(&self, args: &ChannelNorm<'_>, out: &mut Tensor) -> Result<()> {
        norm::channel_norm(self, args, out)
    }
    fn elementwise(&self, args: &Elementwise<'_>, out: &mut Tensor) -> Result<()> {
        elementwise::elementwise(self, args, out)
    }
    fn embedding(&self, table: &Weight, ids: &[u32], out: &mut Tensor) -> Result<()> {
        copy::embedding(self, table, ids, out)
    }
    fn concat_rows(&self, parts: &[&Tensor], out: &mut Tensor) -> Result<()> {
        copy::concat_rows(self, parts, out)
    }
    fn quantize_affine(&self, args: &QuantizeAffine<'_>, out: AffineParts<'_>) -> Result<()> {
        fit::quantize_affine(self, args, out)
    }
}
