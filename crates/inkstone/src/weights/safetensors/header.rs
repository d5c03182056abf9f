//! The header of a safetensors file: read with limits, then checked against the file, before any tensor is touched.
//!
//! # Source
//! <https://github.com/huggingface/safetensors#format>: 8 bytes little-endian length, a JSON object, the tensors'
//! bytes one after another without holes.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::Range;

use inkstone_tensor::{DType, Shape};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::HeaderProblem;
use crate::weights::is_tensor_name;

/// Bytes before the header that give its length.
pub(super) const LENGTH_BYTES: usize = 8;
/// Largest header; the reference implementation allows 100 MB, the largest real model needs 0.3 MB.
pub(super) const HEADER_LIMIT_BYTES: u64 = 25_000_000;
/// Most tensors in a file; the largest Qwen-Image file has 1,933.
const TENSORS_LIMIT: usize = 100_000;
/// Most entries of `__metadata__`.
const METADATA_LIMIT: usize = 4_096;
/// Longest name of a tensor.
const NAME_LIMIT_BYTES: usize = 512;
/// What of a bad name is shown in its error.
const NAME_SHOWN_CHARS: usize = 80;
const METADATA_KEY: &str = "__metadata__";

/// A tensor's element type as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// A type that the engine has.
    Known(DType),
    /// A type of the format that the engine does not have: its name and element size.
    Foreign(&'static str, usize),
}

/// Where a tensor lies in a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) stored: Stored,
    pub(super) shape: Shape,
    /// Bytes from the start of the file.
    pub(super) range: Range<usize>,
}

/// A header that was checked.
#[derive(Debug)]
pub(super) struct Header {
    /// In the order of their bytes, which follow each other without holes.
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Length of the header of a file of `file_bytes` that begins with `start`.
pub(super) fn header_bytes(start: &[u8], file_bytes: u64) -> Result<usize, HeaderProblem> {
    let Some(length) = start.first_chunk::<LENGTH_BYTES>() else {
        return Err(HeaderProblem::TooShort { file_bytes });
    };
    let header_bytes = u64::from_le_bytes(*length);
    if header_bytes > file_bytes.saturating_sub(LENGTH_BYTES as u64) {
        return Err(HeaderProblem::HeaderOutsideFile { header_bytes, file_bytes });
    }
    match usize::try_from(header_bytes) {
        Ok(bytes) if header_bytes <= HEADER_LIMIT_BYTES => Ok(bytes),
        _ => Err(HeaderProblem::HeaderTooLarge { header_bytes, limit_bytes: HEADER_LIMIT_BYTES }),
    }
}

/// Reads and checks a header (without its length) of a file of `file_bytes`.
pub(super) fn parse(header: &[u8], file_bytes: u64) -> Result<Header, HeaderProblem> {
    let data_start = (LENGTH_BYTES + header.len()) as u64;
    let data_bytes = file_bytes - data_start;
    let raw: RawHeader =
        serde_json::from_slice(header).map_err(|e| HeaderProblem::Json { reason: e.to_string() })?;
    if let Some(what) = raw.too_many {
        let limit = if what == METADATA_KEY { METADATA_LIMIT } else { TENSORS_LIMIT };
        return Err(HeaderProblem::TooMany { what, limit });
    }
    if let Some(name) = raw.duplicate_metadata {
        return Err(HeaderProblem::Duplicate { name });
    }
    let mut tensors = raw.tensors;
    check_names(&mut tensors)?;
    // An empty tensor comes before the one that begins at the same byte: it ends earlier.
    tensors.sort_by_key(|(_, t)| t.data_offsets);
    let mut end = 0;
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        entries.push(check_tensor(name, &tensor, end, data_start, data_bytes)?);
        end = tensor.data_offsets.1;
    }
    if end != data_bytes {
        return Err(HeaderProblem::Trailing { trailing_bytes: data_bytes - end });
    }
    Ok(Header { entries, metadata: raw.metadata })
}

fn check_names(tensors: &mut [(String, RawTensor)]) -> Result<(), HeaderProblem> {
    for (name, _) in tensors.iter() {
        if name.len() > NAME_LIMIT_BYTES || !is_tensor_name(name) {
            return Err(HeaderProblem::BadName { name: name.chars().take(NAME_SHOWN_CHARS).collect() });
        }
    }
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    match tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(HeaderProblem::Duplicate { name: pair[0].0.clone() }),
        None => Ok(()),
    }
}

