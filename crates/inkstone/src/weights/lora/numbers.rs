//! Numbers in the types that files have, as products read them.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Result as TensorResult, Shape, Tensor, Weight, ops};

use super::keys::{self, Part};
use crate::error::LoraProblem;
use crate::weights::loader::{float8, in_f32};
use crate::weights::safetensors::SafeTensors;
use crate::weights::safetensors::whole::outline;

/// Tensors by name, each with the type that it is stored in.
pub(super) type Numbers = BTreeMap<String, (Tensor, DType)>;

/// Bytes that a number takes beside those of the file, if it is brought into another type.
pub(super) fn more_bytes(stored: DType) -> usize {
    match stored {
        DType::F8E4m3 | DType::F8E5m2 => DType::Bf16.size_bytes(),
        DType::F64 => DType::F32.size_bytes(),
        _ => 0,
    }
}

/// Bytes that it takes beyond that while it is brought into it: a copy, and what it becomes a second time.
pub(super) fn passing_bytes(stored: DType) -> usize {
    match stored {
        DType::F64 => DType::F64.size_bytes() + DType::F32.size_bytes(),
        _ => 0,
    }
}

/// The tensors of a file as f32, bf16 or f16, with the types that they are stored in: 8-bit floats as bf16, which has all of
/// their numbers, f64 rounded to f32, alphas that are whole numbers as f32. Those without bytes stay without.
///
/// # Errors
/// No memory; a problem where a tensor is of another type.
pub(super) fn readable(file: SafeTensors) -> TensorResult<Result<Numbers, LoraProblem>> {
    let mut all = Numbers::new();
    for (name, tensor) in file.tensors {
        let stored = tensor.dtype();
        let tensor = match stored {
            DType::F32 | DType::Bf16 | DType::F16 => tensor,
            DType::F8E4m3 | DType::F8E5m2 => widened(tensor)?,
            DType::F64 if tensor.is_counted() => outline(tensor.device(), DType::F32, *tensor.shape())?,
            DType::F64 => in_f32(&tensor, None)?,
            _ => {
                let have = file.foreign.get(&name).map_or_else(|| stored.to_string(), ToString::to_string);
                let is_alpha = keys::parse(&name).is_some_and(|key| key.part == Part::Alpha);
                match whole_number(tensor.bytes(), &have).filter(|_| is_alpha) {
                    Some(number) => Tensor::from_f32(tensor.device(), &[number], Shape::vector(1))?,
                    None => return Ok(Err(LoraProblem::Type { tensor: name, have })),
                }
            }
        };
        all.insert(name, (tensor, stored));
    }
    Ok(Ok(all))
}

/// 8-bit floats as bf16.
fn widened(stored: Tensor) -> TensorResult<Tensor> {
    let shape = *stored.shape();
    if stored.is_counted() {
        return outline(stored.device(), DType::Bf16, shape);
    }
    let matrix = Weight::from(float8(stored, None)?);
    let rows: Vec<u32> = (0..u32::try_from(matrix.n_out()).unwrap_or(u32::MAX)).collect();
    ops::embedding(&matrix, &rows, DType::Bf16)?.reshape(shape)
}

/// The number that these bytes are in a type of whole numbers, such as `i32`, if they are one.
fn whole_number(bytes: &[u8], dtype: &str) -> Option<f32> {
    let is_signed = dtype.starts_with('i');
    let bits: usize = dtype.strip_prefix(['i', 'u'])?.parse().ok()?;
    let sign = if is_signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut wide = [sign; 16];
    wide.get_mut(..bytes.len()).filter(|to| to.len() * 8 == bits)?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide) as f32)
}

#[cfg(test)]
mod tests {
    use super::whole_number;

    #[test]
    fn whole_numbers_of_all_types() {
        let cases: [(&[u8], &str, Option<f32>); 9] = [
            (&[16, 0, 0, 0, 0, 0, 0, 0], "i64", Some(16.0)),
            (&[0xfe, 0xff, 0xff, 0xff], "i32", Some(-2.0)),
            (&[0xfe, 0xff], "u16", Some(65534.0)),
            (&[0x80], "i8", Some(-128.0)),
            (&[0x80], "u8", Some(128.0)),
            (&[0xff; 8], "u64", Some(18_446_744_073_709_551_615.0)),
            (&[1, 0, 0, 0, 2, 0, 0, 0], "i32", None),
            (&[1], "bool", None),
            (&[], "i32", None),
        ];
        for (bytes, dtype, want) in cases {
            assert_eq!(whole_number(bytes, dtype), want, "{dtype} {bytes:?}");
        }
    }
}
