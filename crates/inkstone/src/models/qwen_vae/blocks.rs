//! What encoder and decoder are made of.

use inkstone_tensor::ops::{self, Activation, Attention, ConvWeight, Mask, Qkv};
use inkstone_tensor::{DType, Tensor};

use crate::Result;
use crate::nn::attention::score_scale;
use crate::nn::conv::{Conv, ConvShape};
use crate::nn::linear::Linear;
use crate::nn::norm::ChannelNorm;
use crate::nn::strips::StripWalk;
use crate::progress::Context;
use crate::weights::Loader;

/// Side of the large kernels.
const KERNEL: usize = 3;
/// Trailing ones in the shape of a norm inside the video network.
const VIDEO_ONES: usize = 3;
/// Trailing ones in the shape of a norm that works on single frames.
const FRAME_ONES: usize = 2;

/// A 3x3 convolution from one number of channels to another.
pub(super) fn conv3(loader: &mut Loader, name: &str, c_in: usize, c_out: usize) -> Conv {
    Conv::load_causal(loader, name, ConvShape { c_in, c_out, kernel: KERNEL })
}

/// The 3x3 convolution that halves a picture.
pub(super) fn halving_conv(loader: &mut Loader, name: &str, channels: usize) -> Conv {
    let shape = ConvShape { c_in: channels, c_out: channels, kernel: KERNEL };
    resample_conv(loader, name, shape).halving()
}

/// The 3x3 convolution of a doubled picture, and the doubling; it halves the channels.
pub(super) fn doubling_conv(loader: &mut Loader, name: &str, channels: usize) -> Conv {
    let shape = ConvShape { c_in: channels, c_out: channels / 2, kernel: ConvWeight::DOUBLING };
    resample_conv(loader, name, shape)
}

/// The convolution of a resampling, and no temporal convolution: a single frame never reaches it.
fn resample_conv(loader: &mut Loader, name: &str, shape: ConvShape) -> Conv {
    loader.ignore(&format!("{name}.time_conv."));
    Conv::load(loader, &format!("{name}.resample.1"), shape)
}

/// A 1x1 convolution.
pub(super) fn conv1(loader: &mut Loader, name: &str, c_in: usize, c_out: usize) -> Conv {
    Conv::load_causal(loader, name, ConvShape { c_in, c_out, kernel: 1 })
}

/// `conv2(silu(norm2(conv1(silu(norm1(x)))))) + x`, with a 1x1 convolution on `x` where channels change.
#[derive(Clone, Debug)]
pub(super) struct ResidualBlock {
    norm1: ChannelNorm,
    conv1: Conv,
    norm2: ChannelNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
}

impl ResidualBlock {
    pub(super) fn load(loader: &mut Loader, name: &str, c_in: usize, c_out: usize) -> Self {
        let shortcut = format!("{name}.conv_shortcut");
        Self {
            norm1: ChannelNorm::load(loader, &format!("{name}.norm1"), c_in, VIDEO_ONES),
            conv1: conv3(loader, &format!("{name}.conv1"), c_in, c_out),
            norm2: ChannelNorm::load(loader, &format!("{name}.norm2"), c_out, VIDEO_ONES),
            conv2: conv3(loader, &format!("{name}.conv2"), c_out, c_out),
            shortcut: (c_in != c_out).then(|| conv1(loader, &shortcut, c_in, c_out)),
        }
    }

    /// `x [n, h, w, c_in]`, result `[n, h, w, c_out]`.
    pub(super) fn forward(&self, x: Tensor, walk: &mut StripWalk) -> Result<Tensor> {
        let h = self.conv1.forward_normed(&x, self.norm1.then(Activation::Silu), walk)?;
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&x, walk)?,
            None => x,
        };
        self.conv2.forward_add(residual, &h, self.norm2.then(Activation::Silu), walk)
    }
}

/// Attention of every pixel to all pixels of its picture, with one head.
#[derive(Clone, Debug)]
struct PixelAttention {
    norm: ChannelNorm,
    to_qkv: Linear,
    proj: Linear,
    channels: usize,
    activations: DType,
}

impl PixelAttention {
    fn load(loader: &mut Loader, name: &str, channels: usize) -> Self {
        Self {
            norm: ChannelNorm::load(loader, &format!("{name}.norm"), channels, FRAME_ONES),
            to_qkv: Linear::load_pointwise(loader, &format!("{name}.to_qkv"), channels, 3 * channels),
            proj: Linear::load_pointwise(loader, &format!("{name}.proj"), channels, channels),
            channels,
            activations: loader.activations(),
        }
    }

    /// `x [n, h, w, c]`, result the same shape.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let pictures = x.shape().dims().first().copied().unwrap_or(0);
        let pixels = x.rows() / pictures.max(1);
        let c = self.channels;
        let qkv = self.to_qkv.forward(&self.norm.forward(&x, Activation::None)?)?;
        let (q, k, v) = (qkv.cols_range(0..c)?, qkv.cols_range(c..2 * c)?, qkv.cols_range(2 * c..3 * c)?);
        let picture = |i: usize| std::iter::once(i * pixels..(i + 1) * pixels).collect();
        let sequences: Vec<_> = (0..pictures).map(picture).collect();
        let args = Attention {
            streams: &[Qkv { q: &q, k: &k, v: &v }],
            sequences: &sequences,
            n_heads: 1,
            n_kv_heads: 1,
            scale: score_scale(c),
            mask: Mask::Full,
        };
        let seen = ops::attention(&args, self.activations)?;
        seen.iter().try_fold(x, |x, seen| self.proj.forward_add(x, None, seen))
    }
}

/// Residual block, attention, residual block at the lowest resolution.
#[derive(Clone, Debug)]
pub(super) struct MidBlock {
    first: ResidualBlock,
    attention: PixelAttention,
    last: ResidualBlock,
}

impl MidBlock {
    pub(super) fn load(loader: &mut Loader, name: &str, channels: usize) -> Self {
        Self {
            first: ResidualBlock::load(loader, &format!("{name}.resnets.0"), channels, channels),
            attention: PixelAttention::load(loader, &format!("{name}.attentions.0"), channels),
            last: ResidualBlock::load(loader, &format!("{name}.resnets.1"), channels, channels),
        }
    }

    /// `x [n, h, w, c]`, whole pictures, as every pixel sees all; result the same shape.
    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let mut walk = StripWalk::whole();
        let seen = self.attention.forward(self.first.forward(x, &mut walk)?)?;
        self.last.forward(seen, &mut walk)
    }
}

/// Norm, SiLU and the last 3x3 convolution of encoder and decoder.
#[derive(Clone, Debug)]
pub(super) struct Head {
    norm: ChannelNorm,
    conv: Conv,
}

impl Head {
    pub(super) fn load(loader: &mut Loader, name: &str, c_in: usize, c_out: usize) -> Self {
        Self {
            norm: ChannelNorm::load(loader, &format!("{name}.norm_out"), c_in, VIDEO_ONES),
            conv: conv3(loader, &format!("{name}.conv_out"), c_in, c_out),
        }
    }

    /// `x [n, h, w, c_in]`, result f32 `[n, h, w, c_out]`.
    pub(super) fn forward(&self, x: &Tensor, walk: &mut StripWalk, ctx: &Context<'_>) -> Result<Tensor> {
        let out = self.conv.forward_f32(x, Some(self.norm.then(Activation::Silu)), walk)?;
        walk.tap(ctx, format_args!("conv_out"), &out);
        Ok(out)
    }
}
