//! The head of a GGUF file: read with limits, every field checked against the file, before any tensor is touched.
//!
//! # Source
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>: magic, version, counts, key-value pairs, tensors'
//! names, shapes, types and offsets, then the tensors' bytes, each at a multiple of the alignment. All numbers are
//! little-endian. ggml wants tensors one after another without holes beyond the alignment, and so do we.
//! ComfyUI-GGUF lays tensors of many dimensions or narrow rows out as rows of 256 elements, and notes the shapes that they
//! had: `comfy.gguf.orig_shape.NAME`, a list of i32, outermost dimension first (its loader.py, `get_orig_shape`).

use std::collections::BTreeMap;
use std::ops::Range;

use inkstone_tensor::{BlockFormat, DType, Shape};

use super::value::{self, Value};
use crate::error::GgufProblem;
use crate::weights::is_tensor_name;

/// How the file begins.
pub(in crate::weights) const MAGIC: &[u8] = b"GGUF";
/// Versions that are read; the first had other lengths.
const VERSIONS: [u32; 2] = [2, 3];
/// Most bytes before the tensors' data; a tokenizer of 150,000 tokens takes 6 MB.
const HEAD_LIMIT_BYTES: usize = 100_000_000;
/// Most tensors in a file; the largest Qwen-Image file has 1,933.
const TENSORS_LIMIT: u64 = 100_000;
/// Most key-value pairs; real files have some dozens.
const PAIRS_LIMIT: u64 = 4_096;
/// Longest key and longest name of a tensor.
const NAME_LIMIT_BYTES: u64 = 512;
/// Where tensors begin unless the file says otherwise.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
/// Largest alignment: more than a page helps nobody.
const ALIGNMENT_LIMIT: u64 = 1 << 16;
/// How many files one was split into, and which of them this is, from 0 (llama.cpp, `LLM_KV_SPLIT_NO`).
const SPLIT_COUNT: &str = "split.count";
const SPLIT_PLACE: &str = "split.no";
/// Before the name of a tensor: the shape that it had before.
const NOTED_SHAPE: &str = "comfy.gguf.orig_shape.";
/// What of a bad name is shown in its error.
const NAME_SHOWN_CHARS: usize = 80;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// A type that the engine has.
    Dense(DType),
    /// A format of blocks that the engine decodes.
    Blocks(BlockFormat),
    /// A type of the format that the engine does not read: its name, elements and bytes of a block.
    Foreign(&'static str, usize, usize),
}

/// Where a tensor lies in a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) stored: Stored,
    /// Outermost dimension first, as everywhere here; files have them the other way round.
    pub(super) shape: Shape,
    /// The same, or another one with as many elements in whose rows its blocks lie.
    pub(super) laid_out: Shape,
    /// Bytes from the start of the file.
    pub(super) range: Range<usize>,
}

impl Entry {
    /// Gives the tensor the shape that is noted for it, if one is.
    fn take_noted_shape(&mut self, values: &BTreeMap<String, Value<'_>>) -> Result<(), GgufProblem> {
        let Some(noted) = values.get(&format!("{NOTED_SHAPE}{}", self.name)) else { return Ok(()) };
        let count = self.shape.count();
        let dims = noted.i32s().and_then(|dims| dims.map(|dim| usize::try_from(dim).ok()).collect());
        let shape = dims.and_then(|dims: Vec<usize>| Shape::new(&dims));
        let Some(shape) = shape.filter(|shape| shape.count() == count) else {
            return Err(GgufProblem::NotedShape { name: self.name.clone(), count });
        };
        self.shape = shape;
        // Blocks follow each other: whole ones make rows of any length.
        let (block_len, _) = self.stored.block();
        if (shape.cols() as u64).is_multiple_of(block_len) {
            self.laid_out = shape;
        }
        Ok(())
    }
}

/// A head that was checked.
#[derive(Debug, Default)]
pub(in crate::weights) struct Header<'a> {
    pub(super) entries: Vec<Entry>,
    pub(in crate::weights) values: BTreeMap<String, Value<'a>>,
}

/// The place of a file among those that one was split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::weights) struct Split {
    /// From 0.
    pub(in crate::weights) place: u64,
    pub(in crate::weights) count: u64,
}

impl Header<'_> {
    /// What llama-gguf-split noted; `None` for a file that is whole.
    pub(in crate::weights) fn split(&self) -> Option<Split> {
        let number = |key: &str| self.values.get(key).and_then(Value::count);
        let count = number(SPLIT_COUNT).filter(|count| *count > 1)?;
        Some(Split { place: number(SPLIT_PLACE).unwrap_or(0), count })
    }

    /// The values that are text.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        let text = |(key, value): (&String, &Value<'_>)| Some((key.clone(), value.text()?.to_owned()));
        self.values.iter().filter_map(text).collect()
    }
}

