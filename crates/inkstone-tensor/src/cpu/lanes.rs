//! What a row kernel needs of a vector register.
//!
//! A row operation is written once, as an `inline(always)` body over [`Lanes`]; the dispatch table holds one copy of
//! it an instruction set. A body compiles to that set's instructions because its wrapper in [`super::table`] enables
//! them, so nothing here may be called from anywhere else.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{Avx512, columns};
pub(super) use scalar::Scalar;

/// `N` f32 values that are worked on together.
///
/// # Safety
/// Every method needs a processor with the type's instruction set. Loads and stores touch `n <= N` elements at the
/// pointer, which need not be aligned; a load fills the lanes behind them with zero.
pub(super) trait Lanes: Copy {
    /// Number of lanes.
    const N: usize;

    unsafe fn splat(v: f32) -> Self;
    unsafe fn load(p: *const f32, n: usize) -> Self;
    unsafe fn load_bf16(p: *const u16, n: usize) -> Self;
    unsafe fn load_f16(p: *const u16, n: usize) -> Self;
    /// Whole numbers from 0 to 255.
    unsafe fn load_u8(p: *const u8, n: usize) -> Self;
    unsafe fn store(self, p: *mut f32, n: usize);
    /// Rounds to the nearest, ties to even; a NaN stays a NaN.
    unsafe fn store_bf16(self, p: *mut u16, n: usize);

    /// Whether [`Self::store_bf16_two`] is faster where it is told that none is a NaN.
    const TELLS_NUMBERS: bool = false;

    /// The same for `2 N` elements. With `NUMBERS` none of them may be a NaN.
    #[inline(always)]
    unsafe fn store_bf16_two<const NUMBERS: bool>(a: Self, b: Self, p: *mut u16) {
        // SAFETY: the caller has room for them.
        unsafe {
            a.store_bf16(p, Self::N);
            b.store_bf16(p.add(Self::N), Self::N);
        }
    }

    /// Writes the lowest byte of each lane, which holds an integer.
    unsafe fn store_low_bytes(self, p: *mut u8, n: usize);

    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    /// `self * b + c`
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// The smaller; `b` if one is NaN.
    unsafe fn min(self, b: Self) -> Self;
    /// The larger; `b` if one is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The nearest integer.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for an integral `n` from -127 to 127; at -127, below the normal numbers, perhaps 0.
    unsafe fn scale_by_power(self, n: Self) -> Self;
    /// Zero from lane `n` on.
    unsafe fn first(self, n: usize) -> Self;
    /// The sum of all lanes, always added in the same order.
    unsafe fn sum(self) -> f32;
    /// The largest lane.
    unsafe fn largest(self) -> f32;
    /// From `a0 b0 a1 b1 ..` in two registers to `a0 a1 ..` and `b0 b1 ..`.
    unsafe fn unzip(low: Self, high: Self) -> (Self, Self);
    /// The way back.
    unsafe fn zip(even: Self, odd: Self) -> (Self, Self);
    /// The first and the second bf16 of `n <= N` pairs.
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16, n: usize) -> (Self, Self) {
        let low = Self::N.min(2 * n);
        // SAFETY: the caller has `2 n` elements there.
        unsafe { Self::unzip(Self::load_bf16(p, low), Self::load_bf16(p.add(low), 2 * n - low)) }
    }
    /// Writes `n <= N` pairs of bf16.
    #[inline(always)]
    unsafe fn store_bf16_pairs(first: Self, second: Self, p: *mut u16, n: usize) {
        let low = Self::N.min(2 * n);
        // SAFETY: the caller has room for `2 n` elements there.
        unsafe {
            let (a, b) = Self::zip(first, second);
            a.store_bf16(p, low);
            b.store_bf16(p.add(low), 2 * n - low);
        }
    }
    /// Reads a square of `N x N` 32-bit words, rows `from_stride` bytes apart, and writes it with rows and columns
    /// exchanged, rows `to_stride` bytes apart. Asks for the square at `next`, which may be anywhere, to be fetched.
    unsafe fn transpose(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize, next: *const u8);
    /// The same for words that are two bf16 each: writes `2 N x N` f32, those of the lower halves of a word's column
    /// first.
    unsafe fn transpose_widened(
        from: *const u8,
        from_stride: usize,
        to: *mut u8,
        to_stride: usize,
        next: *const u8,
    );
    /// Asks for the cache line at `p`, which may be anywhere.
    unsafe fn fetch(p: *const u8);
}
