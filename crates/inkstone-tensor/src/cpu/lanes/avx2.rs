//! AVX2 with FMA and F16C: 8 lanes.

use std::arch::x86_64::*;

use super::Lanes;

/// Eight f32.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx2(__m256);

/// All ones, then zeros: the mask of the first `n` lanes starts at `8 - n`.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// All ones in the first `n` lanes.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    debug_assert!(n <= 8);
    // SAFETY: 8 words from `8 - n` on are within the 16.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
}

/// Rounded to bf16, in the lower half of each lane. With `NUMBERS` none of them may be a NaN.
#[inline(always)]
unsafe fn rounded<const NUMBERS: bool>(v: __m256) -> __m256i {
    // SAFETY: the caller's processor has the instructions.
    unsafe {
        let bits = _mm256_castps_si256(v);
        // Half of the last kept bit's value, less one where that bit is 0: ties go to even.
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let mut rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        if !NUMBERS {
            // A NaN might round to infinity: it keeps its upper bits and becomes quiet.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            rounded = _mm256_blendv_epi8(rounded, quiet, nan);
        }
        _mm256_srli_epi32::<16>(rounded)
    }
}

// SAFETY, for each block below: the processor has the instructions, and `n` elements are at the pointer, as the
// trait's contract says; masked lanes are not touched.
impl Lanes for Avx2 {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(v) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32, n: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { if n == 8 { _mm256_loadu_ps(p) } else { _mm256_maskload_ps(p, mask(n)) } })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16, n: usize) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_8(p, n))))) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16, n: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtph_ps(load_8(p, n)) })
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8, n: usize) -> Self {
        // SAFETY: see above.
        unsafe {
            let eight = if n == 8 {
                _mm_loadl_epi64(p.cast())
            } else {
                let mut bytes = [0; 8];
                p.copy_to_nonoverlapping(bytes.as_mut_ptr(), n);
                _mm_cvtsi64_si128(i64::from_le_bytes(bytes))
            };
            Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight)))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, n: usize) {
        // SAFETY: see above.
        unsafe { if n == 8 { _mm256_storeu_ps(p, self.0) } else { _mm256_maskstore_ps(p, mask(n), self.0) } }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, n: usize) {
        // SAFETY: see above.
        unsafe {
            let upper = rounded::<false>(self.0);
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(upper, upper));
            let half = _mm256_castsi256_si128(packed);
            if n == 8 {
                _mm_storeu_si128(p.cast(), half);
            } else {
                let mut all = [0u16; 8];
                _mm_storeu_si128(all.as_mut_ptr().cast(), half);
                std::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
            }
        }
    }
    const TELLS_NUMBERS: bool = true;
    #[inline(always)]
    unsafe fn store_bf16_two<const NUMBERS: bool>(a: Self, b: Self, p: *mut u16) {
        // SAFETY: see above; 16 elements are at the pointer.
        unsafe {
            let packed = _mm256_packus_epi32(rounded::<NUMBERS>(a.0), rounded::<NUMBERS>(b.0));
            _mm256_storeu_si256(p.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8, n: usize) {
        // SAFETY: see above.
        unsafe {
            let whole = _mm256_and_si256(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(0xff));
            let (low, high) = (_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            let bytes = _mm_packus_epi16(_mm_packus_epi32(low, high), _mm_setzero_si128());
            let bytes = _mm_cvtsi128_si64(bytes).to_le_bytes();
            p.copy_from_nonoverlapping(bytes.as_ptr(), n);
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_div_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_min_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    unsafe fn scale_by_power(self, n: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.0), _mm256_set1_epi32(127));
            Self(_mm256_mul_ps(self.0, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))))
        }
    }
    #[inline(always)]
    unsafe fn first(self, n: usize) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_and_ps(self.0, _mm256_castsi256_ps(mask(n))) })
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn unzip(low: Self, high: Self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let a = _mm256_permute2f128_ps::<0x20>(low.0, high.0);
            let b = _mm256_permute2f128_ps::<0x31>(low.0, high.0);
            // a holds the lower halves of both, b the upper ones; within each 128-bit lane even and odd part.
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(a, b);
            let odd = _mm256_shuffle_ps::<0b11_01_11_01>(a, b);
            (Self(even), Self(odd))
        }
    }
    #[inline(always)]
    unsafe fn zip(even: Self, odd: Self) -> (Self, Self) {
        // SAFETY: see above.
        unsafe {
            let a = _mm256_unpacklo_ps(even.0, odd.0);
            let b = _mm256_unpackhi_ps(even.0, odd.0);
            (Self(_mm256_permute2f128_ps::<0x20>(a, b)), Self(_mm256_permute2f128_ps::<0x31>(a, b)))
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const u8, from_stride: usize, to: *mut u8, to_stride: usize, next: *const u8) {
        // SAFETY: see above; 8 rows of 8 words are at both places.
        unsafe {
            for (i, column) in columns(from, from_stride, next).into_iter().enumerate() {
                _mm256_storeu_si256(to.add(i * to_stride).cast(), column);
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
        // SAFETY: see above; 8 rows of 8 words are at `from`, twice as many at `to`.
        unsafe {
            for (i, column) in columns(from, from_stride, next).into_iter().enumerate() {
                let (lower, upper) =
                    (_mm256_slli_epi32::<16>(column), _mm256_and_si256(column, _mm256_set1_epi32(UPPER)));
                _mm256_storeu_si256(to.add(2 * i * to_stride).cast(), lower);
                _mm256_storeu_si256(to.add((2 * i + 1) * to_stride).cast(), upper);
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

/// The columns of a square of 8 rows of 8 words; asks for the square at `next` to be fetched.
#[inline(always)]
unsafe fn columns(from: *const u8, from_stride: usize, next: *const u8) -> [__m256i; 8] {
    // SAFETY: the caller has the square; fetching ahead never faults.
    unsafe {
        let mut r = [_mm256_setzero_si256(); 8];
        for (i, row) in r.iter_mut().enumerate() {
            *row = _mm256_loadu_si256(from.add(i * from_stride).cast());
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(i * from_stride).cast());
        }
        // Words of neighbouring rows, then pairs of words of pairs of rows: rows of 4 within each 128-bit lane.
        let mut s = r;
        for i in 0..4 {
            s[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            s[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..2 {
            r[4 * i] = _mm256_unpacklo_epi64(s[4 * i], s[4 * i + 2]);
            r[4 * i + 1] = _mm256_unpackhi_epi64(s[4 * i], s[4 * i + 2]);
            r[4 * i + 2] = _mm256_unpacklo_epi64(s[4 * i + 1], s[4 * i + 3]);
            r[4 * i + 3] = _mm256_unpackhi_epi64(s[4 * i + 1], s[4 * i + 3]);
        }
        // r[4 q + j] holds, in lane l, column 4 l + j of the rows 4 q .. 4 q + 4: exchange q and l.
        for j in 0..4 {
            s[j] = _mm256_permute2x128_si256::<0x20>(r[j], r[4 + j]);
            s[4 + j] = _mm256_permute2x128_si256::<0x31>(r[j], r[4 + j]);
        }
        s
    }
}

#[inline(always)]
unsafe fn load_8(p: *const u16, n: usize) -> __m128i {
    // SAFETY: as for the trait's loads.
    unsafe {
        if n == 8 {
            return _mm_loadu_si128(p.cast());
        }
        let mut all = [0u16; 8];
        std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), n);
        _mm_loadu_si128(all.as_ptr().cast())
    }
}
