//! The values of a GGUF file's pairs, looked at where they lie.

use super::header::Reader;
use crate::error::GgufProblem;

/// Types of values, as the format numbers them.
mod kind {
    pub(super) const I8: u32 = 1;
    pub(super) const I16: u32 = 3;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub(in crate::weights) enum Value<'a> {
    /// A whole number, or a switch; what 64 bits do not hold with a sign is as large as fits.
    Whole(i64),
    /// Another number.
    Float(f64),
    Text(&'a str),
    /// A list of texts, each with its length before it. They need not be UTF-8.
    Texts(u64, &'a [u8]),
    /// A list of numbers of a type.
    Numbers(u32, &'a [u8]),
}

impl<'a> Value<'a> {
    pub(in crate::weights) fn text(&self) -> Option<&'a str> {
        if let Self::Text(text) = *self { Some(text) } else { None }
    }

    /// A whole number that is not negative.
    pub(in crate::weights) fn count(&self) -> Option<u64> {
        if let Self::Whole(number) = *self { u64::try_from(number).ok() } else { None }
    }

    pub(in crate::weights) fn number(&self) -> Option<f64> {
        match *self {
            Self::Whole(number) => i32::try_from(number).ok().map(f64::from),
            Self::Float(number) => Some(number),
            _ => None,
        }
    }

    /// The texts of a list, and how many they are.
    pub(in crate::weights) fn texts(&self) -> Option<(u64, impl Iterator<Item = &'a [u8]> + use<'a>)> {
        let Self::Texts(count, mut bytes) = *self else { return None };
        let texts = (0..count).map_while(move |_| {
            let (length, rest) = bytes.split_first_chunk()?;
            let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            bytes = rest;
            Some(text)
        });
        Some((count, texts))
    }

    /// Bytes of a list.
    pub(in crate::weights) fn list_bytes(&self) -> usize {
        if let Self::Texts(_, bytes) | Self::Numbers(_, bytes) = self { bytes.len() } else { 0 }
    }

    /// The numbers of a list of 32 bits.
    pub(in crate::weights) fn i32s(&self) -> Option<impl Iterator<Item = i32>> {
        let Self::Numbers(kind::I32, bytes) = *self else { return None };
        Some(bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)))
    }
}

/// Bytes of a value of this type; `None` for those whose length depends and for what is no type.
fn size_of(kind: u32) -> Option<u64> {
    match kind {
        0 | kind::I8 | kind::BOOL => Some(1),
        2 | kind::I16 => Some(2),
        4..=kind::F32 => Some(4),
        kind::U64..=kind::F64 => Some(8),
        _ => None,
    }
}

/// Reads a value of a type.
pub(super) fn read<'a>(reader: &mut Reader<'a>, key: &str, kind: u32) -> Result<Value<'a>, GgufProblem> {
    let unknown = |kind| GgufProblem::ValueType { key: key.into(), kind };
    match (kind, size_of(kind)) {
        (_, Some(size)) => {
            let bytes = reader.take(size, "a value")?;
            if kind == kind::BOOL && bytes[0] > 1 {
                return Err(unknown(kind));
            }
            Ok(number(kind, bytes))
        }
        (kind::STRING, _) => {
            let length = reader.u64("the length of a text")?;
            let text = std::str::from_utf8(reader.take(length, "a text")?);
            Ok(Value::Text(text.map_err(|_| GgufProblem::NotUtf8 { key: key.into() })?))
        }
        (kind::ARRAY, _) => {
            let (element, length) = (reader.u32("the type of a list")?, reader.u64("the length of a list")?);
            match (element, size_of(element)) {
                (_, Some(size)) => {
                    Ok(Value::Numbers(element, reader.take(length.saturating_mul(size), "a list")?))
                }
                (kind::STRING, _) => {
                    let before = reader.rest();
                    // Each takes 8 bytes at least, so a length that lies ends soon.
                    for _ in 0..length {
                        let length = reader.u64("the length of a text")?;
                        reader.take(length, "a text")?;
                    }
                    Ok(Value::Texts(length, &before[..before.len() - reader.rest().len()]))
                }
                (kind::ARRAY, _) => Err(GgufProblem::NestedList { key: key.into() }),
                _ => Err(unknown(element)),
            }
        }
        _ => Err(unknown(kind)),
    }
}

/// A number of a type from as many bytes as it has.
fn number<'a>(kind: u32, bytes: &[u8]) -> Value<'a> {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    // From the sign's bit on all bits are the sign.
    let unused = 64 - 8 * bytes.len();
    let signed = i64::from_le_bytes((unsigned << unused).to_le_bytes()) >> unused;
    match kind {
        kind::F32 => Value::Float(f32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]).into()),
        kind::F64 => Value::Float(f64::from_le_bytes(wide)),
        kind::I8 | kind::I16 | kind::I32 | kind::I64 => Value::Whole(signed),
        _ => Value::Whole(i64::try_from(unsigned).unwrap_or(i64::MAX)),
    }
}
