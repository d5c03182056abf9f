//! Which linear layers become products of bytes, and why the others do not.

use std::fmt;

use inkstone_tensor::{Int8Weight, Tensor, Weight, ops};

use crate::Result;

/// A smaller format that weights are brought into while they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// 8 bits for weights and activations, rotated. See [`Int8Rule`].
    Int8,
}

impl Quantization {
    /// Its name on the command line and in pictures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
        }
    }
}

/// Decides about each layer.
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

/// Layers that stay as they are stored, by their name or its end.
const KEPT: [(&str, &str); 7] = [
    // What enters and leaves: a thousandth of the work, and an error there is in everything that follows.
    ("img_in", "the way in"),
    ("txt_in", "the way in"),
    ("proj_out", "the way out"),
    // Computed once a picture for all steps; most of their values are near 1, where a small error counts.
    ("norm_out.linear", "once a picture"),
    ("img_mod.1", "once a picture"),
    ("txt_mod.1", "once a picture"),
    // Its layers are called linear_1 and linear_2.
    ("time_text_embed.timestep_embedder", "once a picture"),
];

/// What became of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerFormat {
    /// The layer's name.
    pub name: String,
    /// Its format.
    pub format: Format,
}

/// A layer's format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    /// Products of bytes; what the weights lost, relative.
    Int8(f64),
    /// As stored, because of its place in the network.
    KeptFor(&'static str),
    /// As stored: it would have lost this much, relative.
    KeptAt(f64),
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int8(error) => write!(f, "int8, {:.2} % lost", 100.0 * error),
            Self::KeptFor(reason) => write!(f, "as stored: {reason}"),
            Self::KeptAt(error) => write!(f, "as stored: int8 would lose {:.2} %", 100.0 * error),
        }
    }
}

impl Int8Rule {
    /// The weight of a layer in the format that is right for it.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn apply(&self, layer: &str, stored: &Tensor) -> Result<(Weight, Format)> {
        let is_place = |name: &str| {
            layer == name || layer.ends_with(&format!(".{name}")) || layer.starts_with(&format!("{name}."))
        };
        if let Some((_, reason)) = KEPT.iter().find(|(name, _)| is_place(name)) {
            return Ok((Weight::Dense(stored.clone()), Format::KeptFor(reason)));
        }
        let group = Int8Weight::group_of(stored.cols()).min(self.max_group);
        let rounded = ops::quantize_int8(stored, group)?;
        let error = rounded.relative_error;
        if error <= self.max_relative_error {
            return Ok((Weight::Int8(rounded.weight), Format::Int8(error)));
        }
        Ok((Weight::Dense(stored.clone()), Format::KeptAt(error)))
    }
}

#[cfg(test)]
mod tests;
