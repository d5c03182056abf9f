//! What can be measured, by name.

use std::fmt;
use std::str::FromStr;

use crate::models::qwen_image;
use crate::request::SIDE_STEP_PX;
use crate::weights::RandomModel;

/// Something to measure. Its name is its kind and its sizes: `linear/1088x3072x12288`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// A matrix product with a bf16 weight: rows, inputs, outputs.
    Linear {
        /// Rows of the activations.
        rows: usize,
        /// Columns of the activations.
        n_in: usize,
        /// Columns of the result.
        n_out: usize,
    },
    /// Attention of all tokens to all tokens.
    Attention {
        /// Tokens.
        tokens: usize,
        /// Heads.
        n_heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// A convolution with a kernel of 3 over a square picture.
    Conv {
        /// Pixels along a side.
        side_px: usize,
        /// Input channels.
        c_in: usize,
        /// Output channels.
        c_out: usize,
    },
    /// A layer of the text encoder.
    Layer {
        /// Tokens of the prompt.
        tokens: usize,
    },
    /// A block of the transformer, with [`Case::PROMPT_TOKENS`].
    Block {
        /// Side of the picture.
        side_px: usize,
    },
    /// The modulations of a block for so many steps, which are computed once a picture.
    Modulations {
        /// Denoising steps.
        steps: usize,
    },
    /// Latents to pixels.
    Decode {
        /// Side of the picture.
        side_px: usize,
        /// Lines of the strips that it is decoded in; `None` for one piece.
        strip_px: Option<usize>,
    },
    /// Pixels to latents.
    Encode {
        /// Side of the picture.
        side_px: usize,
        /// Lines of the strips that it is encoded in; `None` for one piece.
        strip_px: Option<usize>,
    },
    /// Text, [`Case::PICTURE_STEPS`] without guidance, pixels: as many blocks and layers as the model has.
    Picture {
        /// Side of the picture.
        side_px: usize,
    },
}

/// Cases that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Matrix products, attention, convolutions.
    Kernels,
    /// Parts of the networks.
    Stages,
    /// Everything.
    Pictures,
}

impl Group {
    /// Its cases; pictures and the stages that depend on a picture's size are measured at this one.
    #[must_use]
    pub fn cases(self, side_px: usize) -> Vec<Case> {
        let linear = |rows, n_in, n_out| Case::Linear { rows, n_in, n_out };
        let attention = |tokens, n_heads, head_dim| Case::Attention { tokens, n_heads, head_dim };
        let conv = |side_px, c_in, c_out| Case::Conv { side_px, c_in, c_out };
        match self {
            // The shapes of Qwen-Image: its blocks at 512 and 256 pixels, a prompt, one row; its decoder.
            Self::Kernels => vec![
                linear(1088, 3072, 12288),
                linear(1088, 12288, 3072),
                linear(256, 3072, 3072),
                linear(40, 3072, 3072),
                linear(1, 3072, 18432),
                attention(4136, 24, 128),
                attention(1064, 24, 128),
                attention(1024, 1, 384),
                conv(256, 192, 192),
                conv(256, 96, 96),
                conv(64, 384, 384),
                conv(256, 96, 3),
            ],
            Self::Stages => vec![
                Case::Layer { tokens: 128 },
                Case::Block { side_px },
                Case::Modulations { steps: 20 },
                Case::Decode { side_px, strip_px: None },
                Case::Encode { side_px, strip_px: None },
            ],
            Self::Pictures => vec![Case::Picture { side_px }],
        }
    }
}

impl Case {
    /// Tokens of a prompt of a few sentences.
    pub const PROMPT_TOKENS: usize = 40;
    /// Steps of a picture.
    pub const PICTURE_STEPS: usize = 2;

