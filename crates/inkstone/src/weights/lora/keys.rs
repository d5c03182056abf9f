//! Names of tensors in LoRA files.

use std::fmt;

/// How a file names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `transformer.LAYER.lora_A.weight`: diffusers.
    Diffusers,
    /// `diffusion_model.LAYER...`: ComfyUI and trainers that follow it.
    DiffusionModel,
    /// `lora_unet_LAYER_WITH_UNDERSCORES.lora_down.weight`: kohya.
    Kohya,
    /// `lycoris_LAYER_WITH_UNDERSCORES.lokr_w1`, `.hada_w1_a`: LyCORIS on its own.
    Lycoris,
    /// `base_model.model.LAYER.lora_A.weight`: PEFT.
    Peft,
    /// `LAYER.lora_A.default.weight`, `LAYER.lora_down.weight`: no prefix.
    Plain,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Diffusers => "diffusers",
            Self::DiffusionModel => "diffusion_model",
            Self::Kohya => "kohya",
            Self::Lycoris => "lycoris",
            Self::Peft => "peft",
            Self::Plain => "plain",
        })
    }
}

/// Beginnings of names, longest first.
const PREFIXES: [(&str, Dialect); 8] = [
    ("base_model.model.transformer.", Dialect::Peft),
    ("model.diffusion_model.", Dialect::DiffusionModel),
    ("lora_transformer_", Dialect::Kohya),
    ("base_model.model.", Dialect::Peft),
    ("diffusion_model.", Dialect::DiffusionModel),
    ("transformer.", Dialect::Diffusers),
    ("lora_unet_", Dialect::Kohya),
    ("lycoris_", Dialect::Lycoris),
];

/// A way to store what is added to a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A LoRA: one product.
    LowRank,
    /// A LoKr: the Kronecker product of two matrices.
    Kronecker,
    /// A LoHa: the elementwise product of two matrices, which are products.
    Hadamard,
    /// The whole difference of two models.
    Whole,
}

/// What a tensor is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// `A [rank, n_in]`
    Down,
    /// `B [n_out, rank]`
    Up,
    /// The number that the product is multiplied with, over the rank.
    Alpha,
    /// The first matrix of a Kronecker product, `[n_out / m, n_in / n]`, or two whose product it is.
    Left,
    LeftA,
    LeftB,
    /// The second one, `[m, n]`, likewise.
    Right,
    RightA,
    RightB,
    /// The first matrix of a Hadamard product, `[n_out, n_in]`: `[n_out, rank]` times `[rank, n_in]`.
    FirstA,
    FirstB,
    /// The second one, likewise.
    SecondA,
    SecondB,
    /// What is added to a weight, as it is: a matrix, or a norm's vector.
    Difference,
    /// What is added to a bias.
    BiasDifference,
}

impl Part {
    /// What kind of layers has it; an alpha is of all.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Alpha => None,
            Self::Down | Self::Up => Some(Kind::LowRank),
            Self::Left | Self::LeftA | Self::LeftB | Self::Right | Self::RightA | Self::RightB => {
                Some(Kind::Kronecker)
            }
            Self::FirstA | Self::FirstB | Self::SecondA | Self::SecondB => Some(Kind::Hadamard),
            Self::Difference | Self::BiasDifference => Some(Kind::Whole),
        }
    }

    /// What files call it.
    pub(super) fn name(self) -> &'static str {
        ENDS.iter().find(|(_, part)| *part == self).map_or("", |(end, _)| end.trim_start_matches('.'))
    }
}

/// Ends of names.
const ENDS: [(&str, Part); 23] = [
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A", Part::Down),
    (".lora_B", Part::Up),
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_down", Part::Down),
    (".lora_up", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
    (".lokr_w1", Part::Left),
    (".lokr_w1_a", Part::LeftA),
    (".lokr_w1_b", Part::LeftB),
    (".lokr_w2", Part::Right),
    (".lokr_w2_a", Part::RightA),
    (".lokr_w2_b", Part::RightB),
    (".hada_w1_a", Part::FirstA),
    (".hada_w1_b", Part::FirstB),
    (".hada_w2_a", Part::SecondA),
    (".hada_w2_b", Part::SecondB),
    (".diff", Part::Difference),
    (".diff_b", Part::BiasDifference),
];

/// A tensor's layer, without prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) dialect: Dialect,
    pub(super) layer: &'a str,
    pub(super) part: Part,
}

/// Reads a name with PEFT's name of the adapter in it, `default` or what somebody called it, as `state_dict()` has it:
/// `.lora_A.ADAPTER.weight`, since a factor of a LoRA is a module, and `.lokr_w1.ADAPTER`, since those of others are not.
fn of_adapter(name: &str) -> Option<(&str, Part)> {
    let of_module = name.strip_suffix(".weight");
    let (rest, _) = of_module.unwrap_or(name).rsplit_once('.')?;
    of_end(rest).filter(|(_, part)| match part.kind() {
        None | Some(Kind::Whole) => false,
        Some(Kind::LowRank) => of_module.is_some(),
        Some(Kind::Kronecker | Kind::Hadamard) => true,
    })
}

/// What stands before a known end, and what that is.
fn of_end(name: &str) -> Option<(&str, Part)> {
    ENDS.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part)))
}

/// Reads a tensor's name; `None` if it is not one of a LoRA.
pub(super) fn parse(name: &str) -> Option<Key<'_>> {
    let (layer, part) = of_end(name).or_else(|| of_adapter(name))?;
    let prefix = PREFIXES.iter().find_map(|(start, dialect)| Some((layer.strip_prefix(start)?, *dialect)));
    let (layer, dialect) = prefix.unwrap_or((layer, Dialect::Plain));
    (!layer.is_empty()).then_some(Key { dialect, layer, part })
}

/// One name for a layer in all dialects: kohya's and LyCORIS', which has underscores for dots.
pub(super) fn flat(layer: &str) -> String {
    layer.replace('.', "_")
}
