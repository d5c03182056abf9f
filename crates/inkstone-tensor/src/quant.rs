//! Quantized matrices: integer codes with scales, as files store them. One file a format or family: its layout in
//! memory, and how a run of codes is taken apart. The processor's decoder is in `cpu/decode.rs`.
//!
//! Most formats are the same formula, `value = scale * code + offset`, with codes of up to 8 bits and a scale and offset
//! for each 16 or more of them. So a format says how its codes and scales are packed, nothing else. 8-bit floats and
//! rotated bytes have a factor for the row.

mod affine;
mod blocks;
mod convrot;
mod float8;

use crate::{Device, Result, Shape, Tensor};

pub use affine::{Affine, AffineBits};
pub(crate) use affine::{AffineRow, FITTED_GROUP};
pub(crate) use blocks::{Block, BlockRow, k, legacy};
pub use blocks::{BlockFormat, Blocks};
pub use convrot::ConvRot;
pub(crate) use convrot::{ConvRotRow, MAX_GROUP};
pub(crate) use float8::widen;
pub use float8::{Float8, Float8Kind};

/// A matrix `[n_out, n_in]` in a quantized format, used where it lies.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Quantized {
    /// Blocks that hold codes and scales together: the formats of GGUF files.
    Blocks(Blocks),
    /// Packed codes with scales and biases in matrices of their own: the format of MLX.
    Affine(Affine),
    /// 8-bit floats with a scale.
    Float8(Float8),
    /// Signed bytes with scales, rotated or not.
    ConvRot(ConvRot),
}

impl Quantized {
    /// `[n_out, n_in]`
    #[must_use]
    pub fn shape(&self) -> Shape {
        match self {
            Self::Blocks(m) => m.shape(),
            Self::Affine(m) => m.shape(),
            Self::Float8(m) => m.shape(),
            Self::ConvRot(m) => m.shape(),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        match self {
            Self::Blocks(m) => m.data().device(),
            Self::Affine(m) => m.tensors()[0].device(),
            Self::Float8(m) => m.values().device(),
            Self::ConvRot(m) => m.tensors()[0].device(),
        }
    }

    /// The tensor that holds the codes: nearly all of its bytes.
    pub(crate) fn codes(&self) -> &Tensor {
        match self {
            Self::Blocks(m) => m.data(),
            Self::Affine(m) => m.tensors()[0],
            Self::Float8(m) => m.values(),
            Self::ConvRot(m) => m.tensors()[0],
        }
    }

    /// The format's name for people, such as `q4_K` or `affine 4-bit`.
    #[must_use]
    pub fn format(&self) -> String {
        match self {
            Self::Blocks(m) => m.format().name().to_owned(),
            Self::Affine(m) => format!("affine {}-bit, groups of {}", m.bits().get(), m.group()),
            Self::Float8(m) => m.kind().name().to_owned(),
            Self::ConvRot(m) if m.group() == 1 => "int8".to_owned(),
            Self::ConvRot(m) => format!("int8, rotated in groups of {}", m.group()),
        }
    }

    /// The same format over other tensors, one for each of [`Self::tensors`], of the same types and shapes.
    ///
    /// # Errors
    /// What `change` gives, and tensors that do not fit each other.
    pub fn with_tensors(&self, change: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(match self {
            Self::Blocks(m) => Self::Blocks(Blocks::new(m.format(), change(m.data())?)?),
            Self::Affine(m) => {
                let [packed, scales, biases] = m.tensors();
                let (packed, scales, biases) = (change(packed)?, change(scales)?, change(biases)?);
                Self::Affine(Affine::new(m.bits(), m.group(), packed, scales, biases)?)
            }
            Self::ConvRot(m) => {
                let [values, scales] = m.tensors();
                Self::ConvRot(ConvRot::new(change(values)?, change(scales)?, m.group())?)
            }
            Self::Float8(m) => {
                let tensors = m.tensors().into_iter().map(change).collect::<Result<Vec<Tensor>>>()?;
                let mut tensors = tensors.into_iter();
                match tensors.next() {
                    Some(values) => Self::Float8(Float8::new(values, tensors.next())?),
                    None => self.clone(),
                }
            }
        })
    }

    /// The tensors that hold it: what it reads when it is multiplied.
    #[must_use]
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Blocks(m) => vec![m.data()],
            Self::Affine(m) => m.tensors().to_vec(),
            Self::Float8(m) => m.tensors(),
            Self::ConvRot(m) => m.tensors().to_vec(),
        }
    }
}

/// The scale of a row, where one is for all or each has its own.
fn scale_of(scales: &[u8], r: usize) -> f32 {
    let scales = scales.as_chunks::<4>().0;
    f32::from_le_bytes(if scales.len() == 1 { scales[0] } else { scales[r] })
}

/// Most elements that are taken apart at once.
pub(crate) const MOST_CODES: usize = 256;
/// Elements that share a scale at least.
pub(crate) const RUN: usize = 16;

/// Codes taken apart: `value[i] = scale[i / 16] * codes[i] + offset[i / 16]`.
///
/// Aligned, so that no write crosses lines of the cache: what does is read back much later.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Codes {
    pub(crate) codes: [u8; MOST_CODES],
    pub(crate) scale: [f32; MOST_CODES / RUN],
    pub(crate) offset: [f32; MOST_CODES / RUN],
}

impl Codes {
    pub(crate) const NONE: Self =
        Self { codes: [0; MOST_CODES], scale: [0.0; MOST_CODES / RUN], offset: [0.0; MOST_CODES / RUN] };
}

/// A row that is taken apart block by block.
pub(crate) trait Unpack {
    /// Elements of a block.
    const LEN: usize;

    /// Takes block `i` of the row apart.
    fn unpack(&self, i: usize, to: &mut Codes);
}

/// An IEEE half as f32, without a branch: these functions are compiled for every instruction set, and calls between
/// sets cannot be inlined.
#[inline(always)]
pub(crate) fn f16(bits: u16) -> f32 {
    /// 2^112: what is between the exponents' biases.
    const REBIAS: f32 = f32::from_bits(0x7780_0000);
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
    // What is not finite keeps the largest exponent through the product.
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(sign | magnitude | special) * REBIAS
}

/// Two bytes of a block as a half.
#[inline(always)]
pub(crate) fn f16_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// The error for a matrix whose parts do not fit each other.
fn unfit<T>(what: &'static str, t: &Tensor, expected: String) -> Result<T> {
    Err(crate::Error::Shape { op: "quantized", what, expected, got: *t.shape() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn halves_are_what_the_library_says() {
        for bits in 0..=u16::MAX {
            let (got, want) = (super::f16(bits), half::f16::from_bits(bits).to_f32());
            assert!(got == want || (got.is_nan() && want.is_nan()), "{bits:04x}: {got} {want}");
            assert_eq!(got.is_sign_negative(), want.is_sign_negative(), "{bits:04x}");
        }
    }
}
