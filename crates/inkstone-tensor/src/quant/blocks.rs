//! Blocks that hold codes and scales side by side: the quantized formats of GGUF files.
//!
//! # Source
//! ggml's `ggml-common.h` (layouts) and `gguf-py/gguf/quants.py` (the reference decoder).

pub(crate) mod k;
pub(crate) mod legacy;

use super::{Codes, Unpack, unfit};
use crate::{DType, Error, Result, Shape, Tensor};

/// A format of blocks. `qB_0` has a scale, `qB_1` a scale and a minimum for 32 elements; `qB_K` have 256 elements a
/// block and scales of scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the formats'")]
pub enum BlockFormat {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockFormat {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Its name, such as `q4_K`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_K",
            Self::Q3K => "q3_K",
            Self::Q4K => "q4_K",
            Self::Q5K => "q5_K",
            Self::Q6K => "q6_K",
        }
    }

    /// Elements of a block.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => legacy::LEN,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => k::LEN,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => legacy::Q4_0_BYTES,
            Self::Q4_1 => legacy::Q4_1_BYTES,
            Self::Q5_0 => legacy::Q5_0_BYTES,
            Self::Q5_1 => legacy::Q5_1_BYTES,
            Self::Q8_0 => legacy::Q8_0_BYTES,
            Self::Q2K => k::Q2_K_BYTES,
            Self::Q3K => k::Q3_K_BYTES,
            Self::Q4K => k::Q4_K_BYTES,
            Self::Q5K => k::Q5_K_BYTES,
            Self::Q6K => k::Q6_K_BYTES,
        }
    }

    /// Where the halves lie in a block that scale its codes.
    #[must_use]
    pub const fn halves(self) -> &'static [usize] {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q2K => const { &[k::Q2_K_BYTES - 4, k::Q2_K_BYTES - 2] },
            Self::Q3K => const { &[k::Q3_K_BYTES - 2] },
            Self::Q6K => const { &[k::Q6_K_BYTES - 2] },
        }
    }

    /// Bytes of a row of `n_in` elements; `None` if they are no whole blocks, or overflow.
    #[must_use]
    pub fn row_bytes(self, n_in: usize) -> Option<usize> {
        if !n_in.is_multiple_of(self.block_len()) {
            return None;
        }
        (n_in / self.block_len()).checked_mul(self.block_bytes())
    }
}

/// A matrix of blocks.
#[derive(Clone, Debug)]
pub struct Blocks {
    format: BlockFormat,
    /// u8 `[n_out, row bytes]`
    data: Tensor,
}

impl Blocks {
    /// A matrix over the bytes of its rows, u8 `[n_out, n_in / block_len * block_bytes]`.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::Shape`] if rows are no whole blocks.
    pub fn new(format: BlockFormat, data: Tensor) -> Result<Self> {
        if data.dtype() != DType::U8 {
            return Err(Error::DType {
                op: "quantized",
                what: "the blocks",
                expected: "u8",
                got: data.dtype(),
            });
        }
        if !data.cols().is_multiple_of(format.block_bytes()) {
            let expected = format!("rows of whole blocks of {} bytes", format.block_bytes());
            return unfit("the blocks", &data, expected);
        }
        Ok(Self { format, data })
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    pub(super) fn shape(&self) -> Shape {
        let blocks = self.data.cols() / self.format.block_bytes();
        Shape::matrix(self.data.rows(), blocks * self.format.block_len())
    }

    pub(crate) fn data(&self) -> &Tensor {
        &self.data
    }
}

/// How a format's block is taken apart.
pub(crate) trait Block<const BYTES: usize> {
    /// Elements of a block.
    const LEN: usize;

    fn unpack(block: &[u8; BYTES], to: &mut Codes);
}

/// The blocks of a row.
pub(crate) struct BlockRow<'a, F, const BYTES: usize>(&'a [[u8; BYTES]], std::marker::PhantomData<F>);

impl<'a, F: Block<BYTES>, const BYTES: usize> BlockRow<'a, F, BYTES> {
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.as_chunks::<BYTES>().0, std::marker::PhantomData)
    }
}

impl<F: Block<BYTES>, const BYTES: usize> Unpack for BlockRow<'_, F, BYTES> {
    const LEN: usize = F::LEN;

    #[inline(always)]
    fn unpack(&self, i: usize, to: &mut Codes) {
        F::unpack(&self.0[i], to);
    }
}
