//! The details of errors about model files.

use std::collections::BTreeMap;
use std::fmt;

/// A rule of the safetensors format that a file breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// No room for the length of the header.
    #[error("it has {file_bytes} bytes, fewer than the 8 that give the header's length")]
    TooShort {
        /// Size of the file.
        file_bytes: u64,
    },
    /// The header does not end inside of the file.
    #[error("its header says {header_bytes} bytes, the file has {file_bytes}")]
    HeaderOutsideFile {
        /// What the file says.
        header_bytes: u64,
        /// Size of the file.
        file_bytes: u64,
    },
    /// The header is larger than any model needs.
    #[error("its header has {header_bytes} bytes, the limit is {limit_bytes}")]
    HeaderTooLarge {
        /// What the file says.
        header_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// The header is not the JSON object it should be.
    #[error("its header is not as it should be: {reason}")]
    Json {
        /// What the parser says, with line and column.
        reason: String,
    },
    /// More tensors or metadata entries than any model needs.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// Tensors or metadata entries.
        what: &'static str,
        /// What is allowed.
        limit: usize,
    },
    /// A name occurs twice.
    #[error("{name:?} occurs twice")]
    Duplicate {
        /// The tensor or metadata entry.
        name: String,
    },
    /// A tensor's name is empty, too long, has control characters or looks like a path that leaves its folder.
    #[error("{name:?} is no name for a tensor")]
    BadName {
        /// The start of the name.
        name: String,
    },
    /// A tensor's element type is not one of the format.
    #[error("{name:?} has the unknown type {stored:?}")]
    UnknownType {
        /// The tensor.
        name: String,
        /// The type's name.
        stored: String,
    },
    /// A tensor has more dimensions than the engine knows.
    #[error("{name:?} has {rank} dimensions, the limit is {limit}")]
    Rank {
        /// The tensor.
        name: String,
        /// Its number of dimensions.
        rank: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A tensor's shape gives more bytes than there are addresses.
    #[error("the shape of {name:?} overflows")]
    Overflow {
        /// The tensor.
        name: String,
    },
    /// A tensor's byte range is not as long as its shape says.
    #[error("{name:?} has {got_bytes} bytes, its shape wants {want_bytes}")]
    Size {
        /// The tensor.
        name: String,
        /// By its shape.
        want_bytes: u64,
        /// By its offsets.
        got_bytes: u64,
    },
    /// A tensor begins after its end.
    #[error("{name:?} begins at {begin} and ends at {end}")]
    Backwards {
        /// The tensor.
        name: String,
        /// Its first byte.
        begin: u64,
        /// The byte after its last.
        end: u64,
    },
    /// A tensor ends outside of the file.
    #[error("{name:?} ends at byte {end} of {data_bytes}")]
    OutsideFile {
        /// The tensor.
        name: String,
        /// The byte after its last.
        end: u64,
        /// What the file holds after its header.
        data_bytes: u64,
    },
    /// Tensors overlap or leave a hole between them.
    #[error("{name:?} begins at byte {begin}, the tensor before it ends at {previous_end}")]
    Layout {
        /// The tensor.
        name: String,
        /// Its first byte.
        begin: u64,
        /// Where it should begin.
        previous_end: u64,
    },
    /// Bytes follow the last tensor.
    #[error("{trailing_bytes} bytes follow the last tensor")]
    Trailing {
        /// How many.
        trailing_bytes: u64,
    },
}

/// A tensor that is not as its component's config wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongTensor {
    /// Its name.
    pub name: String,
    /// The shape or type it should have.
    pub want: String,
    /// What it has.
    pub have: String,
}

/// All that is wrong with the tensors of one component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorReport {
    /// Tensors that the files lack.
    pub missing: Vec<String>,
    /// Tensors of another shape.
    pub misshapen: Vec<WrongTensor>,
    /// Tensors of a type that the engine does not take there.
    pub mistyped: Vec<WrongTensor>,
    /// Tensors that nothing asked for.
    pub extra: Vec<String>,
}

impl TensorReport {
    /// Names of one kind that a message spells out; the rest is counted.
    const NAMES_SHOWN: usize = 5;

    /// Whether nothing is wrong but types that are not read.
    pub(super) fn is_of_types(&self) -> bool {
        let Self { missing, misshapen, mistyped, extra } = self;
        !mistyped.is_empty() && missing.is_empty() && misshapen.is_empty() && extra.is_empty()
    }
}

impl std::error::Error for TensorReport {}

