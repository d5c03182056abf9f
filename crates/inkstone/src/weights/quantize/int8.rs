//! The rule of products of bytes.

use inkstone_tensor::{ConvRot, Int8Weight, Tensor, Weight, ops};

use super::{Format, Place};
use crate::Result;

/// Layers inside the network become products of bytes where they lose little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Int8Rule {
    /// How many inputs are rotated together at most; 1 is no rotation.
    pub max_group: usize,
    /// Layers whose weights lose more than this stay as they are stored: the root of the mean square of what rounding
    /// changes, relative to that of the values.
    pub max_relative_error: f64,
}

impl Default for Int8Rule {
    fn default() -> Self {
        // Normally distributed values of a row of thousands reach to 4 of their deviations: a step is 4/127 of one, and
        // rounding to steps loses 1/sqrt(12) of that, 0.9 %. Rotated rows are nearly normal. Twice that means a row
        // with values that the rotation could not spread.
        Self { max_group: Int8Weight::MAX_GROUP, max_relative_error: 0.018 }
    }
}

impl Int8Rule {
    pub(super) fn apply(&self, layer: &str, stored: &Tensor, span: usize) -> Result<(Weight, Format)> {
        if let Some(reason) = kept(layer) {
            return Ok((Weight::Dense(stored.clone()), Format::KeptFor(reason)));
        }
        let group = Int8Weight::group_of(span).min(self.max_group);
        let rounded = ops::quantize_int8(stored, group)?;
        let error = rounded.relative_error;
        if error <= self.max_relative_error {
            return Ok((Weight::Int8(rounded.weight), Format::Int8(error)));
        }
        Ok((Weight::Dense(stored.clone()), Format::KeptAt(error)))
    }

    /// The bytes of another program are multiplied as they are; `None` for a layer that stays what it is.
    pub(super) fn bytes(self, layer: &str, stored: &ConvRot) -> (Option<Weight>, Format) {
        match kept(layer) {
            Some(reason) => (None, Format::KeptFor(reason)),
            None => (Some(Weight::Int8(stored.into())), Format::Int8(0.0)),
        }
    }
}

/// Why a layer stays as it is stored.
fn kept(layer: &str) -> Option<&'static str> {
    match Place::of(layer) {
        Place::Edge(reason) => Some(reason),
        // They have a row for each step only: too few to gain by products of bytes.
        Place::Modulation => Some("once a picture"),
        Place::Image | Place::Inside => None,
    }
}