/// Reads and checks the head of a file with these bytes.
pub(super) fn parse(file: &[u8]) -> Result<Header<'_>, GgufProblem> {
    let mut reader = Reader { file, at: 0 };
    if reader.take(MAGIC.len() as u64, "the magic")? != MAGIC {
        return Err(GgufProblem::NotGguf);
    }
    let version = reader.u32("the version")?;
    if !VERSIONS.contains(&version) {
        let big_endian = VERSIONS.contains(&version.swap_bytes());
        return Err(GgufProblem::Version { version, big_endian });
    }
    let tensors = count(reader.u64("the number of tensors")?, "tensors", TENSORS_LIMIT)?;
    let pairs = count(reader.u64("the number of key-value pairs")?, "key-value pairs", PAIRS_LIMIT)?;
    let (values, alignment) = read_pairs(&mut reader, pairs)?;
    let mut raw = Vec::new();
    for _ in 0..tensors {
        raw.push(read_tensor(&mut reader)?);
    }
    let data_start = (reader.at as u64).next_multiple_of(alignment);
    let mut entries = place(raw, data_start, alignment, file.len() as u64)?;
    entries.iter_mut().try_for_each(|entry| entry.take_noted_shape(&values))?;
    Ok(Header { entries, values })
}

fn count(got: u64, what: &'static str, limit: u64) -> Result<u64, GgufProblem> {
    if got <= limit { Ok(got) } else { Err(GgufProblem::TooMany { what, got, limit }) }
}

/// The pairs, and the alignment.
fn read_pairs<'a>(
    reader: &mut Reader<'a>,
    pairs: u64,
) -> Result<(BTreeMap<String, Value<'a>>, u64), GgufProblem> {
    let mut values = BTreeMap::new();
    let mut alignment = ALIGNMENT;
    for _ in 0..pairs {
        let key = reader.name("a key")?;
        let kind = reader.u32("the type of a value")?;
        let value = value::read(reader, &key, kind)?;
        if key == ALIGNMENT_KEY {
            let u32_kind = 4;
            alignment = value.count().filter(|_| kind == u32_kind).unwrap_or(0);
            if !alignment.is_power_of_two() || alignment > ALIGNMENT_LIMIT {
                return Err(GgufProblem::Alignment { got: alignment, limit: ALIGNMENT_LIMIT });
            }
        }
        if values.contains_key(&key) {
            return Err(GgufProblem::Duplicate { name: key });
        }
        values.insert(key, value);
    }
    Ok((values, alignment))
}

/// A tensor as its entry says.
struct RawTensor {
    name: String,
    stored: Stored,
    shape: Shape,
    bytes: u64,
    offset: u64,
}

fn read_tensor(reader: &mut Reader<'_>) -> Result<RawTensor, GgufProblem> {
    let name = reader.name("the name of a tensor")?;
    let rank = reader.u32("the number of dimensions")?;
    let mut dims = [1u64; Shape::MAX_RANK];
    let dims = match usize::try_from(rank) {
        Ok(rank) if (1..=dims.len()).contains(&rank) => &mut dims[..rank],
        _ => return Err(GgufProblem::Rank { name, rank, limit: Shape::MAX_RANK }),
    };
    for dim in dims.iter_mut() {
        *dim = reader.u64("a dimension")?;
    }
    let number = reader.u32("the type of a tensor")?;
    let offset = reader.u64("the offset of a tensor")?;
    let Some(stored) = stored(number) else { return Err(GgufProblem::TensorType { name, number }) };
    let (len, size) = stored.block();
    if !dims[0].is_multiple_of(len) {
        return Err(GgufProblem::NoWholeBlocks { name, len: dims[0], block_len: len });
    }
    // Zeros count as ones, so that no order of dimensions hides an overflow.
    let elements = dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim.max(1)));
    let bytes = elements.and_then(|n| (n / len).checked_mul(size)).filter(|n| *n <= isize::MAX as u64);
    let outer_first: Option<Vec<usize>> = dims.iter().rev().map(|d| usize::try_from(*d).ok()).collect();
    let (Some(bytes), Some(shape)) = (bytes, outer_first.and_then(|dims| Shape::new(&dims))) else {
        return Err(GgufProblem::Overflow { name });
    };
    let bytes = if dims.contains(&0) { 0 } else { bytes };
    Ok(RawTensor { name, stored, shape, bytes, offset })
}

