//! One lane: the definition that every other instruction set is compared with.

use half::{bf16, f16};

use super::Lanes;

/// One f32.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Scalar(f32);

/// The bf16 in the upper half of a word, as an f32's bits.
const UPPER: u32 = 0xffff_0000;

/// 1.5 * 2^23: adding it pushes all fraction bits out of an f32.
const ROUND: f32 = 12_582_912.0;

// No method needs more than the base instruction set; those with a pointer read or write `n <= 1` elements there.
impl Lanes for Scalar {
    const N: usize = 1;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Self(v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32, n: usize) -> Self {
        // SAFETY: the caller has `n` elements there.
        Self(if n == 0 { 0.0 } else { unsafe { p.read_unaligned() } })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16, n: usize) -> Self {
        // SAFETY: the caller has `n` elements there.
        Self(if n == 0 { 0.0 } else { bf16::from_bits(unsafe { p.read_unaligned() }).to_f32() })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16, n: usize) -> Self {
        // SAFETY: the caller has `n` elements there.
        Self(if n == 0 { 0.0 } else { f16::from_bits(unsafe { p.read_unaligned() }).to_f32() })
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8, n: usize) -> Self {
        // SAFETY: the caller has `n` elements there.
        Self(if n == 0 { 0.0 } else { f32::from(unsafe { p.read() }) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, n: usize) {
        if n > 0 {
            // SAFETY: the caller has `n` elements there.
            unsafe { p.write_unaligned(self.0) }
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, n: usize) {
        if n > 0 {
            // SAFETY: the caller has `n` elements there.
            unsafe { p.write_unaligned(bf16::from_f32(self.0).to_bits()) }
        }
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8, n: usize) {
        #[allow(clippy::cast_possible_truncation, reason = "an integer")]
        let [low, ..] = (self.0 as i32).to_le_bytes();
        if n > 0 {
            // SAFETY: the caller has `n` elements there.
            unsafe { p.write(low) }
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Self(self.0 + b.0)
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        Self(self.0 - b.0)
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Self(self.0 * b.0)
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        Self(self.0 / b.0)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // Two roundings: a fused one would be a library call without the FMA instruction.
        Self(self.0 * b.0 + c.0)
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        Self(if self.0 < b.0 { self.0 } else { b.0 })
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        Self(if self.0 > b.0 { self.0 } else { b.0 })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self((self.0 + ROUND) - ROUND)
    }
    #[inline(always)]
    unsafe fn scale_by_power(self, n: Self) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "n is a small integer")]
        let exponent = n.0 as i32;
        Self(self.0 * f32::from_bits(((exponent + 127) << 23).cast_unsigned()))
    }
    #[inline(always)]
    unsafe fn first(self, n: usize) -> Self {
        Self(if n == 0 { 0.0 } else { self.0 })
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self.0
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0
    }
    #[inline(always)]
    unsafe fn unzip(low: Self, high: Self) -> (Self, Self) {
        (low, high)
    }
    #[inline(always)]
    unsafe fn zip(even: Self, odd: Self) -> (Self, Self) {
        (even, odd)
    }
    #[inline(always)]
    unsafe fn transpose(from: *const u8, _: usize, to: *mut u8, _: usize, _: *const u8) {
        // SAFETY: the caller has a word at both places.
        unsafe { to.cast::<u32>().write_unaligned(from.cast::<u32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn transpose_widened(from: *const u8, _: usize, to: *mut u8, to_stride: usize, _: *const u8) {
        // SAFETY: the caller has a word at `from`, and a word in each of two rows at `to`.
        unsafe {
            let word = from.cast::<u32>().read_unaligned();
            to.cast::<u32>().write_unaligned(word << 16);
            to.add(to_stride).cast::<u32>().write_unaligned(word & UPPER);
        }
    }
    #[inline(always)]
    unsafe fn fetch(_: *const u8) {}
}
