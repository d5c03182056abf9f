//! Looks for weights that are NaN or infinite.

use inkstone_tensor::{BlockFormat, DType, Quantized, Tensor};

use super::SafeTensors;
use crate::{Error, Result};

/// Names that an error lists.
const NAMES_SHOWN: usize = 5;
const BF16_EXPONENT: u16 = 0x7f80;
const F16_EXPONENT: u16 = 0x7c00;

/// # Errors
/// [`Error::WeightsNotFinite`].
pub(super) fn check(component: &str, tensors: &SafeTensors) -> Result<()> {
    let plain = tensors.tensors.iter().filter(|(_, tensor)| !is_finite(tensor)).map(|(name, _)| name);
    let quantized = tensors.quantized.iter().filter(|(_, matrix)| !scales_are_finite(matrix));
    let mut first: Vec<String> = plain.chain(quantized.map(|(name, _)| name)).cloned().collect();
    if first.is_empty() {
        return Ok(());
    }
    let count = first.len();
    first.truncate(NAMES_SHOWN);
    Err(Error::WeightsNotFinite { component: component.into(), count, first })
}

/// [`check`] of one tensor.
pub(crate) fn check_one(component: &str, name: &str, tensor: &Tensor) -> Result<()> {
    if is_finite(tensor) {
        return Ok(());
    }
    Err(Error::WeightsNotFinite { component: component.into(), count: 1, first: vec![name.to_owned()] })
}

/// NaN and infinity are the numbers whose exponent bits are all ones.
pub(super) fn is_finite(tensor: &Tensor) -> bool {
    let halves = |exponent: u16| {
        let (halves, _) = tensor.bytes().as_chunks::<2>();
        halves.iter().all(|half| u16::from_le_bytes(*half) & exponent != exponent)
    };
    match tensor.dtype() {
        DType::Bf16 => halves(BF16_EXPONENT),
        DType::F16 => halves(F16_EXPONENT),
        DType::F32 => {
            tensor.bytes().as_chunks::<4>().0.iter().all(|word| f32::from_le_bytes(*word).is_finite())
        }
        // The one that is no number; there is no infinity.
        DType::F8E4m3 => tensor.bytes().iter().all(|byte| byte & 0x7f != 0x7f),
        DType::F8E5m2 => tensor.bytes().iter().all(|byte| byte & 0x7c != 0x7c),
        DType::U8 | DType::I8 | DType::U32 | DType::I64 => true,
    }
}

/// Codes are whole numbers; only the halves that scale them can be something else.
fn scales_are_finite(matrix: &Quantized) -> bool {
    let Quantized::Blocks(blocks) = matrix else { return matrix.tensors().into_iter().all(is_finite) };
    let format = blocks.format();
    matrix.tensors().into_iter().flat_map(|t| t.bytes().chunks_exact(format.block_bytes())).all(|block| {
        let finite =
            |at: &usize| u16::from_le_bytes([block[*at], block[at + 1]]) & F16_EXPONENT != F16_EXPONENT;
        BlockFormat::halves(format).iter().all(finite)
    })
}
