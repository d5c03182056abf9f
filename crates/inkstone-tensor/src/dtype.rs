//! Element types.

use std::fmt;

/// The type of a tensor's elements, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper 16 bits of an f32.
    Bf16,
    /// IEEE half precision; storage only, no arithmetic is done in it.
    F16,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// Unsigned 32-bit integer: words of packed codes.
    U32,
    /// 8-bit float with 4 bits of exponent and 3 of mantissa; storage only.
    F8E4m3,
    /// 8-bit float with 5 bits of exponent and 2 of mantissa; storage only.
    F8E5m2,
    /// IEEE double precision; storage only.
    F64,
    /// Signed 64-bit integer; token ids and masks in files.
    I64,
}

impl DType {
    /// Bytes an element takes.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 | Self::I8 | Self::F8E4m3 | Self::F8E5m2 => 1,
        }
    }

    /// Whether the type holds fractions and kernels read it as it is.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16 | Self::F16)
    }

    /// Whether none of these stored elements is NaN or infinite: numbers whose exponent bits are all ones.
    pub(crate) fn are_finite(self, bytes: &[u8]) -> bool {
        let words = |exponent: u32| {
            bytes.as_chunks::<4>().0.iter().all(|word| u32::from_le_bytes(*word) & exponent != exponent)
        };
        let halves = |exponent: u16| {
            bytes.as_chunks::<2>().0.iter().all(|half| u16::from_le_bytes(*half) & exponent != exponent)
        };
        let doubles =
            || bytes.as_chunks::<8>().0.iter().all(|double| f64::from_le_bytes(*double).is_finite());
        match self {
            Self::F64 => doubles(),
            Self::F32 => words(0x7f80_0000),
            Self::Bf16 => halves(0x7f80),
            Self::F16 => halves(0x7c00),
            // The one that is no number; there is no infinity.
            Self::F8E4m3 => bytes.iter().all(|byte| byte & 0x7f != 0x7f),
            Self::F8E5m2 => bytes.iter().all(|byte| byte & 0x7c != 0x7c),
            Self::U8 | Self::I8 | Self::U32 | Self::I64 => true,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U32 => "u32",
            Self::F8E4m3 => "f8_e4m3",
            Self::F8E5m2 => "f8_e5m2",
            Self::F64 => "f64",
            Self::I64 => "i64",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::DType;

    #[test]
    fn numbers_that_are_none_are_found() {
        let cases: [(DType, &[u32], &[u32]); 5] = [
            (
                DType::F32,
                &[f32::MAX.to_bits(), 0x8000_0001],
                &[f32::NAN.to_bits(), f32::NEG_INFINITY.to_bits()],
            ),
            (DType::Bf16, &[0x7f7f, 0xff7f, 0x8001], &[0x7f80, 0xff80, 0x7fc1]),
            (DType::F16, &[0x7bff, 0xfbff, 0x8001], &[0x7c00, 0xfc00, 0x7e01]),
            (DType::F8E4m3, &[0x7e, 0xfe, 0x81], &[0x7f, 0xff]),
            (DType::F8E5m2, &[0x7b, 0xfb, 0x81], &[0x7c, 0xfc, 0x7d]),
        ];
        for (dtype, numbers, others) in cases {
            let stored = |words: &[u32]| -> Vec<u8> {
                words.iter().flat_map(|word| word.to_le_bytes()[..dtype.size_bytes()].to_vec()).collect()
            };
            let sound = stored(numbers);
            assert!(dtype.are_finite(&sound), "{dtype}");
            for other in others {
                let bytes = [&sound[..], &stored(&[*other]), &sound].concat();
                assert!(!dtype.are_finite(&bytes), "{dtype} {other:x}");
            }
        }
        for (value, finite) in [(f64::MAX, true), (-0.0, true), (f64::NAN, false), (f64::INFINITY, false)] {
            assert_eq!(DType::F64.are_finite(&[1f64.to_le_bytes(), value.to_le_bytes()].concat()), finite);
        }
        assert!(
            [DType::U8, DType::I8, DType::U32, DType::I64].iter().all(|dtype| dtype.are_finite(&[0xff; 8]))
        );
    }
}
