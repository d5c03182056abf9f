//! The dispatch table: every kernel of one instruction set, chosen once when the device starts.

use std::ops::Range;

use super::decode::QuantRow;
use super::fit::{self, FittedRow};
use super::lanes::Scalar;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::mix::Mixture;
use super::norm::NormedPixels;
use super::operand::Ahead;
use super::peak::{self, Peak};
use super::pixels::{self, PixelLine, RoundedPixels};
use super::rope::Rotation;
use super::rotate::{self, Rounded};
use super::rows::{Row, RowMut, RowsMut};
use super::softmax::{Running, Scores};
use super::tile::few::FewTile;
use super::tile::int8::Int8Tile;
use super::tile::turned::TurnedTile;
use super::tile::{self, Tile};
use super::{decode, elementwise, epilogue, mix, norm, operand, panel, rope, softmax};
use crate::ops::{Activation, Rescale};
use crate::weight::GroupRotation;
use crate::{DType, Error, Result};

/// Part of a row that was not rotated, to bf16.
type VbmiDecode = unsafe fn(&QuantRow<'_>, Range<usize>, *mut u16);

/// The kernels of an instruction set.
pub(super) struct Table {
    /// As `INKSTONE_CPU` and `--cpu` call it.
    pub(super) name: &'static str,
    f32_tile: &'static Tile,
    /// `None` where bf16 operands are widened to f32 first.
    bf16_tile: Option<&'static Tile>,
    /// For few rows of bf16 operands, where there is such a tile.
    turned_tile: Option<&'static TurnedTile>,
    /// For a few rows of bf16 operands and weights that are decoded.
    few_tile: Option<&'static FewTile>,
    int8_tile: &'static Int8Tile,
    /// Takes its place on a processor with AVX512_VNNI, `None` where there is no such tile.
    vnni_tile: Option<&'static Int8Tile>,
    /// Decodes to bf16 in place of the row kernel on a processor with AVX512_VBMI and AVX512_BF16.
    vbmi_decode: Option<VbmiDecode>,
    pub(super) rows: RowKernels,
    pub(super) peak: &'static Peak,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Table {
    /// The tile for operands of this type, and the type it wants them in.
    pub(super) fn tile(&self, operands: DType) -> (&'static Tile, DType) {
        match self.bf16_tile {
            Some(tile) if operands == DType::Bf16 => (tile, DType::Bf16),
            _ => (self.f32_tile, DType::F32),
        }
    }

    /// The tile for few rows of bf16 operands.
    pub(super) fn turned_tile(&self) -> Option<&'static TurnedTile> {
        self.turned_tile
    }

    /// The tile for a few rows of bf16 operands and weights that are decoded.
    pub(super) fn few_tile(&self) -> Option<&'static FewTile> {
        self.few_tile
    }

    /// The tile for operands of bytes.
    pub(super) fn int8_tile(&self) -> &'static Int8Tile {
        self.vnni_tile.filter(|_| peak::has_int8()).unwrap_or(self.int8_tile)
    }

    /// Writes the elements `cols` of a row, in the type of `to`.
    ///
    /// # Safety
    /// `cols` lies in the row and is as long as `to`.
    #[inline(always)]
    pub(super) unsafe fn decode(&self, row: &QuantRow<'_>, cols: Range<usize>, mut to: RowMut<'_>) {
        // SAFETY: the caller's promise; tables are only used where the processor has their instructions.
        unsafe {
            match self.vbmi_decode {
                Some(decode) if to.dtype() == DType::Bf16 && !row.is_rotated() && decode::has_vbmi() => {
                    decode(row, cols, to.start().cast());
                }
                _ => (self.rows.decode)(row, cols, to),
            }
        }
    }

    /// Whether there is a tile for bf16 operands.
    pub(super) fn multiplies_bf16(&self) -> bool {
        self.bf16_tile.is_some()
    }

    /// The table of this name, or the best one.
    pub(super) fn choose(name: Option<&str>) -> Result<&'static Self> {
        let Some(name) = name else { return Ok(Self::best()) };
        let failed = |reason: String| Err(Error::Device { device: "cpu".into(), reason });
        match Self::available().into_iter().find(|table| table.name == name) {
            Some(table) => Ok(table),
            None if NAMES.contains(&name) => failed(format!("this processor has no {name}")),
            None => failed(format!("no instruction set is called '{name}'; there are {}", NAMES.join(", "))),
        }
    }

    fn best() -> &'static Self {
        Self::available().pop().unwrap_or(&SCALAR)
    }

    /// The tables whose instruction set this processor has, the best one last.
    pub(super) fn available() -> Vec<&'static Self> {
        #[allow(unused_mut)]
        let mut tables = vec![&SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                tables.push(&AVX2);
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
                    tables.push(&AVX512);
                    if has!("avx512bf16") {
                        // Intel's bf16 products run at half the rate of f32 ones, so there the other is the better.
                        let place = tables.len() - usize::from(is_intel());
                        tables.insert(place, &AVX512_BF16);
                    }
                }
            }
        }
        // NEON is part of every 64-bit ARM; its table is the scalar one until it has kernels of its own.
        #[cfg(target_arch = "aarch64")]
        tables.push(&NEON);
        tables
    }
}

