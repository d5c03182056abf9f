//! Quantized rows to f32 or bf16: one body for all formats that are a scale, a code and an offset, one for 8-bit
//! floats, one for rotated bytes.

#[cfg(target_arch = "x86_64")]
pub(super) mod vbmi;

use std::ops::Range;

use super::elementwise::for_lanes;
use super::lanes::Lanes;
use super::rows::{Matrix, RowMut};
use crate::DType;
use crate::quant::{
    self, AffineRow, Block, BlockFormat, Codes, ConvRotRow, Float8Kind, MAX_GROUP, MOST_CODES, Quantized,
    RUN, Unpack, k, legacy,
};

/// A row of a quantized matrix.
#[derive(Clone, Copy)]
pub(super) enum QuantRow<'a> {
    Blocks(BlockFormat, &'a [u8]),
    Affine(quant::AffineBits, AffineRow<'a>),
    Float8(Float8Kind, &'a [u8], f32),
    ConvRot(ConvRotRow<'a>),
}

/// A quantized matrix and where its bytes are: that takes as long to find as some hundred elements to decode.
#[derive(Clone, Copy)]
pub(super) struct QuantRows<'a> {
    matrix: &'a Quantized,
    /// Codes; scales and biases where there are any.
    parts: [Matrix<'a>; 3],
}

impl<'a> QuantRows<'a> {
    pub(super) fn of(matrix: &'a Quantized) -> Self {
        let mut parts = [Matrix::of(matrix.codes()); 3];
        for (part, tensor) in parts.iter_mut().zip(matrix.tensors()) {
            *part = Matrix::of(tensor);
        }
        Self { matrix, parts }
    }

    /// Elements of a row.
    pub(super) fn n_in(&self) -> usize {
        self.matrix.shape().cols()
    }

    pub(super) fn codes(&self) -> Matrix<'a> {
        self.parts[0]
    }

    #[inline(always)]
    pub(super) fn row(&self, r: usize) -> QuantRow<'a> {
        let part = |i: usize, r: usize| self.parts[i].part_bytes(r, 0..self.parts[i].cols());
        let codes = part(0, r);
        match self.matrix {
            Quantized::Blocks(m) => QuantRow::Blocks(m.format(), codes),
            Quantized::Affine(m) => QuantRow::Affine(m.bits(), m.row([codes, part(1, r), part(2, r)])),
            Quantized::Float8(m) => QuantRow::Float8(m.kind(), codes, m.factor(part(1, 0), r)),
            Quantized::ConvRot(m) => QuantRow::ConvRot(m.row(codes, part(1, 0), r)),
        }
    }
}

impl QuantRow<'_> {
    /// Whether its elements have to be rotated back.
    pub(super) fn is_rotated(&self) -> bool {
        matches!(self, Self::ConvRot(row) if row.group > 1)
    }
}

/// Whether this processor can use `vbmi`.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_vbmi() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512vbmi") && has!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn has_vbmi() -> bool {
    false
}

/// Writes the elements `cols` of a row, in the type of `to`.
///
/// # Safety
/// The processor has what `L` needs; `cols` lies in the row and is as long as `to`.
#[inline(always)]
pub(super) unsafe fn decode_row<L: Lanes>(row: &QuantRow<'_>, cols: Range<usize>, to: RowMut<'_>) {
    // SAFETY: the caller's promise. The choice of the type is outside of all loops.
    unsafe {
        match to.dtype() {
            DType::F32 => by_format::<L>(row, cols, to.known_as(DType::F32)),
            _ => by_format::<L>(row, cols, to.known_as(DType::Bf16)),
        }
    }
}

