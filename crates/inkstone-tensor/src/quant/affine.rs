//! Codes packed without gaps, with a scale and a bias for each group in matrices of their own: the format of MLX.
//!
//! A row is a stream of bits, the lowest first: 32 codes of `B` bits are `4 B` bytes. `value = scale * code + bias`.
//!
//! # Source
//! `mlx.core.quantize`, mode `affine`.

#[cfg(target_arch = "x86_64")]
use std::ops::Range;

use super::{Codes, Unpack, f16, unfit};
use crate::{DType, Error, Result, Shape, Tensor};

/// Groups that may share a scale.
const GROUPS: [usize; 3] = [32, 64, 128];
/// The group of matrices that are quantized here.
pub(crate) const FITTED_GROUP: usize = 64;
/// Codes that are taken apart at once: a divisor of every group.
const CHUNK: usize = 32;

/// Bits of a code: 3, 4, 5, 6 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffineBits(u8);

impl AffineBits {
    /// `None` for a number of bits that there is no decoder for.
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        if matches!(bits, 3 | 4 | 5 | 6 | 8) { Some(Self(bits)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A matrix of packed codes with its scales and biases.
#[derive(Clone, Debug)]
pub struct Affine {
    bits: AffineBits,
    group: usize,
    /// u32 `[n_out, n_in * bits / 32]`
    packed: Tensor,
    /// f32, bf16 or f16 `[n_out, n_in / group]`
    scales: Tensor,
    /// The same.
    biases: Tensor,
}

impl Affine {
    /// The group of matrices that [`crate::ops::quantize_affine`] makes.
    pub const FITTED_GROUP: usize = FITTED_GROUP;

    /// A matrix over its parts.
    ///
    /// # Shapes
    /// `packed` u32 `[n_out, n_in * bits / 32]`, `scales` and `biases` f32, bf16 or f16 `[n_out, n_in / group]`.
    ///
    /// # Errors
    /// [`Error::Range`] for a group that there is no decoder for, [`Error::DType`] and [`Error::Shape`] for parts that
    /// do not fit each other.
    pub fn new(
        bits: AffineBits,
        group: usize,
        packed: Tensor,
        scales: Tensor,
        biases: Tensor,
    ) -> Result<Self> {
        const OP: &str = "quantized";
        if !GROUPS.contains(&group) {
            let allowed = "32, 64 or 128".into();
            return Err(Error::Range { op: OP, what: "group", allowed, got: group.to_string() });
        }
        if packed.dtype() != DType::U32 {
            return Err(Error::DType { op: OP, what: "packed codes", expected: "u32", got: packed.dtype() });
        }
        for (what, t) in [("scales", &scales), ("biases", &biases)] {
            if !t.dtype().is_float() || t.dtype() != scales.dtype() {
                let expected = "f32, bf16 or f16, the same for both";
                return Err(Error::DType { op: OP, what, expected, got: t.dtype() });
            }
            if t.rows() != packed.rows() || t.cols() != scales.cols() {
                return unfit(what, t, format!("[{}, {}]", packed.rows(), scales.cols()));
            }
        }
        let words = scales.cols().checked_mul(group).map(|n_in| n_in / 32 * usize::from(bits.get()));
        if words != Some(packed.cols()) {
            let expected = format!("{} groups of {group} codes of {} bits", scales.cols(), bits.get());
            return unfit("packed codes", &packed, expected);
        }
        Ok(Self { bits, group, packed, scales, biases })
    }

    /// Bits of a code.
    #[must_use]
    pub fn bits(&self) -> AffineBits {
        self.bits
    }

    /// Codes that share a scale.
    #[must_use]
    pub fn group(&self) -> usize {
        self.group
    }

    pub(super) fn shape(&self) -> Shape {
        Shape::matrix(self.packed.rows(), self.scales.cols() * self.group)
    }

    pub(super) fn tensors(&self) -> [&Tensor; 3] {
        [&self.packed, &self.scales, &self.biases]
    }

    /// A row of its tensors as its decoder sees it.
    pub(crate) fn row<'a>(&self, [packed, scales, biases]: [&'a [u8]; 3]) -> AffineRow<'a> {
        AffineRow {
            packed,
            scales,
            biases,
            dtype: self.scales.dtype(),
            group_shift: (self.group / CHUNK).trailing_zeros(),
        }
    }
}