    /// Multiply-adds of matrix products in a run; `None` for a picture, which is more than that.
    #[must_use]
    pub fn products(self) -> Option<f64> {
        Some(match self {
            Self::Linear { rows, n_in, n_out } => product(&[rows, n_in, n_out]),
            Self::Attention { tokens, n_heads, head_dim } => product(&[2, tokens, tokens, n_heads, head_dim]),
            Self::Conv { side_px, c_in, c_out } => product(&[side_px, side_px, 9, c_in, c_out]),
            Self::Layer { tokens } => {
                let config = RandomModel { blocks: 1, layers: 1 }.text_encoder().ok()?;
                let (dim, hidden) = (config.hidden_size, config.intermediate_size);
                let weights = product(&[dim, 2 * dim + 2 * config.heads.kv_width() + 3 * hidden]);
                // Half of the scores of a causal attention are not needed, and counted as in the peers' formulas.
                product(&[tokens]) * weights + product(&[2, tokens, tokens, dim])
            }
            Self::Block { side_px } => {
                let tokens = (side_px / SIDE_STEP_PX).pow(2) + Self::PROMPT_TOKENS;
                let dim = width()?;
                product(&[12, dim, dim, tokens]) + product(&[2, tokens, tokens, dim])
            }
            Self::Modulations { steps } => {
                let dim = width()?;
                product(&[12, dim, dim, steps])
            }
            Self::Decode { side_px, .. } => decode_products(side_px / 8)?,
            Self::Encode { side_px, .. } => encode_products(side_px)?,
            Self::Picture { .. } => return None,
        })
    }
}

fn width() -> Option<usize> {
    let config: qwen_image::Config = RandomModel { blocks: 1, layers: 1 }.transformer().ok()?;
    Some(config.heads.width())
}

fn product(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&n| n as f64).product()
}

/// Multiply-adds of a convolution over a square picture, at each of its outputs.
fn conv(side: usize, kernel: usize, c_in: usize, c_out: usize) -> f64 {
    product(&[side, side, kernel * kernel, c_in, c_out])
}

/// Those of a residual block.
fn residual(side: usize, c_in: usize, c_out: usize) -> f64 {
    let shortcut = if c_in == c_out { 0.0 } else { conv(side, 1, c_in, c_out) };
    conv(side, 3, c_in, c_out) + conv(side, 3, c_out, c_out) + shortcut
}

/// Those of the two residual blocks at the lowest resolution, and of the attention between them.
fn middle(side: usize, channels: usize) -> f64 {
    let tokens = side * side;
    let attention = conv(side, 1, channels, 4 * channels) + product(&[2, tokens, tokens, channels]);
    attention + 2.0 * residual(side, channels, channels)
}

/// Multiply-adds of the encoder for square pictures of this side, walked as the encoder is built.
fn encode_products(mut side: usize) -> Option<f64> {
    let config = RandomModel { blocks: 1, layers: 1 }.vae().ok()?;
    let mut channels = config.base_dim;
    let mut sum = conv(side, 3, config.input_channels, channels);
    for (i, mult) in config.dim_mult.iter().enumerate() {
        let dim = mult * config.base_dim;
        for _ in 0..config.num_res_blocks {
            sum += residual(side, channels, dim);
            channels = dim;
        }
        if i + 1 < config.dim_mult.len() {
            side /= 2;
            sum += conv(side, 3, dim, dim);
        }
    }
    let moments = 2 * config.z_dim;
    Some(sum + middle(side, channels) + conv(side, 3, channels, moments) + conv(side, 1, moments, moments))
}