fn check_tensor(
    name: String,
    tensor: &RawTensor,
    previous_end: u64,
    data_start: u64,
    data_bytes: u64,
) -> Result<Entry, HeaderProblem> {
    let (begin, end) = tensor.data_offsets;
    if begin > end {
        return Err(HeaderProblem::Backwards { name, begin, end });
    }
    if end > data_bytes {
        return Err(HeaderProblem::OutsideFile { name, end, data_bytes });
    }
    if begin != previous_end {
        return Err(HeaderProblem::Layout { name, begin, previous_end });
    }
    let stored = match &tensor.dtype {
        RawType::Is(stored) => stored.clone(),
        RawType::Unknown(stored) => return Err(HeaderProblem::UnknownType { name, stored: stored.clone() }),
    };
    if tensor.shape.rank > Shape::MAX_RANK {
        return Err(HeaderProblem::Rank { name, rank: tensor.shape.rank, limit: Shape::MAX_RANK });
    }
    let Some((shape, want_bytes)) = tensor.shape.checked(stored.size_bytes()) else {
        return Err(HeaderProblem::Overflow { name });
    };
    if want_bytes != end - begin {
        return Err(HeaderProblem::Size { name, want_bytes, got_bytes: end - begin });
    }
    // A mapped file has no more bytes than `usize` can count.
    let position = |offset: u64| usize::try_from(data_start + offset).unwrap_or(usize::MAX);
    Ok(Entry { name, stored, shape, range: position(begin)..position(end) })
}

impl Stored {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::Known(DType::F32),
            "BF16" => Self::Known(DType::Bf16),
            "F16" => Self::Known(DType::F16),
            "U8" => Self::Known(DType::U8),
            "I8" => Self::Known(DType::I8),
            "F64" => Self::Known(DType::F64),
            "I64" => Self::Known(DType::I64),
            "U32" => Self::Known(DType::U32),
            "F8_E4M3" => Self::Known(DType::F8E4m3),
            "F8_E5M2" => Self::Known(DType::F8E5m2),
            "U64" => Self::Foreign("u64", 8),
            "C64" => Self::Foreign("c64", 8),
            "I32" => Self::Foreign("i32", 4),
            "I16" => Self::Foreign("i16", 2),
            "U16" => Self::Foreign("u16", 2),
            "BOOL" => Self::Foreign("bool", 1),
            "F8_E8M0" => Self::Foreign("f8_e8m0", 1),
            _ => return None,
        })
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Known(dtype) => dtype.size_bytes(),
            Self::Foreign(_, size_bytes) => *size_bytes,
        }
    }
}

/// The header as the JSON says, nothing checked but sizes, so that memory stays within a small multiple of it.
#[derive(Default)]
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
    duplicate_metadata: Option<String>,
    too_many: Option<&'static str>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: RawType,
    shape: RawShape,
    data_offsets: (u64, u64),
}

enum RawType {
    Is(Stored),
    Unknown(String),
}

/// Dimensions beyond the highest rank are counted, not kept.
#[derive(Default)]
struct RawShape {
    dims: [u64; Shape::MAX_RANK],
    rank: usize,
}

impl RawShape {
    fn dims(&self) -> &[u64] {
        &self.dims[..self.rank.min(Shape::MAX_RANK)]
    }

    /// The shape and its bytes; `None` if they overflow. Zeros count as ones, so that no order of dimensions
    /// hides an overflow.
    fn checked(&self, size_bytes: usize) -> Option<(Shape, u64)> {
        let limit = u64::try_from(isize::MAX).ok()?;
        let bytes = self.dims().iter().try_fold(size_bytes as u64, |n, &d| n.checked_mul(d.max(1)))?;
        if bytes > limit {
            return None;
        }
        let bytes = if self.dims().contains(&0) { 0 } else { bytes };
        let dims: Vec<usize> = self.dims().iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        Some((Shape::new(&dims)?, bytes))
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a tensor under each name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut metadata_seen = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA_KEY {
                if std::mem::replace(&mut metadata_seen, true) {
                    header.duplicate_metadata = Some(name);
                }
                map.next_value_seed(MetadataSeed(&mut header))?;
            } else if header.tensors.len() < TENSORS_LIMIT {
                header.tensors.push((name, map.next_value()?));
            } else {
                header.too_many = Some("tensors");
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(header)
    }
}

struct MetadataSeed<'a>(&'a mut RawHeader);

impl<'de> serde::de::DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if self.0.metadata.len() == METADATA_LIMIT {
                self.0.too_many = Some(METADATA_KEY);
                continue;
            }
            match self.0.metadata.entry(key) {
                btree_map::Entry::Vacant(slot) => {
                    slot.insert(value);
                }
                btree_map::Entry::Occupied(slot) => self.0.duplicate_metadata = Some(slot.key().clone()),
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for RawType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TypeVisitor;
        impl Visitor<'_> for TypeVisitor {
            type Value = RawType;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a type")
            }
            fn visit_str<E>(self, name: &str) -> Result<RawType, E> {
                let unknown = || RawType::Unknown(name.chars().take(NAME_SHOWN_CHARS).collect());
                Ok(Stored::named(name).map_or_else(unknown, RawType::Is))
            }
        }
        deserializer.deserialize_str(TypeVisitor)
    }
}

impl<'de> Deserialize<'de> for RawShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = RawShape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawShape, A::Error> {
                let mut shape = RawShape::default();
                while let Some(dim) = seq.next_element::<u64>()? {
                    if let Some(slot) = shape.dims.get_mut(shape.rank) {
                        *slot = dim;
                    }
                    shape.rank += 1;
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}
