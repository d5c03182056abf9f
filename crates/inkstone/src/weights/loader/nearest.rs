//! What stored weights are like to multiply with.

use inkstone_tensor::{DType, Quantized};

use super::Loader;
use crate::weights::Quantization;

/// Codes of at most so many bits are taken apart as those of [`Quantization::Q4`].
const FEW_BITS: usize = 5;
/// Elements that share a scale where a packed weight's size does not say: the most common number.
const GROUP: usize = 64;

impl Loader<'_> {
    /// The format of [`Quantization`] whose products take as long as those with the weights as stored, by the first of them
    /// that is quantized; `None` if none is. To be asked before layers are taken.
    pub(crate) fn nearest_format(&self) -> Option<Quantization> {
        let of_bits = |bits: usize| if bits <= FEW_BITS { Quantization::Q4 } else { Quantization::Q8 };
        let whole = self.quantized.values().next().map(|matrix| match matrix {
            Quantized::Blocks(blocks) => {
                of_bits(8 * blocks.format().block_bytes() / blocks.format().block_len())
            }
            Quantized::Affine(codes) => of_bits(codes.bits().get() as usize),
            // 8-bit floats and bytes of ComfyUI: taken apart, not multiplied.
            _ => Quantization::Q8,
        });
        let packed = || {
            self.tensors.iter().find_map(|(name, codes)| {
                let scales = self.tensors.get(&format!("{}.scales", name.strip_suffix(".weight")?))?;
                match codes.dtype() {
                    DType::U8 => Some(Quantization::Int8),
                    DType::U32 => Some(of_bits(32 * codes.cols() / (GROUP * scales.cols()).max(1))),
                    _ => None,
                }
            })
        };
        whole.or_else(packed)
    }
}