/// # Safety
/// As [`decode_row`].
#[inline(always)]
unsafe fn by_format<L: Lanes>(row: &QuantRow<'_>, cols: Range<usize>, to: RowMut<'_>) {
    use BlockFormat::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    // SAFETY: the caller's promise.
    unsafe {
        match *row {
            QuantRow::Float8(kind, bytes, factor) => float8::<L>(kind, &bytes[cols], factor, to),
            QuantRow::ConvRot(row) => rotated::<L>(&row, cols, to),
            QuantRow::Affine(bits, row) => match bits.get() {
                3 => codes::<L, _>(&row.known_as::<3>(), cols, to),
                4 => codes::<L, _>(&row.known_as::<4>(), cols, to),
                5 => codes::<L, _>(&row.known_as::<5>(), cols, to),
                6 => codes::<L, _>(&row.known_as::<6>(), cols, to),
                _ => codes::<L, _>(&row.known_as::<8>(), cols, to),
            },
            QuantRow::Blocks(format, bytes) => match format {
                Q4_0 => blocks::<L, legacy::Q4_0, { legacy::Q4_0_BYTES }>(bytes, cols, to),
                Q4_1 => blocks::<L, legacy::Q4_1, { legacy::Q4_1_BYTES }>(bytes, cols, to),
                Q5_0 => blocks::<L, legacy::Q5_0, { legacy::Q5_0_BYTES }>(bytes, cols, to),
                Q5_1 => blocks::<L, legacy::Q5_1, { legacy::Q5_1_BYTES }>(bytes, cols, to),
                Q8_0 => blocks::<L, legacy::Q8_0, { legacy::Q8_0_BYTES }>(bytes, cols, to),
                Q2K => blocks::<L, k::Q2K, { k::Q2_K_BYTES }>(bytes, cols, to),
                Q3K => blocks::<L, k::Q3K, { k::Q3_K_BYTES }>(bytes, cols, to),
                Q4K => blocks::<L, k::Q4K, { k::Q4_K_BYTES }>(bytes, cols, to),
                Q5K => blocks::<L, k::Q5K, { k::Q5_K_BYTES }>(bytes, cols, to),
                Q6K => blocks::<L, k::Q6K, { k::Q6_K_BYTES }>(bytes, cols, to),
            },
        }
    }
}

/// # Safety
/// As [`decode_row`].
#[inline(always)]
unsafe fn blocks<L: Lanes, F: Block<BYTES>, const BYTES: usize>(
    bytes: &[u8],
    cols: Range<usize>,
    to: RowMut<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe { codes::<L, _>(&quant::BlockRow::<F, BYTES>::new(bytes), cols, to) }
}

/// Takes block after block apart; of the first and last one perhaps only a part is wanted.
///
/// # Safety
/// As [`decode_row`].
#[inline(always)]
unsafe fn codes<L: Lanes, U: Unpack>(row: &U, cols: Range<usize>, mut to: RowMut<'_>) {
    let mut codes = Codes::NONE;
    let mut at = cols.start;
    while at < cols.end {
        let (block, first) = (at / U::LEN, at % U::LEN);
        let n = (U::LEN - first).min(cols.end - at);
        row.unpack(block, &mut codes);
        // SAFETY: `n` elements are left in `to`; the whole block fits `part`.
        unsafe {
            if n == U::LEN {
                values::<L>(&codes, U::LEN, &mut to, at - cols.start);
            } else {
                let mut part = [0.0; MOST_CODES];
                values::<L>(&codes, U::LEN, &mut RowMut::f32s(&mut part), 0);
                let part = &part[first..first + n];
                for_lanes!(L, n, |i, m| {
                    to.store(at - cols.start + i, m, L::load(part.as_ptr().add(i), m));
                });
            }
        }
        at += n;
    }
}

/// `scale * code + offset` of all codes, to the elements from `at` on.
///
/// # Safety
/// As [`decode_row`]; `at + len` elements are in `to`.
#[inline(always)]
unsafe fn values<L: Lanes>(codes: &Codes, len: usize, to: &mut RowMut<'_>, at: usize) {
    let runs = len / RUN;
    let finite = |all: bool, v: &f32| all & v.is_finite();
    let numbers =
        || codes.scale[..runs].iter().fold(true, finite) & codes.offset[..runs].iter().fold(true, finite);
    // SAFETY: the caller's promise; what finite scales and offsets give is no NaN.
    unsafe {
        if L::TELLS_NUMBERS && numbers() {
            rounded::<L, true>(codes, len, to, at);
        } else {
            rounded::<L, false>(codes, len, to, at);
        }
    }
}