/// Checks that tensors lie one after another inside of the file, each at a multiple of the alignment.
fn place(
    raw: Vec<RawTensor>,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<Vec<Entry>, GgufProblem> {
    let mut names = std::collections::BTreeSet::new();
    let mut entries = Vec::with_capacity(raw.len());
    let mut next = 0u64;
    for tensor in raw {
        let RawTensor { name, stored, shape, bytes, offset } = tensor;
        if !names.insert(name.clone()) {
            return Err(GgufProblem::Duplicate { name });
        }
        if offset != next {
            return Err(GgufProblem::Offset { name, offset, expected: next });
        }
        // No overflow: all that came before lies in the file, and a tensor has no more bytes than there are addresses.
        let begin = data_start + offset;
        let end = begin.saturating_add(bytes);
        if end > file_bytes {
            return Err(GgufProblem::OutsideFile { name, end, file_bytes });
        }
        next = (offset + bytes).next_multiple_of(alignment);
        // A file in memory has no more bytes than `usize` can count.
        let position = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let range = position(begin)..position(end);
        entries.push(Entry { name, stored, shape, laid_out: shape, range });
    }
    Ok(entries)
}

/// The types of ggml that are or were in files, by number (`ggml.h`, `GGMLQuantizationType` of gguf-py).
fn stored(number: u32) -> Option<Stored> {
    use BlockFormat as B;
    Some(match number {
        0 => Stored::Dense(DType::F32),
        1 => Stored::Dense(DType::F16),
        2 => Stored::Blocks(B::Q4_0),
        3 => Stored::Blocks(B::Q4_1),
        6 => Stored::Blocks(B::Q5_0),
        7 => Stored::Blocks(B::Q5_1),
        8 => Stored::Blocks(B::Q8_0),
        9 => Stored::Foreign("q8_1", 32, 40),
        10 => Stored::Blocks(B::Q2K),
        11 => Stored::Blocks(B::Q3K),
        12 => Stored::Blocks(B::Q4K),
        13 => Stored::Blocks(B::Q5K),
        14 => Stored::Blocks(B::Q6K),
        15 => Stored::Foreign("q8_K", 256, 292),
        16 => Stored::Foreign("iq2_xxs", 256, 66),
        17 => Stored::Foreign("iq2_xs", 256, 74),
        18 => Stored::Foreign("iq3_xxs", 256, 98),
        19 => Stored::Foreign("iq1_s", 256, 50),
        20 => Stored::Foreign("iq4_nl", 32, 18),
        21 => Stored::Foreign("iq3_s", 256, 110),
        22 => Stored::Foreign("iq2_s", 256, 82),
        23 => Stored::Foreign("iq4_xs", 256, 136),
        24 => Stored::Dense(DType::I8),
        25 => Stored::Foreign("i16", 1, 2),
        26 => Stored::Foreign("i32", 1, 4),
        27 => Stored::Dense(DType::I64),
        28 => Stored::Dense(DType::F64),
        29 => Stored::Foreign("iq1_m", 256, 56),
        30 => Stored::Dense(DType::Bf16),
        34 => Stored::Foreign("tq1_0", 256, 54),
        35 => Stored::Foreign("tq2_0", 256, 66),
        39 => Stored::Foreign("mxfp4", 32, 17),
        40 => Stored::Foreign("nvfp4", 64, 36),
        41 => Stored::Foreign("q1_0", 128, 18),
        _ => return None,
    })
}

impl Stored {
    /// Elements and bytes of a block.
    fn block(self) -> (u64, u64) {
        let (len, size) = match self {
            Self::Dense(dtype) => (1, dtype.size_bytes()),
            Self::Blocks(format) => (format.block_len(), format.block_bytes()),
            Self::Foreign(_, len, size) => (len, size),
        };
        (len as u64, size as u64)
    }
}

/// Reads a file from its start on.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.file[self.at..]
    }

    pub(super) fn take(&mut self, bytes: u64, what: &'static str) -> Result<&'a [u8], GgufProblem> {
        let rest = self.rest();
        let taken = usize::try_from(bytes).ok().and_then(|n| rest.get(..n));
        let Some(taken) = taken else {
            return Err(GgufProblem::CutShort { what, wanted: bytes, left: rest.len() as u64 });
        };
        self.at += taken.len();
        if self.at > HEAD_LIMIT_BYTES {
            return Err(GgufProblem::HeadTooLarge { limit_bytes: HEAD_LIMIT_BYTES });
        }
        Ok(taken)
    }

    fn number<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufProblem> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N as u64, what)?);
        Ok(number)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufProblem> {
        self.number(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufProblem> {
        self.number(what).map(u64::from_le_bytes)
    }

    /// A key or a tensor's name: never a path, nothing that a terminal could mistake.
    fn name(&mut self, what: &'static str) -> Result<String, GgufProblem> {
        let length = self.u64(what)?;
        if length > NAME_LIMIT_BYTES {
            return Err(GgufProblem::NameTooLong { length, limit: NAME_LIMIT_BYTES });
        }
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(name) if is_tensor_name(name) => Ok(name.to_owned()),
            _ => {
                let shown = String::from_utf8_lossy(bytes).chars().take(NAME_SHOWN_CHARS).collect();
                Err(GgufProblem::BadName { name: shown })
            }
        }
    }
}