impl fmt::Display for TensorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misshapen =
            self.misshapen.iter().map(|t| format!("{} (want {}, have {})", t.name, t.want, t.have));
        let mut kinds = vec![
            ("missing".to_owned(), self.missing.clone()),
            ("of another shape".into(), misshapen.collect()),
        ];
        let mut types: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for WrongTensor { name, have, .. } in &self.mistyped {
            types.entry(have).or_default().push(name.clone());
        }
        kinds.extend(types.into_iter().map(|(have, names)| (format!("in {have}, which is not read"), names)));
        kinds.push(("not known".into(), self.extra.clone()));
        let mut separator = "";
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            let (first, more) = names.split_at(names.len().min(Self::NAMES_SHOWN));
            write!(f, "{separator}{} {kind}: {}", names.len(), first.join(", "))?;
            separator = "; ";
            if !more.is_empty() {
                write!(f, " and {} more", more.len())?;
            }
        }
        Ok(())
    }
}

/// Why a JSON file of a model is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonProblem {
    /// The file is larger than any of its kind.
    #[error("it has {size_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// Size of the file.
        size_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// The file begins with a byte order mark.
    #[error("it begins with a byte order mark")]
    ByteOrderMark,
    /// Not JSON, nested too deeply, a key twice, or not the fields that are wanted.
    #[error("{reason}")]
    Invalid {
        /// What the parser says, with line and column.
        reason: String,
    },
}

/// Why a list of shards, or one of several files, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShardProblem {
    /// A shard's name is not that of a safetensors file in the same folder.
    #[error("{name:?} is not the name of a safetensors file in this folder")]
    BadName {
        /// The start of the name.
        name: String,
    },
    /// More tensors or shards than any model has.
    #[error("it lists more than {limit} {what}")]
    TooMany {
        /// Tensors or shards.
        what: &'static str,
        /// What is allowed.
        limit: usize,
    },
    /// Shards that are not there.
    #[error("{count} of its files are not there: {}", first.join(", "))]
    MissingShards {
        /// How many.
        count: usize,
        /// The first of them.
        first: Vec<String>,
    },
    /// One of several files, without the others beside it.
    #[error("it is one of {of}, and {count} of them are not beside it: {}", first.join(", "))]
    Alone {
        /// How many there are.
        of: usize,
        /// How many are missing.
        count: usize,
        /// The first of them.
        first: Vec<String>,
    },
    /// Tensors that are not in the shard that the list names.
    #[error("{count} tensors are not in the file that it names: {}", first.join(", "))]
    Misplaced {
        /// How many.
        count: usize,
        /// The first of them, with the shard where each should be.
        first: Vec<String>,
    },
    /// Tensors that are in two shards.
    #[error("{name:?} is in two files")]
    Duplicate {
        /// The tensor.
        name: String,
    },
}

/// Why a tokenizer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerProblem {
    /// A part is of a kind that the Qwen tokenizers do not have; unknown patterns could run without end.
    #[error("its {part} is {got}, the Qwen tokenizers have {want}")]
    NotQwen {
        /// The part.
        part: &'static str,
        /// What the file has, shortened.
        got: String,
        /// What is supported.
        want: &'static str,
    },
    /// A token's number is beyond the table of embeddings.
    #[error("{token:?} has the number {id}, the text encoder has {vocab_size} tokens")]
    IdOutOfRange {
        /// The token, shortened.
        token: String,
        /// Its number.
        id: u64,
        /// Rows of the table.
        vocab_size: u64,
    },
    /// Two tokens have the same number.
    #[error("two tokens have the number {id}")]
    DuplicateId {
        /// The number.
        id: u64,
    },
    /// More entries than the vocabulary allows.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// Tokens or merges.
        what: &'static str,
        /// What is allowed.
        limit: usize,
    },
    /// A token that the prompt's template needs is missing.
    #[error("it has no token {token}")]
    MissingToken {
        /// The token.
        token: &'static str,
    },
    /// The tokenizer's engine refuses the file, or cannot tokenise a text with it.
    #[error("{reason}")]
    Refused {
        /// What the engine says.
        reason: String,
    },
    /// A line of the merges is not two tokens.
    #[error("line {line} of its merges is not a pair of tokens")]
    BadMerge {
        /// The line, from 1.
        line: usize,
    },
}

/// A format of files that hold weights, told by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// A Python pickle, bare or in PyTorch's zip: reading it runs code.
    Pickle,
    /// The note that git leaves in place of a large file.
    LfsPointer,
    /// A web page.
    Html,
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pickle => {
                "a PyTorch checkpoint (pickle); pickle is not supported, for reading it runs code"
            }
            Self::LfsPointer => "a git-lfs pointer; the weights themselves were not downloaded",
            Self::Html => "a web page, not weights; the download went wrong",
        })
    }
}
