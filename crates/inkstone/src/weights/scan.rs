//! Looks for weights that are NaN or infinite.

use inkstone_tensor::{BlockFormat, Quantized, Tensor};

use super::SafeTensors;
use crate::{Error, Result};

/// Names that an error lists.
const NAMES_SHOWN: usize = 5;
const F16_EXPONENT: u16 = 0x7c00;

/// # Errors
/// [`Error::WeightsNotFinite`].
pub(super) fn check(component: &str, tensors: &SafeTensors) -> Result<()> {
    let plain = tensors.tensors.iter().filter(|(_, tensor)| !tensor.is_finite()).map(|(name, _)| name);
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
    if tensor.is_finite() {
        return Ok(());
    }
    Err(Error::WeightsNotFinite { component: component.into(), count: 1, first: vec![name.to_owned()] })
}

/// Codes are whole numbers; only the halves that scale them can be something else.
fn scales_are_finite(matrix: &Quantized) -> bool {
    let Quantized::Blocks(blocks) = matrix else {
        return matrix.tensors().into_iter().all(Tensor::is_finite);
    };
    let format = blocks.format();
    matrix.tensors().into_iter().flat_map(|t| t.bytes().chunks_exact(format.block_bytes())).all(|block| {
        let finite =
            |at: &usize| u16::from_le_bytes([block[*at], block[at + 1]]) & F16_EXPONENT != F16_EXPONENT;
        BlockFormat::halves(format).iter().all(finite)
    })
}
