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
    /// Signed 64-bit integer; token ids and masks in files.
    I64,
}

impl DType {
    /// Bytes an element takes.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::I64 => 8,
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
            Self::I64 => "i64",
        })
    }
}
