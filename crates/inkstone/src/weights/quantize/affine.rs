//! The rule of packed codes.

use inkstone_tensor::{Affine, AffineBits, Quantized, Tensor, Weight, ops};

use super::{Format, Place};
use crate::Result;

/// Layers become codes with a bf16 scale and bias for each 64, in MLX's layout: the picture's stream through the transformer
/// of 5 bits at least, its modulations of 6, all others of as many as the rule has. Those at the edges of the network stay as
/// they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffineRule {
    /// 4 or 8.
    pub bits: u8,
}

/// Fewest bits of the picture's stream, half of the blocks' weights. In 4 bits five sixths of a picture's error come from it,
/// and each bit halves a layer's error.
const IMAGE_BITS: u8 = 5;
/// Fewest bits of the modulations. Pictures of 8 bits are not nearer to those of the model as stored.
const MODULATION_BITS: u8 = 6;

impl AffineRule {
    pub(super) fn apply(self, layer: &str, stored: &Tensor) -> Result<(Weight, Format)> {
        let bits = match self.bits_of(layer, stored) {
            Ok(bits) => bits,
            Err(reason) => return Ok((Weight::Dense(stored.clone()), Format::KeptFor(reason))),
        };
        let fitted = ops::quantize_affine(stored, bits)?;
        let format = Format::Affine { bits: bits.get(), lost: fitted.relative_error };
        Ok((Quantized::Affine(fitted.matrix).into(), format))
    }

    /// Bytes of a layer's weight; `None` if it stays as it is.
    pub(super) fn bytes(self, layer: &str, stored: &Tensor) -> Option<usize> {
        let bits = usize::from(self.bits_of(layer, stored).ok()?.get());
        // A scale and a bias, bf16 each.
        Some(stored.shape().count() / Affine::FITTED_GROUP * (Affine::FITTED_GROUP * bits / 8 + 4))
    }

    /// Bits of a layer's codes, or why it has none.
    fn bits_of(self, layer: &str, stored: &Tensor) -> Result<AffineBits, &'static str> {
        let bits = match Place::of(layer) {
            Place::Edge(reason) => return Err(reason),
            Place::Modulation => self.bits.max(MODULATION_BITS),
            Place::Image => self.bits.max(IMAGE_BITS),
            Place::Inside => self.bits,
        };
        if !stored.cols().is_multiple_of(Affine::FITTED_GROUP) {
            return Err("its rows are no multiple of 64 values");
        }
        AffineBits::new(bits).ok_or("there is no such format")
    }
}
