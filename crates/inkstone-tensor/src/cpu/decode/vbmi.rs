//! Decoders to bf16 for processors with AVX512_VBMI and AVX512_BF16: codes select from tables in registers.
//!
//! The values that up to 32 codes can have under one scale and offset become a table of bf16 in a register, rounded as every
//! other decoder rounds; then 32 codes become 32 values by one permutation. Where scales change too often for that (q6_K) or codes
//! have 8 bits, codes become floats 16 at a time. The bits are those of [`super::decode_row`].

mod affine;
mod bytes;
mod k;
mod legacy;

use std::arch::x86_64::*;
use std::ops::Range;

use super::QuantRow;
use crate::quant::{AffineRow, BlockFormat};

/// Elements that become a register of bf16.
const STEP: usize = 32;
/// Elements of the longest block.
const MOST: usize = 256;

/// A row of blocks.
///
/// # Safety
/// For `write`: the processor has AVX512_VBMI and what the table `avx512bf16` needs.
trait BlockRow {
    /// Elements of a block, a multiple of [`STEP`].
    const LEN: usize;

    /// Writes the values of some blocks, one behind the other.
    unsafe fn write(&self, blocks: Range<usize>, to: *mut u16);
}

/// A format of blocks of so many bytes and elements. The loop is inside, so that what does not change from block to block
/// stays in registers. The body may count on what [`BlockRow`] promises, and on room for a block's values at `to`.
macro_rules! block_row {
    ($(#[$doc:meta])* $name:ident, $bytes:expr, $len:expr, |$block:ident, $to:ident| $body:block) => {
        $(#[$doc])*
        pub(super) struct $name<'a>(pub(super) &'a [[u8; $bytes]]);

        impl super::BlockRow for $name<'_> {
            const LEN: usize = $len;

            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
            #[inline]
            unsafe fn write(&self, blocks: Range<usize>, to: *mut u16) {
                for ($block, i) in self.0[blocks].iter().zip((0..).step_by($len)) {
                    let $to = to.wrapping_add(i);
                    $body
                }
            }
        }
    };
}
use block_row;

/// Writes the elements `cols` of a row.
///
/// # Safety
/// The processor has AVX512_VBMI and what the table `avx512bf16` needs; `cols` lies in the row, which was not rotated, and as many
/// elements are at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
pub(in crate::cpu) unsafe fn decode(row: &QuantRow<'_>, cols: Range<usize>, to: *mut u16) {
    // SAFETY: the caller's promise.
    unsafe {
        match *row {
            QuantRow::Float8(kind, bytes, factor) => bytes::float8(kind, &bytes[cols], factor, to),
            QuantRow::ConvRot(row) => bytes::signed(&row.bytes[cols], row.factor, to),
            QuantRow::Affine(bits, row) => match bits.get() {
                3 => affine::<3>(row, cols, to),
                4 => affine::<4>(row, cols, to),
                5 => affine::<5>(row, cols, to),
                6 => affine::<6>(row, cols, to),
                _ => affine::<8>(row, cols, to),
            },
            QuantRow::Blocks(format, bytes) => match format {
                BlockFormat::Q4_0 => blocks(&legacy::Q4_0(bytes.as_chunks().0), cols, to),
                BlockFormat::Q4_1 => blocks(&legacy::Q4_1(bytes.as_chunks().0), cols, to),
                BlockFormat::Q5_0 => blocks(&legacy::Q5_0(bytes.as_chunks().0), cols, to),
                BlockFormat::Q5_1 => blocks(&legacy::Q5_1(bytes.as_chunks().0), cols, to),
                BlockFormat::Q8_0 => blocks(&legacy::Q8_0(bytes.as_chunks().0), cols, to),
                BlockFormat::Q2K => blocks(&k::Q2K(bytes.as_chunks().0), cols, to),
                BlockFormat::Q3K => blocks(&k::Q3K(bytes.as_chunks().0), cols, to),
                BlockFormat::Q4K => blocks(&k::Q4K(bytes.as_chunks().0), cols, to),
                BlockFormat::Q5K => blocks(&k::Q5K(bytes.as_chunks().0), cols, to),
                BlockFormat::Q6K => blocks(&k::Q6K(bytes.as_chunks().0), cols, to),
            },
        }
    }
}

