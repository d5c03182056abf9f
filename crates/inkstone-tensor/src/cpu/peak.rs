//! Multiply-adds on registers alone: what no kernel of a table can be faster than, and how fast the processor runs at
//! the moment.

use super::Cpu;
use crate::DType;

/// Runs so many loops; returns the multiply-adds of one.
///
/// # Safety
/// The processor has the instruction set of the table.
type Loops = unsafe fn(u32) -> f64;

/// The best instructions of a table.
pub(super) struct Peak {
    /// `None` where the compiler chooses the instructions.
    f32: Option<Loops>,
    /// `None` where bf16 operands are widened to f32 first.
    bf16: Option<Loops>,
    /// Of bytes that are widened first; `None` where the compiler chooses the instructions.
    int8: Option<Loops>,
    /// Of bytes as they are, on processors that have it.
    vnni: Option<Loops>,
}

/// As [`crate::Backend::multiply_registers`].
pub(super) fn multiply_registers(cpu: &Cpu, operands: DType, loops: u32) -> Option<f64> {
    let peak = cpu.table.peak;
    let run = match operands {
        DType::F32 => peak.f32?,
        DType::Bf16 => peak.bf16.or(peak.f32)?,
        DType::I8 => peak.vnni.filter(|_| has_int8()).or(peak.int8)?,
        DType::F16 | DType::U8 | DType::U32 | DType::F8E4m3 | DType::F8E5m2 => return None,
        DType::F64 | DType::I64 => return None,
    };
    let threads = cpu.threads.count();
    // SAFETY: tables are chosen by what the processor has; VNNI was asked for.
    let done = cpu.threads.run(threads, usize::MAX, |_| unsafe {
        run(loops);
    });
    done.ok()?;
    // SAFETY: as above; no loops only tell the multiply-adds of one.
    Some(unsafe { run(0) } * f64::from(loops) * f64::from(u32::try_from(threads).unwrap_or(u32::MAX)))
}

/// Seconds that all threads of this process have run on a processor. Measures kernels on a busy machine, where the
/// time on the wall measures the others; `None` where the system does not tell.
#[cfg(unix)]
#[must_use]
pub fn process_seconds() -> Option<f64> {
    let mut time = std::mem::MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call fills the struct where it returns 0.
    let time = unsafe {
        if libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, time.as_mut_ptr()) != 0 {
            return None;
        }
        time.assume_init()
    };
    #[allow(clippy::cast_precision_loss, reason = "years of nanoseconds")]
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

/// Not told here.
#[cfg(not(unix))]
#[must_use]
pub fn process_seconds() -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
pub(super) fn has_int8() -> bool {
    std::arch::is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn has_int8() -> bool {
    false
}

/// Its kernels are compiled to what every processor of the architecture has: four lanes on x86-64, which multiply and add
/// one after the other.
#[cfg(target_arch = "x86_64")]
pub(super) static SCALAR: Peak = Peak { f32: Some(x86::f32_128), bf16: None, int8: None, vnni: None };

#[cfg(not(target_arch = "x86_64"))]
pub(super) static SCALAR: Peak = Peak { f32: None, bf16: None, int8: None, vnni: None };

#[cfg(target_arch = "x86_64")]
pub(super) static AVX2: Peak =
    Peak { f32: Some(x86::f32_256), bf16: None, int8: Some(x86::int8_256), vnni: None };

#[cfg(target_arch = "x86_64")]
pub(super) static AVX512: Peak =
    Peak { f32: Some(x86::f32_512), bf16: None, int8: Some(x86::int8_256), vnni: Some(x86::vnni) };

#[cfg(target_arch = "x86_64")]
pub(super) static AVX512_BF16: Peak =
    Peak { f32: Some(x86::f32_512), bf16: Some(x86::bf16), int8: Some(x86::int8_256), vnni: Some(x86::vnni) };

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    macro_rules! peak_loop {
        ($name:ident, $features:literal, $sums:literal, $products:literal, $ty:ty, $zero:ident, $bits:ident,
         $multiply_add:expr) => {
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(loops: u32) -> f64 {
                /// Both halves of a word are a small bf16, and the word a small f32.
                const WORD: i32 = 0x3c01_3c01;
                let mut sums: [$ty; $sums] = [$zero(); $sums];
                let (a, b) = ($bits(std::hint::black_box(WORD)), $bits(std::hint::black_box(WORD)));
                for _ in 0..loops {
                    for sum in &mut sums {
                        *sum = $multiply_add(*sum, a, b);
                    }
                    // SAFETY: does nothing; keeps the loop from being folded.
                    unsafe { std::arch::asm!("", options(nostack, preserves_flags)) }
                }
                std::hint::black_box(sums);
                f64::from($sums * $products)
            }
        };
    }

    // A sum is a factor of its next product: what does not change in the loop would be multiplied once.
    peak_loop!(f32_128, "sse2", 14, 4, __m128, _mm_setzero_ps, _mm_set1_epi32, |c, a, b| {
        _mm_add_ps(_mm_mul_ps(c, _mm_castsi128_ps(a)), _mm_castsi128_ps(b))
    });
    peak_loop!(int8_256, "avx2", 12, 16, __m256i, _mm256_setzero_si256, _mm256_set1_epi32, |c, a, b| {
        _mm256_add_epi32(_mm256_madd_epi16(c, a), b)
    });
    peak_loop!(f32_256, "avx2,fma", 12, 8, __m256, _mm256_setzero_ps, _mm256_set1_epi32, |c, a, b| {
        _mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), c)
    });
    peak_loop!(f32_512, "avx512f", 16, 16, __m512, _mm512_setzero_ps, _mm512_set1_epi32, |c, a, b| {
        _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), c)
    });
    peak_loop!(
        bf16,
        "avx512f,avx512bf16",
        16,
        32,
        __m512,
        _mm512_setzero_ps,
        _mm512_set1_epi32,
        |c, a, b| {
            // SAFETY: both types are 64 bytes without padding.
            let pairs = |v| unsafe { std::mem::transmute::<__m512i, __m512bh>(v) };
            _mm512_dpbf16_ps(c, pairs(a), pairs(b))
        }
    );
    peak_loop!(
        vnni,
        "avx512f,avx512vnni",
        16,
        64,
        __m512i,
        _mm512_setzero_si512,
        _mm512_set1_epi32,
        _mm512_dpbusd_epi32
    );
}

#[cfg(test)]
mod tests;