/// # Safety
/// As [`values`]; with `NUMBERS` no value is a NaN.
#[inline(always)]
unsafe fn rounded<L: Lanes, const NUMBERS: bool>(codes: &Codes, len: usize, to: &mut RowMut<'_>, at: usize) {
    // SAFETY: the caller's promise; two runs are a multiple of two registers.
    unsafe {
        let value = |i: usize| {
            let (scale, offset) = (L::splat(codes.scale[i / RUN]), L::splat(codes.offset[i / RUN]));
            L::load_u8(codes.codes.as_ptr().add(i), L::N).mul_add(scale, offset)
        };
        for i in (0..len).step_by(2 * L::N) {
            to.store_two::<L, NUMBERS>(at + i, value(i), value(i + L::N));
        }
    }
}

/// # Safety
/// As [`decode_row`].
#[inline(always)]
unsafe fn float8<L: Lanes>(kind: Float8Kind, bytes: &[u8], factor: f32, to: RowMut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Float8Kind::E4m3 => widened::<L>(|b| quant::widen(Float8Kind::E4m3, b), bytes, factor, to),
            Float8Kind::E5m2 => widened::<L>(|b| quant::widen(Float8Kind::E5m2, b), bytes, factor, to),
        }
    }
}

/// # Safety
/// As [`decode_row`].
#[inline(always)]
unsafe fn widened<L: Lanes>(widen: impl Fn(u8) -> u16, bytes: &[u8], factor: f32, mut to: RowMut<'_>) {
    // As many halves as stay in a register: from memory, where they would cross lines of the cache, they come back late.
    const AT_ONCE: usize = 16;
    let (whole, rest) = bytes.as_chunks::<AT_ONCE>();
    // SAFETY: the caller's promise; halves are as many as are loaded, and `AT_ONCE` is a multiple of the lanes.
    unsafe {
        let factor = L::splat(factor);
        let mut halves = [0; AT_ONCE];
        for (chunk, bytes) in whole.iter().enumerate() {
            for (half, byte) in halves.iter_mut().zip(bytes) {
                *half = widen(*byte);
            }
            let value = |i: usize| L::load_f16(halves.as_ptr().add(i), L::N).mul(factor);
            if L::N == AT_ONCE {
                to.store(chunk * AT_ONCE, L::N, value(0));
                continue;
            }
            for i in (0..AT_ONCE).step_by(2 * L::N) {
                to.store_two::<L, false>(chunk * AT_ONCE + i, value(i), value(i + L::N));
            }
        }
        for (half, byte) in halves.iter_mut().zip(rest) {
            *half = widen(*byte);
        }
        for_lanes!(L, rest.len(), |i, n| {
            let v = L::load_f16(halves.as_ptr().add(i), n).mul(factor);
            to.store(whole.len() * AT_ONCE + i, n, v);
        });
    }
}

/// Values on their way, aligned as [`Codes`] are.
#[repr(align(64))]
struct Aligned<T>([T; MAX_GROUP]);

/// Chunk after chunk of whole groups; of the first and last one perhaps only a part is wanted.
///
/// # Safety
/// As [`decode_row`].
#[inline(always)]
unsafe fn rotated<L: Lanes>(row: &ConvRotRow<'_>, cols: Range<usize>, mut to: RowMut<'_>) {
    let (mut whole, mut floats) = (Aligned([0; MAX_GROUP]), Aligned([0.0; MAX_GROUP]));
    let mut at = cols.start;
    while at < cols.end {
        let (chunk, first) = (at / MAX_GROUP, at % MAX_GROUP);
        let n = (row.unpack(chunk, &mut whole.0) - first).min(cols.end - at);
        for (float, whole) in floats.0.iter_mut().zip(whole.0) {
            *float = f32::from(whole);
        }
        // SAFETY: `n` elements from `first` on are in the chunk, and left in `to`.
        unsafe {
            let factor = L::splat(row.factor);
            for_lanes!(L, n, |i, m| {
                to.store(at - cols.start + i, m, L::load(floats.0.as_ptr().add(first + i), m).mul(factor));
            });
        }
        at += n;
    }
}
