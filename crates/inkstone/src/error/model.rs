//! The details of errors about model files.

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
    const NAMES_SHOWN: usize = 50;
}

impl fmt::Display for TensorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = |list: &[WrongTensor]| -> Vec<String> {
            list.iter().map(|t| format!("{} (want {}, have {})", t.name, t.want, t.have)).collect()
        };
        let kinds = [
            ("missing", self.missing.clone()),
            ("of another shape", wrong(&self.misshapen)),
            ("of another type", wrong(&self.mistyped)),
            ("not known", self.extra.clone()),
        ];
        let mut separator = "";
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "{separator}{} {kind}: ", names.len())?;
            separator = "; ";
            f.write_str(&names[..names.len().min(Self::NAMES_SHOWN)].join(", "))?;
            if names.len() > Self::NAMES_SHOWN {
                write!(f, " and {} more", names.len() - Self::NAMES_SHOWN)?;
            }
        }
        Ok(())
    }
}
