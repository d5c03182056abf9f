//! Values of flags of which there are a few.

use clap::ValueEnum;
use inkstone::bench;
use inkstone::weights::Quantization;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clock {
    #[default]
    Wall,
    Cpu,
}

impl Clock {
    /// As the library calls it.
    pub(crate) fn of_bench(self) -> bench::Clock {
        match self {
            Self::Wall => bench::Clock::Wall,
            Self::Cpu => bench::Clock::Processor,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Device {
    #[default]
    Auto,
    Cpu,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dtype {
    #[default]
    Auto,
    Bf16,
    F32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Quantize {
    /// 8 bits for weights and activations; layers that would lose too much stay as they are
    Int8,
    /// 8 bits for weights: half of bf16's memory, nearly the same pictures
    #[value(alias = "8")]
    Q8,
    /// 4 to 6 bits for weights: a third of bf16's memory
    #[value(alias = "4")]
    Q4,
}

impl Quantize {
    /// The library's name for it.
    pub(crate) const fn quantization(self) -> Quantization {
        match self {
            Self::Int8 => Quantization::Int8,
            Self::Q8 => Quantization::Q8,
            Self::Q4 => Quantization::Q4,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Offload {
    #[default]
    Auto,
    /// Nothing
    None,
    /// The text encoder after use
    Encoder,
    /// Also each block, the next read meanwhile
    Stream,
}

impl From<Offload> for inkstone::Offload {
    fn from(offload: Offload) -> Self {
        match offload {
            Offload::Auto => Self::Auto,
            Offload::None => Self::None,
            Offload::Encoder => Self::Encoder,
            Offload::Stream => Self::Stream,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Png,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MetadataPlace {
    #[default]
    Png,
    Sidecar,
    None,
}