/// # Safety
/// As [`blocks`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn affine<const BITS: usize>(row: AffineRow<'_>, cols: Range<usize>, to: *mut u16) {
    // SAFETY: the caller's promise.
    unsafe {
        match row.shared() {
            32 => blocks(&affine::Codes::<BITS, 32>(row), cols, to),
            64 => blocks(&affine::Codes::<BITS, 64>(row), cols, to),
            _ => blocks(&affine::Codes::<BITS, 128>(row), cols, to),
        }
    }
}

/// Block after block; of the first and last one perhaps only a part is wanted.
///
/// # Safety
/// As [`BlockRow`]; `cols` lies in the row, and as many elements are at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn blocks<B: BlockRow>(row: &B, cols: Range<usize>, to: *mut u16) {
    const { assert!(B::LEN.is_multiple_of(STEP) && B::LEN <= MOST) };
    #[repr(align(64))]
    struct Part([u16; MOST]);

    let mut at = cols.start;
    while at < cols.end {
        let (block, first) = (at / B::LEN, at % B::LEN);
        let whole = if first == 0 { (cols.end - at) / B::LEN } else { 0 };
        // SAFETY: the caller's promise; the blocks fit what they are written to. Nothing says that `to` is aligned.
        unsafe {
            let to = to.byte_add(2 * (at - cols.start));
            if whole > 0 {
                row.write(block..block + whole, to);
                at += whole * B::LEN;
                continue;
            }
            let n = (B::LEN - first).min(cols.end - at);
            let mut part = Part([0; MOST]);
            row.write(block..block + 1, part.0.as_mut_ptr());
            to.cast::<u8>().copy_from_nonoverlapping(part.0[first..first + n].as_ptr().cast(), 2 * n);
            at += n;
        }
    }
}

/// Whole numbers from 0 on.
const NUMBERS: [f32; 64] = {
    let mut numbers = [0.0; 64];
    let mut i = 0;
    while i < 64 {
        numbers[i] = i as f32;
        i += 1;
    }
    numbers
};

// SAFETY, for all below: the processor has AVX512_VBMI and what the table `avx512bf16` needs, as [`BlockRow`] says; other
// promises are with each.

/// Sixteen whole numbers from `first` on, a multiple of 16 up to 48.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn numbers(first: usize) -> __m512 {
    // SAFETY: see above; within the list.
    unsafe { _mm512_loadu_ps(NUMBERS[first..].as_ptr()) }
}

/// Two times sixteen values rounded to bf16, one behind the other.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: see above; both types are 64 bytes without padding.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The values of codes up to 15, two times.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn table_16(scale: __m512, offset: __m512) -> __m512i {
    let values = _mm512_fmadd_ps(numbers(0), scale, offset);
    round(values, values)
}

/// The values of 32 codes from `first` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn table_32(first: usize, scale: __m512, offset: __m512) -> __m512i {
    let low = _mm512_fmadd_ps(numbers(first), scale, offset);
    round(low, _mm512_fmadd_ps(numbers(first + 16), scale, offset))
}

/// What the lowest 5 bits of each word select from a table.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn select(table: __m512i, codes: __m512i) -> __m512i {
    _mm512_permutexvar_epi16(codes, table)
}

/// The bits of `low` where `mask` has ones, elsewhere those of `high`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn bits(mask: __m512i, low: __m512i, high: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0xca>(mask, low, high)
}

/// A half in all lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn half(bytes: [u8; 2]) -> __m512 {
    _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(bytes)))
}

/// The half at some byte of a block, in all lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn half_at<const N: usize>(block: &[u8; N], at: usize) -> __m512 {
    half([block[at], block[at + 1]])
}

/// 32 bytes as words of 16 bits.
///
/// # Safety
/// They are there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn words(bytes: *const u8) -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.cast())) }
}

/// # Safety
/// [`STEP`] elements are at `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
unsafe fn store(to: *mut u16, values: __m512i) {
    // SAFETY: the caller's promise.
    unsafe { _mm512_storeu_si512(to.cast(), values) }
}

/// The same word in all lanes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi")]
#[inline]
fn splat(word: u16) -> __m512i {
    _mm512_set1_epi16(word.cast_signed())
}
