//! The details of errors about weights that another program quantized.

/// Why a weight that another program quantized is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteProblem {
    /// The note on its format is not JSON with the fields that it should have.
    #[error("the note on its format cannot be read: {reason}")]
    Unreadable {
        /// What the parser says.
        reason: String,
    },
    /// The note names no format: older programs wrote such, with other rules.
    #[error("the note on it names no format")]
    NoFormat,
    /// A format that is not read.
    #[error("its format is {format:?}, which is not read")]
    Format {
        /// The format, shortened.
        format: String,
    },
    /// A rotation that there is none of.
    #[error(
        "it is rotated in groups of {group}; allowed are 4, 16, 64 and 256 that divide its {n_in} inputs"
    )]
    Group {
        /// What the note says.
        group: u64,
        /// Inputs of the layer.
        n_in: usize,
    },
    /// Parts that are missing, of another type or shape, or not finite.
    #[error("{what}")]
    Parts {
        /// Which part, and what is wrong with it.
        what: String,
    },
    /// Signed bytes may be rotated or not; only a note tells.
    #[error("it is i8 without a note on its format")]
    Missing,
}