/// Multiply-adds of the decoder for square latents of this side, walked as the decoder is built.
fn decode_products(mut side: usize) -> Option<f64> {
    let config = RandomModel { blocks: 1, layers: 1 }.vae().ok()?;
    let dims: Vec<usize> = config.dim_mult.iter().rev().map(|m| m * config.base_dim).collect();
    let widest = *dims.first()?;
    let mut sum = conv(side, 1, config.z_dim, config.z_dim) + conv(side, 3, config.z_dim, widest);
    sum += middle(side, widest);
    let mut c_in = widest;
    for (i, &dim) in dims.iter().enumerate() {
        sum += residual(side, c_in, dim) + config.num_res_blocks as f64 * residual(side, dim, dim);
        if i + 1 < dims.len() {
            side *= 2;
            c_in = dim / 2;
            // A kernel of 3 over a doubled picture is one of 2.
            sum += conv(side, 2, dim, c_in);
        }
    }
    Some(sum + conv(side, 3, *dims.last()?, config.input_channels))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Linear { rows, n_in, n_out } => write!(f, "linear/{rows}x{n_in}x{n_out}"),
            Self::Attention { tokens, n_heads, head_dim } => {
                write!(f, "attention/{tokens}x{n_heads}x{head_dim}")
            }
            Self::Conv { side_px, c_in, c_out } => write!(f, "conv/{side_px}x{c_in}x{c_out}"),
            Self::Layer { tokens } => write!(f, "layer/{tokens}"),
            Self::Block { side_px } => write!(f, "block/{side_px}"),
            Self::Modulations { steps } => write!(f, "modulations/{steps}"),
            Self::Decode { side_px, strip_px: None } => write!(f, "decode/{side_px}"),
            Self::Decode { side_px, strip_px: Some(strip_px) } => write!(f, "decode/{side_px}x{strip_px}"),
            Self::Encode { side_px, strip_px: None } => write!(f, "encode/{side_px}"),
            Self::Encode { side_px, strip_px: Some(strip_px) } => write!(f, "encode/{side_px}x{strip_px}"),
            Self::Picture { side_px } => write!(f, "picture/{side_px}"),
        }
    }
}

/// Text that names no case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseCaseError;

impl fmt::Display for ParseCaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "linear/ROWSxINxOUT, attention/TOKENSxHEADSxDIM, conv/SIDExINxOUT, layer/TOKENS, block/SIDE, \
             modulations/STEPS, decode/SIDE, decode/SIDExSTRIP, encode/SIDE, encode/SIDExSTRIP or picture/SIDE; sides are multiples of 16",
        )
    }
}

impl std::error::Error for ParseCaseError {}

impl FromStr for Case {
    type Err = ParseCaseError;

    fn from_str(text: &str) -> Result<Self, ParseCaseError> {
        /// No size that a benchmark needs is larger.
        const LARGEST: usize = 1 << 17;
        let (kind, sizes) = text.split_once('/').ok_or(ParseCaseError)?;
        let size = |text: &str| text.parse().ok().filter(|n| (1..=LARGEST).contains(n));
        let sizes: Option<Vec<usize>> = sizes.split('x').map(size).collect();
        let case = match (kind, sizes.as_deref().unwrap_or_default()) {
            ("linear", &[rows, n_in, n_out]) => Self::Linear { rows, n_in, n_out },
            ("attention", &[tokens, n_heads, head_dim]) => Self::Attention { tokens, n_heads, head_dim },
            ("conv", &[side_px, c_in, c_out]) => Self::Conv { side_px, c_in, c_out },
            ("layer", &[tokens]) => Self::Layer { tokens },
            ("modulations", &[steps]) => Self::Modulations { steps },
            ("decode", &[side_px, strip_px]) if side_px.is_multiple_of(SIDE_STEP_PX) => {
                Self::Decode { side_px, strip_px: Some(strip_px) }
            }
            ("encode", &[side_px, strip_px]) if side_px.is_multiple_of(SIDE_STEP_PX) => {
                Self::Encode { side_px, strip_px: Some(strip_px) }
            }
            (_, &[side_px]) if !side_px.is_multiple_of(SIDE_STEP_PX) => return Err(ParseCaseError),
            ("block", &[side_px]) => Self::Block { side_px },
            ("decode", &[side_px]) => Self::Decode { side_px, strip_px: None },
            ("encode", &[side_px]) => Self::Encode { side_px, strip_px: None },
            ("picture", &[side_px]) => Self::Picture { side_px },
            _ => return Err(ParseCaseError),
        };
        Ok(case)
    }
}
