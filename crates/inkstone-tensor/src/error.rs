//! What can go wrong in an operation.

use crate::{DType, Shape};

/// The result of a tensor operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation: which one, what it wanted and what it got.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than the operation needs.
    #[error("{op}: {what} has shape {got}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// What the operation needs, in words or as a shape.
        expected: String,
        /// What it was given.
        got: Shape,
    },
    /// A tensor has an element type that the operation does not take.
    #[error("{op}: {what} is {got}, expected {expected}")]
    DType {
        /// The operation.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// The types it takes.
        expected: &'static str,
        /// What it was given.
        got: DType,
    },
    /// A number is outside of what the operation takes.
    #[error("{op}: {what} is {got}, allowed is {allowed}")]
    Range {
        /// The operation.
        op: &'static str,
        /// Which argument.
        what: &'static str,
        /// What is allowed, in words.
        allowed: String,
        /// What it was given.
        got: String,
    },
    /// The device has no memory left for a buffer.
    #[error("out of memory: {wanted_bytes} bytes on {device}")]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Size of the buffer that was asked for.
        wanted_bytes: usize,
    },
    /// The device cannot be used as asked.
    #[error("device {device}: {reason}")]
    Device {
        /// The device's name.
        device: String,
        /// Why.
        reason: String,
    },
}
