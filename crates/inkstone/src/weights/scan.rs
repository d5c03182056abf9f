//! Looks for weights that are NaN or infinite.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Tensor};

use crate::{Error, Result};

/// Names that an error lists.
const NAMES_SHOWN: usize = 5;

/// # Errors
/// [`Error::WeightsNotFinite`].
pub(super) fn check(component: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let bad = tensors.iter().filter(|(_, tensor)| !is_finite(tensor)).map(|(name, _)| name.clone());
    let mut first: Vec<String> = bad.collect();
    if first.is_empty() {
        return Ok(());
    }
    let count = first.len();
    first.truncate(NAMES_SHOWN);
    Err(Error::WeightsNotFinite { component: component.into(), count, first })
}

/// NaN and infinity are the numbers whose exponent bits are all ones.
fn is_finite(tensor: &Tensor) -> bool {
    const BF16_EXPONENT: u16 = 0x7f80;
    const F16_EXPONENT: u16 = 0x7c00;
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
        DType::U8 | DType::I8 | DType::U32 | DType::F8E4m3 | DType::F8E5m2 | DType::I64 => true,
    }
}
