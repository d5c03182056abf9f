//! AVX2 with FMA: two passes of 8 rows of the weight.

use super::{FewTile, widened_tile};
use crate::cpu::lanes::Avx2;

/// bf16 operands that are widened to f32.
pub(in crate::cpu) static F32: FewTile = widened_tile!(Avx2, "avx2,fma,f16c");
