//! Why a picture cannot be read.

/// Why a file is not a picture that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PictureProblem {
    /// The file is something else.
    #[error("it is {what}; PNG, JPEG and WebP are read")]
    NotAPicture {
        /// What the first bytes look like.
        what: &'static str,
    },
    /// More pixels than are read. Found before anything is decoded.
    #[error(
        "it has {width_px} x {height_px} pixels; allowed are {max_side_px} a side and {max_pixels} in all",
        max_side_px = crate::codec::MAX_SIDE_PX,
        max_pixels = crate::codec::MAX_PIXELS
    )]
    TooLarge {
        /// Columns.
        width_px: u32,
        /// Rows.
        height_px: u32,
    },
    /// The file breaks off or breaks the rules of its format.
    #[error("it is damaged: {reason}")]
    Damaged {
        /// What the decoder says.
        reason: String,
    },
    /// A kind of picture that the decoder does not know.
    #[error("it is of a kind that is not read: {reason}")]
    Unsupported {
        /// What the decoder says.
        reason: String,
    },
    /// The settings stored in the picture cannot be understood.
    #[error("the settings stored in it are not sound: {reason}")]
    Metadata {
        /// What is wrong with them.
        reason: String,
    },
}
