//! AVX-512: 16 lanes.

use std::arch::x86_64::*;

use super::Lanes;

/// Sixteen f32; `BF16` says whether the processor rounds to bf16 in one instruction.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx512<const BF16: bool>(__m512);

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
fn mask(n: usize) -> u16 {
    debug_assert!(n <= 16);
    #[allow(clippy::cast_possible_truncation, reason = "n <= 16")]
    let mask = ((1u32 << n) - 1) as u16;
    mask
}

// SAFETY, for each block below: the processor has the instructions, and `n` elements are at the pointer, as the
// trait's contract says; masked lanes are not touched.
impl<const BF16: bool> Lanes for Avx512<BF16> {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(v) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32, n: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { if n == 16 { _mm512_loadu_ps(p) } else { _mm512_maskz_loadu_ps(mask(n), p) } })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16, n: usize) -> Self {
        // SAFETY: see above.
        unsafe {
            let half = load_16(p, n);
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16, n: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(load_16(p, n)) })
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8, n: usize) -> Self {
        // SAFETY: see above.
        unsafe {
            let bytes =
                if n == 16 { _mm_loadu_si128(p.cast()) } else { _mm_maskz_loadu_epi8(mask(n), p.cast()) };
            Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, n: usize) {
        // SAFETY: see above.
        unsafe {
            if n == 16 { _mm512_storeu_ps(p, self.0) } else { _mm512_mask_storeu_ps(p, mask(n), self.0) }
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, n: usize) {
        // SAFETY: see above.
        unsafe {
            let half = if BF16 { round_in_one(self.0) } else { round(self.0) };
            if n == 16 {
                _mm256_storeu_si256(p.cast(), half);
            } else {
                _mm256_mask_storeu_epi16(p.cast(), mask(n), half);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8, n: usize) {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
            if n == 16 {
                _mm_storeu_si128(p.cast(), bytes);
            } else {
                _mm_mask_storeu_epi8(p.cast(), mask(n), bytes);
            }
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    unsafe fn scale_by_power(self, n: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    unsafe fn first(self, n: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_maskz_mov_ps(mask(n), self.0) })
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn unzip(low: Self, high: Self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
            let odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
            let pick = |index| _mm512_permutex2var_ps(low.0, index, high.0);
            (Self(pick(even)), Self(pick(odd)))
        }
    }
    #[inline(always)]
    unsafe fn zip(even: Self, odd: Self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
            let high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
            let pick = |index| _mm512_permutex2var_ps(even.0, index, odd.0);
            (Self(pick(low)), Self(pick(high)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16_pairs(p: *const u16, n: usize) -> (Self, Self) {
        // SAFETY: see above; a pair is a word.
        unsafe {
            let words = if n == 16 {
                _mm512_loadu_si512(p.cast())
            } else {
                _mm512_maskz_loadu_epi32(mask(n), p.cast())
            };
            let second = _mm512_and_si512(words, _mm512_set1_epi32(UPPER));
            (Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))), Self(_mm512_castsi512_ps(second)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16_pairs(first: Self, second: Self, p: *mut u16, n: usize) {
        // SAFETY: see above; a pair is a word.
        unsafe {
            let [first, second] = [first.0, second.0]
                .map(|v| _mm512_cvtepu16_epi32(if BF16 { round_in_one(v) } else { round(v) }));
            let words = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
            if n == 16 {
                _mm512_storeu_si512(p.cast(), words);
            } else {
                _mm512_mask_storeu_epi32(p.cast(), mask(n), words);
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize, next: *const u8) {
        // SAFETY: see above; 16 rows of 16 words are at both places.
        unsafe {
            for (i, column) in columns(from, from_stride, next, from_stride).into_iter().enumerate() {
                _mm512_storeu_si512(to.add(i * to_stride).cast(), column);
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose_widened(
        from: *const u8,
        from_stride: usize,
        to: *mut u8,
        to_stride: usize,
        next: *const u8,
    ) {
        // SAFETY: see above; 16 rows of 16 words are at `from`, twice as many at `to`.
        unsafe {
            for (i, column) in columns(from, from_stride, next, from_stride).into_iter().enumerate() {
                let (lower, upper) =
                    (_mm512_slli_epi32::<16>(column), _mm512_and_si512(column, _mm512_set1_epi32(UPPER)));
                _mm512_storeu_si512(to.add(2 * i * to_stride).cast(), lower);
                _mm512_storeu_si512(to.add((2 * i + 1) * to_stride).cast(), upper);
            }
        }
    }
    #[inline(always)]
    unsafe fn fetch(p: *const u8) {
        // SAFETY: fetching ahead never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}

/// The bf16 in the upper half of a word, as an f32's bits.
const UPPER: i32 = 0xffff_0000u32.cast_signed();

/// The columns of a square of 16 rows of 16 words; asks for 16 lines, the first at `next`.
#[inline(always)]
pub(in crate::cpu) unsafe fn columns(
    from: *const u8,
    from_stride: usize,
    next: *const u8,
    next_stride: usize,
) -> [__m512i; 16] {
    // SAFETY: the caller has the square; fetching ahead never faults.
    unsafe {
        let mut r = [_mm512_setzero_si512(); 16];
        for (i, row) in r.iter_mut().enumerate() {
            *row = _mm512_loadu_si512(from.add(i * from_stride).cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(i * next_stride).cast());
        }
        // Words of neighbouring rows, then pairs of words of pairs of rows: rows of 4 within each 128-bit lane.
        let mut s = r;
        for i in 0..8 {
            s[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            s[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            r[4 * i] = _mm512_unpacklo_epi64(s[4 * i], s[4 * i + 2]);
            r[4 * i + 1] = _mm512_unpackhi_epi64(s[4 * i], s[4 * i + 2]);
            r[4 * i + 2] = _mm512_unpacklo_epi64(s[4 * i + 1], s[4 * i + 3]);
            r[4 * i + 3] = _mm512_unpackhi_epi64(s[4 * i + 1], s[4 * i + 3]);
        }
        // r[4 q + j] holds, in lane l, column 4 l + j of the rows 4 q .. 4 q + 4: exchange q and l.
        for j in 0..4 {
            let a = _mm512_shuffle_i32x4::<0b10_00_10_00>(r[j], r[4 + j]);
            let b = _mm512_shuffle_i32x4::<0b11_01_11_01>(r[j], r[4 + j]);
            let c = _mm512_shuffle_i32x4::<0b10_00_10_00>(r[8 + j], r[12 + j]);
            let d = _mm512_shuffle_i32x4::<0b11_01_11_01>(r[8 + j], r[12 + j]);
            s[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, c);
            s[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(b, d);
            s[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, c);
            s[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(b, d);
        }
        s
    }
}

#[inline(always)]
unsafe fn load_16(p: *const u16, n: usize) -> __m256i {
    // SAFETY: as for the trait's loads.
    unsafe {
        if n == 16 { _mm256_loadu_si256(p.cast()) } else { _mm256_maskz_loadu_epi16(mask(n), p.cast()) }
    }
}

#[inline(always)]
unsafe fn round_in_one(v: __m512) -> __m256i {
    // SAFETY: only where the processor has AVX512_BF16; both types are 32 bytes without padding.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)) }
}

#[inline(always)]
unsafe fn round(v: __m512) -> __m256i {
    // SAFETY: as for all of the trait.
    unsafe {
        let bits = _mm512_castps_si512(v);
        // Half of the last kept bit's value, less one where that bit is 0: ties go to even.
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        // A NaN might round to infinity: it keeps its upper bits and becomes quiet.
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000));
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(kept))
    }
}