/// A row of codes with its scales and biases.
#[derive(Clone, Copy)]
pub(crate) struct AffineRow<'a> {
    packed: &'a [u8],
    scales: &'a [u8],
    biases: &'a [u8],
    dtype: DType,
    /// Chunks of a group are a power of two; this one.
    group_shift: u32,
}

impl<'a> AffineRow<'a> {
    /// The row where the number of bits is a constant to the compiler.
    #[inline(always)]
    pub(crate) fn known_as<const BITS: usize>(self) -> Known<'a, BITS> {
        Known(self)
    }

    /// Codes that share a scale.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn shared(&self) -> usize {
        CHUNK << self.group_shift
    }

    /// Bytes of the row's scales, and of its biases.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn side_bytes(&self) -> usize {
        self.scales.len()
    }

    /// Of some groups, of `bytes` bytes each, the codes, and the scales and biases as they are stored; the type of these.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn groups(&self, groups: Range<usize>, bytes: usize) -> (&'a [u8], [&'a [u8]; 2], DType) {
        let size = self.dtype.size_bytes();
        let sides = [self.scales, self.biases].map(|side| &side[groups.start * size..groups.end * size]);
        (&self.packed[groups.start * bytes..groups.end * bytes], sides, self.dtype)
    }

    /// The bytes from chunk `i` of 32 codes on, of `bits` bits each.
    #[inline(always)]
    pub(crate) fn chunk(&self, i: usize, bits: usize) -> &'a [u8] {
        &self.packed[CHUNK / 8 * bits * i..]
    }
}

/// A row of codes of so many bits.
pub(crate) struct Known<'a, const BITS: usize>(AffineRow<'a>);

impl<const BITS: usize> Unpack for Known<'_, BITS> {
    const LEN: usize = CHUNK;

    #[inline(always)]
    fn unpack(&self, i: usize, to: &mut Codes) {
        let row = &self.0;
        let group = i >> row.group_shift;
        let (scale, bias) = (float(row.scales, row.dtype, group), float(row.biases, row.dtype, group));
        for run in 0..2 {
            to.scale[run] = scale;
            to.offset[run] = bias;
        }
        unpack::<BITS>(&row.chunk(i, BITS)[..4 * BITS], to);
    }
}

/// Element `i` of a row of floats.
#[inline(always)]
fn float(row: &[u8], dtype: DType, i: usize) -> f32 {
    if dtype == DType::F32 {
        return f32::from_le_bytes(row.as_chunks::<4>().0[i]);
    }
    let half = u16::from_le_bytes(row.as_chunks::<2>().0[i]);
    if dtype == DType::Bf16 { f32::from_bits(u32::from(half) << 16) } else { f16(half) }
}

/// 32 codes of `BITS` bits from as many words.
#[inline(always)]
fn unpack<const BITS: usize>(packed: &[u8], to: &mut Codes) {
    let codes = &mut to.codes[..CHUNK];
    match BITS {
        8 => codes.copy_from_slice(packed),
        4 => {
            for (two, byte) in codes.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
                // In a word of two bytes, which vectors have shifts for.
                let word = u16::from(*byte);
                *two = ((word & 0x0f) | ((word & 0xf0) << 4)).to_le_bytes();
            }
        }
        _ => {
            // Words first, so that vectors take them apart together. Each is read with what lies in front or behind.
            let words: [u64; CHUNK / 8] = std::array::from_fn(|i| {
                let start = (BITS * i).min(BITS * CHUNK / 8 - 8);
                let mut word = [0; 8];
                word.copy_from_slice(&packed[start..start + 8]);
                u64::from_le_bytes(word) >> (8 * (BITS * i - start))
            });
            for (eight, word) in codes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *eight = spread::<BITS>(word).to_le_bytes();
            }
        }
    }
}

/// The lowest eight fields of `BITS` bits, one a byte: halves apart, then their halves, then theirs.
#[inline(always)]
fn spread<const BITS: usize>(word: u64) -> u64 {
    let field = (1u64 << BITS) - 1;
    let two = (1u64 << (2 * BITS)) - 1;
    let four = (1u64 << (4 * BITS)) - 1;
    let twos = two | two << 32;
    let ones = field * 0x0001_0001_0001_0001;
    let word = (word & four) | (word >> (4 * BITS)) << 32;
    let word = (word & twos) | ((word >> (2 * BITS)) & twos) << 16;
    (word & ones) | ((word >> BITS) & ones) << 8
}
