//! Which linear layers and convolutions are brought into a smaller format, into which one, and why the others are not.

mod affine;
mod int8;
#[cfg(test)]
mod tests;

use std::fmt;

use inkstone_tensor::{ConvRot, Tensor, Weight};

use crate::{Error, Result};

pub use affine::AffineRule;
pub use int8::Int8Rule;

/// A smaller format that weights are brought into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// 8 bits for weights and activations, rotated. See [`Int8Rule`].
    Int8,
    /// 8 bits for weights, with a scale and a bias for each 64. See [`AffineRule`].
    Q8,
    /// The same with 4 bits for most of them and a few more where they count.
    Q4,
}

impl Quantization {
    /// Its name on the command line and in pictures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }
}

/// Decides about each layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// To products of bytes.
    Int8(Int8Rule),
    /// To packed codes.
    Affine(AffineRule),
}

impl From<Quantization> for Rule {
    fn from(quantization: Quantization) -> Self {
        match quantization {
            Quantization::Int8 => Self::Int8(Int8Rule::default()),
            Quantization::Q8 => Self::Affine(AffineRule { bits: 8 }),
            Quantization::Q4 => Self::Affine(AffineRule { bits: 4 }),
        }
    }
}

impl Rule {
    /// The weight of a layer in the format that is right for it. Inputs are rotated within each `span` that follow each
    /// other: all of a linear layer's, the channels of a pixel.
    ///
    /// # Errors
    /// [`Error::WeightsNotFinite`], no memory.
    pub(crate) fn apply(
        &self,
        component: &str,
        layer: &str,
        stored: &Tensor,
        span: usize,
    ) -> Result<(Weight, Format)> {
        let (weight, format) = match self {
            Self::Int8(rule) => rule.apply(layer, stored, span)?,
            Self::Affine(rule) => rule.apply(layer, stored)?,
        };
        if format.lost().is_some_and(|lost| !lost.is_finite()) {
            let first = vec![format!("{layer}.weight")];
            return Err(Error::WeightsNotFinite { component: component.into(), count: 1, first });
        }
        Ok((weight, format))
    }

    /// Whether [`Self::apply_to_bytes`] has a use for bytes.
    pub(crate) const fn multiplies_bytes(&self) -> bool {
        matches!(self, Self::Int8(_))
    }

    /// What becomes of a layer that another program stored in bytes: its weight, if that is to be used in another way, and its
    /// format. `None` if the rule has no use for them.
    pub(crate) fn apply_to_bytes(&self, layer: &str, stored: &ConvRot) -> Option<(Option<Weight>, Format)> {
        match self {
            Self::Int8(rule) => Some(rule.bytes(layer, stored)),
            Self::Affine(_) => None,
        }
    }

    /// Bytes that a layer's weight may take at most.
    pub(crate) fn most_bytes(&self, layer: &str, stored: &Tensor) -> usize {
        let plain = stored.shape().count() * stored.dtype().size_bytes();
        match self {
            // Each layer may stay as it is, and one in 8-bit floats grows by its scales.
            Self::Int8(_) => plain.max(stored.shape().count() + 4 * stored.rows()),
            Self::Affine(rule) => rule.bytes(layer, stored).unwrap_or(plain),
        }
    }
}

/// Where a layer is in its network, as far as that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// What enters, leaves or tells the time: a thousandth of the weights, and an error there is in everything that
    /// follows.
    Edge(&'static str),
    /// The modulations, computed once a picture: a third of the weights and nearly none of the work. Most of their
    /// values are near 1, where a small error counts.
    Modulation,
    /// What the picture's own stream passes in the transformer's blocks: its errors reach the picture directly, those of
    /// the text's stream through attention only.
    Image,
    /// All others.
    Inside,
}

impl Place {
    /// By the layer's name or its end.
    const PLACES: [(&str, Self); 17] = [
        ("img_in", Self::Edge("the way in")),
        ("txt_in", Self::Edge("the way in")),
        ("proj_out", Self::Edge("the way out")),
        ("norm_out.linear", Self::Edge("once a picture")),
        ("conv_in", Self::Edge("the way in")),
        ("conv_out", Self::Edge("the way out")),
        ("quant_conv", Self::Edge("the way out")),
        ("post_quant_conv", Self::Edge("the way in")),
        ("img_mod.1", Self::Modulation),
        ("txt_mod.1", Self::Modulation),
        ("attn.to_q", Self::Image),
        ("attn.to_k", Self::Image),
        ("attn.to_v", Self::Image),
        ("attn.to_out.0", Self::Image),
        ("img_mlp.net.0.proj", Self::Image),
        ("img_mlp.net.2", Self::Image),
        // Its layers are called linear_1 and linear_2.
        ("time_text_embed.timestep_embedder", Self::Edge("once a picture")),
    ];

    fn of(layer: &str) -> Self {
        let is_at = |name: &str| {
            layer == name || layer.ends_with(&format!(".{name}")) || layer.starts_with(&format!("{name}."))
        };
        let known = Self::PLACES.iter().find(|(name, _)| is_at(name));
        known.map_or(Self::Inside, |(_, place)| *place)
    }
}

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
    /// Packed codes of so many bits; what the weights lost, relative.
    Affine {
        /// Bits of a code.
        bits: u8,
        /// Root of the mean square of what was changed, relative to that of the values.
        lost: f64,
    },
    /// As stored, because of its place in the network or its size.
    KeptFor(&'static str),
    /// As stored: it would have lost this much, relative.
    KeptAt(f64),
}

impl Format {
    /// Whether the layer is smaller than it was.
    #[must_use]
    pub const fn is_smaller(&self) -> bool {
        matches!(self, Self::Int8(_) | Self::Affine { .. })
    }

    /// What it lost or would have lost, relative.
    #[must_use]
    pub const fn lost(&self) -> Option<f64> {
        match self {
            Self::Int8(lost) | Self::Affine { lost, .. } | Self::KeptAt(lost) => Some(*lost),
            Self::KeptFor(_) => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int8(lost) => write!(f, "int8, {:.2} % lost", 100.0 * lost),
            Self::Affine { bits, lost } => write!(f, "q{bits}, {:.2} % lost", 100.0 * lost),
            Self::KeptFor(reason) => write!(f, "as stored: {reason}"),
            Self::KeptAt(lost) => write!(f, "as stored: int8 would lose {:.2} %", 100.0 * lost),
        }
    }
}