/// What `INKSTONE_CPU` may be.
const NAMES: [&str; 5] = ["scalar", "avx2", "avx512", "avx512bf16", "neon"];

/// Kernels over rows, one copy of each body in the instructions of the table.
///
/// # Safety
/// For all of them: the rows are as long as the body of the same name (`elementwise`, `norm`, ..) says.
pub(super) struct RowKernels {
    pub(super) convert: unsafe fn(Row<'_>, RowMut<'_>),
    decode: unsafe fn(&QuantRow<'_>, Range<usize>, RowMut<'_>),
    pub(super) convert_ahead: unsafe fn(Row<'_>, Ahead, RowMut<'_>),
    pub(super) activate: unsafe fn(Row<'_>, Activation, RowMut<'_>),
    pub(super) add: unsafe fn(Row<'_>, Row<'_>, RowMut<'_>),
    pub(super) add_scaled: unsafe fn(Row<'_>, f32, RowMut<'_>),
    pub(super) guidance: unsafe fn(Row<'_>, Row<'_>, f32, Rescale, RowMut<'_>),
    pub(super) layer_norm: unsafe fn(Row<'_>, f32, Row<'_>, Row<'_>, RowMut<'_>),
    pub(super) rms_norm: unsafe fn(Row<'_>, Row<'_>, f32, RowMut<'_>),
    pub(super) channel_norm: unsafe fn(NormedPixels<'_>, RowsMut<'_>),
    pub(super) rope_norm: unsafe fn(Row<'_>, &Rotation<'_>, RowMut<'_>),
    pub(super) mix: unsafe fn(&Mixture<'_>, RowMut<'_>),
    pub(super) store: unsafe fn(Row<'_>, Option<Row<'_>>, Activation, RowMut<'_>),
    pub(super) add_to: unsafe fn(Row<'_>, Option<Row<'_>>, Option<Row<'_>>, RowMut<'_>),
    pub(super) mul_to: unsafe fn(Row<'_>, Option<Row<'_>>, RowMut<'_>),
    pub(super) store_rows: unsafe fn(&[f32], usize, Row<'_>, RowsMut<'_>),
    pub(super) add_to_rows: unsafe fn(&[f32], usize, Row<'_>, RowsMut<'_>),
    pub(super) softmax: unsafe fn(&Scores<'_>, &mut Running, RowMut<'_>) -> f32,
    pub(super) scale: unsafe fn(f32, RowMut<'_>),
    pub(super) scale_to: unsafe fn(Row<'_>, f32, RowMut<'_>),
    pub(super) quantize: unsafe fn(Row<'_>, GroupRotation, &mut [f32], f32, &mut [u8]) -> Rounded,
    pub(super) rotate: unsafe fn(Row<'_>, usize, RowMut<'_>),
    pub(super) flip: unsafe fn(&mut [u8]),
    pub(super) rotate_pixels: unsafe fn(&PixelLine<'_>, &mut [f32], &mut [f32]) -> f32,
    pub(super) round_pixels: unsafe fn(&[f32], f32, RoundedPixels<'_>),
    pub(super) rounding_squares: unsafe fn(&[f32], usize, f32) -> [f32; 2],
    pub(super) transpose: unsafe fn(&panel::Words<'_>, &mut [u8]),
    pub(super) pair_rows: unsafe fn(&[u8], &[u8], &mut [u8]),
    pub(super) fit: unsafe fn(Row<'_>, usize, FittedRow<'_>) -> [f64; 2],
}

/// A kernel: the body `$body`, compiled for `$lanes` with these target features.
macro_rules! kernel {
    ([$lanes:ty $(, $features:literal)?] $body:path, $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        // The body's contract, and: the processor has the features.
        $(#[target_feature(enable = $features)])?
        unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: the caller's promise.
            unsafe { $body($($arg),*) }
        }
    };
}

/// All row kernels for one kind of lanes.
macro_rules! row_kernels {
    ($lanes:ty $(, $features:literal)?) => {{
        use {elementwise as e, epilogue as p, norm as n, softmax as s};
        kernel!([$lanes $(, $features)?] e::convert_row::<$lanes>, convert(x: Row<'_>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] decode::decode_row::<$lanes>,
            decode(row: &QuantRow<'_>, cols: Range<usize>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] operand::convert_ahead_row::<$lanes>,
            convert_ahead(x: Row<'_>, ahead: Ahead, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] e::activate_row::<$lanes>,
            activate(x: Row<'_>, activation: Activation, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] e::add_row::<$lanes>, add(a: Row<'_>, b: Row<'_>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] e::add_scaled_row::<$lanes>,
            add_scaled(b: Row<'_>, factor: f32, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] e::guidance_row::<$lanes>,
            guidance(cond: Row<'_>, uncond: Row<'_>, scale: f32, rescale: Rescale, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] n::layer_norm_row::<$lanes>,
            layer_norm(x: Row<'_>, eps: f32, scale: Row<'_>, shift: Row<'_>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] n::rms_norm_row::<$lanes>,
            rms_norm(x: Row<'_>, weight: Row<'_>, eps: f32, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] n::channel_norm_rows::<$lanes>,
            channel_norm(x: NormedPixels<'_>, to: RowsMut<'_>));
        kernel!([$lanes $(, $features)?] rope::rope_norm_row::<$lanes>,
            rope_norm(x: Row<'_>, rotation: &Rotation<'_>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] mix::mix_row::<$lanes>, mix(of: &Mixture<'_>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] p::store_row::<$lanes>,
            store(sums: Row<'_>, bias: Option<Row<'_>>, activation: Activation, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] p::add_to_row::<$lanes>,
            add_to(sums: Row<'_>, bias: Option<Row<'_>>, gate: Option<Row<'_>>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] p::mul_to_row::<$lanes>,
            mul_to(sums: Row<'_>, bias: Option<Row<'_>>, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] p::store_rows::<$lanes>,
            store_rows(sums: &[f32], stride: usize, bias: Row<'_>, to: RowsMut<'_>));
        kernel!([$lanes $(, $features)?] p::add_to_rows::<$lanes>,
            add_to_rows(sums: &[f32], stride: usize, bias: Row<'_>, to: RowsMut<'_>));
        kernel!([$lanes $(, $features)?] s::softmax_row::<$lanes>,
            softmax(scores: &Scores<'_>, running: &mut Running, to: RowMut<'_>) -> f32);
        kernel!([$lanes $(, $features)?] s::scale_row::<$lanes>, scale(factor: f32, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] s::scale_to_row::<$lanes>,
            scale_to(x: Row<'_>, factor: f32, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] rotate::quantize_row::<$lanes>,
            quantize(x: Row<'_>, rotation: GroupRotation, rotated: &mut [f32], zero: f32, to: &mut [u8]) -> Rounded);
        kernel!([$lanes $(, $features)?] rotate::rotate_row::<$lanes>,
            rotate(x: Row<'_>, group: usize, to: RowMut<'_>));
        kernel!([$lanes $(, $features)?] rotate::flip, flip(bytes: &mut [u8]));
        kernel!([$lanes $(, $features)?] pixels::rotate_pixels::<$lanes>,
            rotate_pixels(line: &PixelLine<'_>, pixel: &mut [f32], to: &mut [f32]) -> f32);
        kernel!([$lanes $(, $features)?] pixels::round_pixels::<$lanes>,
            round_pixels(rotated: &[f32], factor: f32, to: RoundedPixels<'_>));
        kernel!([$lanes $(, $features)?] rotate::rounding_squares::<$lanes>,
            rounding_squares(rotated: &[f32], group: usize, scale: f32) -> [f32; 2]);
        kernel!([$lanes $(, $features)?] panel::transpose::<$lanes>,
            transpose(words: &panel::Words<'_>, to: &mut [u8]));
        kernel!([$lanes $(, $features)?] panel::pair_rows, pair_rows(a: &[u8], b: &[u8], to: &mut [u8]));
        kernel!([$lanes $(, $features)?] fit::fit_row::<$lanes>,
            fit(row: Row<'_>, bits: usize, to: FittedRow<'_>) -> [f64; 2]);
        RowKernels {
            convert, decode, convert_ahead, activate, add, add_scaled, guidance, layer_norm, rms_norm, channel_norm,
            rope_norm, mix, store, add_to, mul_to, store_rows, add_to_rows, softmax, scale, scale_to, quantize, rotate, flip, rotate_pixels,
            round_pixels, rounding_squares, transpose, pair_rows, fit,
        }
    }};
}

static SCALAR: Table = Table {
    name: "scalar",
    f32_tile: &tile::scalar::F32,
    bf16_tile: None,
    turned_tile: None,
    few_tile: None,
    int8_tile: &tile::int8::scalar::INT8,
    vnni_tile: None,
    vbmi_decode: None,
    rows: row_kernels!(Scalar),
    peak: &peak::SCALAR,
};

#[cfg(target_arch = "aarch64")]
static NEON: Table = Table {
    name: "neon",
    f32_tile: &tile::scalar::F32,
    bf16_tile: None,
    turned_tile: None,
    few_tile: None,
    int8_tile: &tile::int8::scalar::INT8,
    vnni_tile: None,
    vbmi_decode: None,
    rows: row_kernels!(Scalar),
    peak: &peak::SCALAR,
};

#[cfg(target_arch = "x86_64")]
static AVX2: Table = Table {
    name: "avx2",
    f32_tile: &tile::avx2::F32,
    bf16_tile: None,
    turned_tile: None,
    few_tile: Some(&tile::few::avx2::F32),
    int8_tile: &tile::int8::avx2::INT8,
    vnni_tile: None,
    vbmi_decode: None,
    rows: row_kernels!(Avx2, "avx2,fma,f16c"),
    peak: &peak::AVX2,
};

/// Operands of bf16 are widened to f32, as by the tables above.
#[cfg(target_arch = "x86_64")]
static AVX512: Table = Table {
    name: "avx512",
    f32_tile: &tile::avx512::F32,
    bf16_tile: None,
    turned_tile: None,
    few_tile: Some(&tile::few::avx512::F32),
    int8_tile: &tile::int8::avx2::INT8,
    vnni_tile: Some(&tile::int8::avx512::VNNI),
    vbmi_decode: Some(decode::vbmi::decode),
    rows: row_kernels!(Avx512<false>, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"),
    peak: &peak::AVX512,
};

/// With products of bf16: twice as fast on AMD's processors.
#[cfg(target_arch = "x86_64")]
static AVX512_BF16: Table = Table {
    name: "avx512bf16",
    f32_tile: &tile::avx512::F32,
    bf16_tile: Some(&tile::avx512::BF16),
    turned_tile: Some(&tile::turned::avx512::BF16),
    few_tile: Some(&tile::few::avx512::BF16),
    int8_tile: &tile::int8::avx2::INT8,
    vnni_tile: Some(&tile::int8::avx512::VNNI),
    vbmi_decode: Some(decode::vbmi::decode),
    rows: row_kernels!(Avx512<true>, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c"),
    peak: &peak::AVX512_BF16,
};

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == *b"GenuineIntel"
}
