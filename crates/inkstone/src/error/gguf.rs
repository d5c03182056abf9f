//! The details of errors about GGUF files.

/// A rule of the GGUF format that a file breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufProblem {
    /// The file does not begin as the format says.
    #[error("it does not begin with GGUF")]
    NotGguf,
    /// A version of the format that is not read.
    #[error("it has version {version}{}, versions 2 and 3 are read", if *big_endian { " (big-endian)" } else { "" })]
    Version {
        /// What the file says.
        version: u32,
        /// Whether it is a known version with its bytes the other way round.
        big_endian: bool,
    },
    /// The file ends in the middle of something.
    #[error("{what} wants {wanted} bytes, {left} are left")]
    CutShort {
        /// What does not end inside of the file.
        what: &'static str,
        /// Its bytes.
        wanted: u64,
        /// Bytes that are left.
        left: u64,
    },
    /// More before the tensors' data than any model needs.
    #[error("more than {limit_bytes} bytes come before its tensors' data")]
    HeadTooLarge {
        /// What is allowed.
        limit_bytes: usize,
    },
    /// More tensors or pairs than any model needs.
    #[error("it says that it has {got} {what}, the limit is {limit}")]
    TooMany {
        /// Tensors or key-value pairs.
        what: &'static str,
        /// What the file says.
        got: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A key or a tensor's name is too long.
    #[error("a name has {length} bytes, the limit is {limit}")]
    NameTooLong {
        /// What the file says.
        length: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A key or a tensor's name is empty, no text, or has control characters or looks like a path that leaves its folder.
    #[error("{name:?} is no name")]
    BadName {
        /// The start of the name.
        name: String,
    },
    /// A name occurs twice.
    #[error("{name:?} occurs twice")]
    Duplicate {
        /// The key or tensor.
        name: String,
    },
    /// A value of a type that the format does not have.
    #[error("the value of {key:?} has the unknown type {kind}")]
    ValueType {
        /// The key.
        key: String,
        /// The type's number.
        kind: u32,
    },
    /// A text that is not UTF-8.
    #[error("the value of {key:?} is not UTF-8")]
    NotUtf8 {
        /// The key.
        key: String,
    },
    /// A list of lists.
    #[error("the value of {key:?} is a list of lists")]
    NestedList {
        /// The key.
        key: String,
    },
    /// The alignment is not a power of two, or too large.
    #[error("its alignment is {got}, allowed are powers of two up to {limit}")]
    Alignment {
        /// What the file says; 0 where it is no 32-bit number.
        got: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A tensor has no dimension, or more than the engine knows.
    #[error("{name:?} has {rank} dimensions, allowed are 1 to {limit}")]
    Rank {
        /// The tensor.
        name: String,
        /// What the file says.
        rank: u32,
        /// What is allowed.
        limit: usize,
    },
    /// A tensor's type is not one of the format.
    #[error("{name:?} has the unknown type {number}")]
    TensorType {
        /// The tensor.
        name: String,
        /// The type's number.
        number: u32,
    },
    /// A tensor's rows are no whole blocks.
    #[error("{name:?} has rows of {len} elements, its type has blocks of {block_len}")]
    NoWholeBlocks {
        /// The tensor.
        name: String,
        /// Elements of a row.
        len: u64,
        /// Elements of a block.
        block_len: u64,
    },
    /// The shape that a tensor had before its program laid it out anew has other elements than it, or is none.
    #[error("{name:?} has {count} elements, the shape noted for it others")]
    NotedShape {
        /// The tensor.
        name: String,
        /// What it has.
        count: usize,
    },
    /// A part of a file that was split, which is not where its name puts it, or whose name does not say so.
    #[error("it is part {number} of {count} of a file that was split, and its name says otherwise")]
    Split {
        /// Which one, from 1.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// A tensor's shape gives more bytes than there are addresses.
    #[error("the shape of {name:?} overflows")]
    Overflow {
        /// The tensor.
        name: String,
    },
    /// Tensors overlap, leave a hole or are not aligned.
    #[error("{name:?} begins at byte {offset} of the data, expected is {expected}")]
    Offset {
        /// The tensor.
        name: String,
        /// What the file says.
        offset: u64,
        /// Where the tensor before it ends, aligned.
        expected: u64,
    },
    /// A tensor ends outside of the file.
    #[error("{name:?} ends at byte {end}, the file has {file_bytes}")]
    OutsideFile {
        /// The tensor.
        name: String,
        /// The byte after its last.
        end: u64,
        /// Size of the file.
        file_bytes: u64,
    },
}
