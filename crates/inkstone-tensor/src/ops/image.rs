//! Operations on pictures `[n, h, w, c]`.

use super::matrix::own;
use super::{Activation, check};
use crate::{DType, Int8Weight, Result, Shape, Tensor, Weight};

/// The weight of a convolution, as a matrix: one row an output channel, columns by tap (row by row), then channel.
///
/// # Doubling
/// A kernel of 3 over a picture with every pixel twice in both directions, which is never made: of three taps side by side
/// two see the same pixel, so their weights are one, their sum. Of the two outputs of a pair the first one's are the
/// first two taps, the second one's the last two. So there is a kernel of 2 for each place of an output in a square of two by
/// two, each with all output channels, one below the other, line by line. That is 4 products of 9.
#[derive(Clone, Debug)]
pub struct ConvWeight {
    /// `[c_out, kernel * kernel * c_in]`; if it doubles `[4 * c_out, 4 * c_in]`.
    pub matrix: Weight,
    /// Side of the square kernel: 1 or 3, or [`ConvWeight::DOUBLING`].
    pub kernel: usize,
}

impl ConvWeight {
    /// The side of kernels that double.
    pub const DOUBLING: usize = 2;

    /// Input channels.
    #[must_use]
    pub fn c_in(&self) -> usize {
        self.matrix.n_in() / (self.kernel * self.kernel).max(1)
    }

    /// Output channels.
    #[must_use]
    pub fn c_out(&self) -> usize {
        self.matrix.n_out() / (self.zoom() * self.zoom())
    }

    /// How often a pixel is seen in each direction: once, or twice if it doubles.
    #[must_use]
    pub fn zoom(&self) -> usize {
        if self.kernel == Self::DOUBLING { 2 } else { 1 }
    }

    /// Side of the kernel in pixels as they are seen.
    #[must_use]
    pub fn side(&self) -> usize {
        if self.kernel == Self::DOUBLING { 3 } else { self.kernel }
    }
}

/// Zero pixels put around a picture before it is convolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Lines on top.
    pub above: usize,
    /// Lines at the bottom.
    pub below: usize,
    /// Columns on the left.
    pub left: usize,
    /// Columns on the right.
    pub right: usize,
}

impl Padding {
    /// The same on all sides.
    #[must_use]
    pub const fn all(n: usize) -> Self {
        Self { above: n, below: n, left: n, right: n }
    }

    /// At the bottom and on the right only.
    #[must_use]
    pub const fn behind(n: usize) -> Self {
        Self { above: 0, below: n, left: 0, right: n }
    }
}

/// What a convolution sees of its input.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Lines `[n, h', w, c_in]` that lie above `x` in the same pictures: what is left of a strip that came before.
    pub above: Option<&'a Tensor>,
    /// Pixels from one output to the next: 1 or 2, 1 if the kernel doubles.
    pub stride: usize,
    /// Zeros around `above` and `x` together, around the doubled picture if the kernel doubles.
    pub padding: Padding,
}

impl Window<'_> {
    /// Every pixel of whole pictures, with this padding.
    #[must_use]
    pub const fn whole(padding: Padding) -> Self {
        Self { above: None, stride: 1, padding }
    }

    /// Lines above `x`.
    pub(crate) fn lines_above(&self) -> usize {
        self.above.map_or(0, |above| above.shape().dims().get(1).copied().unwrap_or(0))
    }
}

/// A 2-D convolution; see [`conv2d`].
#[derive(Clone, Copy, Debug)]
pub struct Conv2d<'a> {
    /// `[n, h, w, c_in]`
    pub x: &'a Tensor,
    /// What `x` and the lines above it go through first.
    pub norm: Option<PixelNorm<'a>>,
    /// The kernel.
    pub weight: &'a ConvWeight,
    /// `[c_out]`
    pub bias: &'a Tensor,
    /// What it sees of the input.
    pub window: Window<'a>,
    /// Whether the sum replaces what the output holds or is added to it.
    pub into: Into,
}

/// A [`channel_norm`] in front of a convolution, with its function.
#[derive(Clone, Copy, Debug)]
pub struct PixelNorm<'a> {
    /// `[c_in]`
    pub gamma: &'a Tensor,
    /// Applied behind the norm.
    pub activation: Activation,
}

/// Where a convolution's sum goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// It replaces the output.
    Store,
    /// It is added to the output.
    Add,
}

/// A 2-D convolution with zero padding.
///
/// # Shapes
/// `x [n, h, w, c_in]`, result `[n, h', w', c_out]` with `h' = (h + above + padding - kernel) / stride + 1`;
/// of a kernel that doubles `h' = 2 (h + above) + padding - 2`.
///
/// # Errors
/// Shapes that do not fit, a stride that is not 1 or 2 or is 2 where the kernel doubles, no memory.
pub fn conv2d(
    x: &Tensor,
    weight: &ConvWeight,
    bias: &Tensor,
    window: Window<'_>,
    out: DType,
) -> Result<Tensor> {
    conv2d_of(x, None, weight, bias, window, out)
}

/// The same of pixels that go through a norm first: `x` and the lines above it are as they are before the norm.
///
/// # Memory
/// The normalized picture is never made. Weights of bytes need a byte for each of its values: with the norm in front or
/// without, the pixels of a line are rotated and rounded together, as the rows of [`linear`](super::linear) are.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_of(
    x: &Tensor,
    norm: Option<PixelNorm<'_>>,
    weight: &ConvWeight,
    bias: &Tensor,
    window: Window<'_>,
    out: DType,
) -> Result<Tensor> {
    let args = Conv2d { x, norm, weight, bias, window, into: Into::Store };
    let shape = check_conv(&args)?;
    check::out_dtype("conv2d", out)?;
    let mut result = Tensor::empty(x.device(), out, shape)?;
    x.device().backend().conv2d(&args, &mut result)?;
    Ok(result)
}

/// A convolution added to a residual, in place where `residual` is not shared.
///
/// # Errors
/// Shapes that do not fit, no memory.
pub fn conv2d_add(
    residual: Tensor,
    x: &Tensor,
    weight: &ConvWeight,
    bias: &Tensor,
    window: Window<'_>,
) -> Result<Tensor> {
    conv2d_add_of(residual, x, None, weight, bias, window)
}

/// The same of pixels that go through a norm first, as in [`conv2d_of`].
///
/// # Errors
/// As [`conv2d_add`].
pub fn conv2d_add_of(
    residual: Tensor,
    x: &Tensor,
    norm: Option<PixelNorm<'_>>,
    weight: &ConvWeight,
    bias: &Tensor,
    window: Window<'_>,
) -> Result<Tensor> {
    let args = Conv2d { x, norm, weight, bias, window, into: Into::Add };
    let shape = check_conv(&args)?;
    if *residual.shape() != shape {
        return check::shape("conv2d_add", "residual", &residual, shape.to_string());
    }
    check::out_dtype("conv2d_add", residual.dtype())?;
    let mut out = own(residual)?;
    x.device().backend().conv2d(&args, &mut out)?;
    Ok(out)
}

fn check_conv(args: &Conv2d<'_>) -> Result<Shape> {
    const OP: &str = "conv2d";
    check::activation(OP, "x", args.x)?;
    let &[n, h, w, c] = args.x.shape().dims() else {
        return check::shape(OP, "x", args.x, "[n, h, w, c]".into());
    };
    let (kernel, stride) = (args.weight.kernel, args.window.stride);
    if !matches!(kernel, 1..=3) {
        return check::range(OP, "kernel", "1, 3, or 2 where it doubles".into(), kernel);
    }
    let (zoom, c_out) = (args.weight.zoom(), args.weight.c_out());
    if stride != 1 && (stride, zoom) != (2, 1) {
        return check::range(OP, "stride", "1, or 2 where the kernel does not double".into(), stride);
    }
    if kernel * kernel * c != args.weight.matrix.n_in() {
        return check::shape(OP, "x", args.x, format!("{} channels", args.weight.c_in()));
    }
    if c_out * zoom * zoom != args.weight.matrix.n_out() {
        return check::range(
            OP,
            "rows",
            "a multiple of 4 where the kernel doubles".into(),
            args.weight.matrix.n_out(),
        );
    }
    match &args.weight.matrix {
        Weight::Int8(weight) if weight.values().dtype() != DType::U8 => {
            let (expected, got) = ("bytes that were made for convolutions", weight.values().dtype());
            return Err(crate::Error::DType { op: OP, what: "the weight", expected, got });
        }
        Weight::Int8(weight) => check_int8(kernel, c, weight.group())?,
        plain => check::weight(OP, plain)?,
    }
    if let Some(norm) = args.norm {
        check::vector(OP, "gamma", norm.gamma, c)?;
    }
    check::vector(OP, "bias", args.bias, c_out)?;
    if let Some(above) = args.window.above {
        let lines = args.window.lines_above();
        if *above.shape() != Shape::nhwc(n, lines, w, c) || above.dtype() != args.x.dtype() {
            return check::shape(OP, "above", above, format!("{} but for its lines", args.x.shape()));
        }
    }
    let Padding { above, below, left, right } = args.window.padding;
    let high = (args.window.lines_above() + h) * zoom + above + below;
    let wide = w * zoom + left + right;
    let side = args.weight.side();
    if high < side || wide < side {
        return check::shape(OP, "x", args.x, format!("at least {side}x{side} with its padding"));
    }
    let out = |pixels: usize| (pixels - side) / stride + 1;
    Ok(Shape::nhwc(n, out(high), out(wide), c_out))
}

/// Whether sums of a kernel's line stay within 32 bits, and no group of rotated weights reaches across pixels.
fn check_int8(kernel: usize, channels: usize, group: usize) -> Result<()> {
    const OP: &str = "conv2d";
    // Pixels are whole words.
    let allowed = 1..=Int8Weight::MAX_PRODUCTS / kernel / 4 * 4;
    if !allowed.contains(&channels) {
        return check::range(OP, "channels", format!("{allowed:?} in 8 bits"), channels);
    }
    if !channels.is_multiple_of(group) {
        return check::range(OP, "group", format!("a divisor of {channels} channels"), group);
    }
    Ok(())
}

/// The channel norm of the Qwen-Image VAE; see [`channel_norm`].
#[derive(Clone, Copy, Debug)]
pub struct ChannelNorm<'a> {
    /// `[.., c]`
    pub x: &'a Tensor,
    /// `[c]`
    pub gamma: &'a Tensor,
    /// Applied behind the norm.
    pub activation: Activation,
}

/// `activation(x / max(|x|, 1e-12) * sqrt(c) * gamma)`, pixel by pixel, `|x|` being the length of the pixel's vector.
///
/// # Errors
/// Shapes that do not fit, no memory.
///
/// # Source
/// `QwenImageRMS_norm`, diffusers autoencoder_kl_qwenimage.py; `F.normalize` has its epsilon below the division.
pub fn channel_norm(x: &Tensor, gamma: &Tensor, activation: Activation, out: DType) -> Result<Tensor> {
    const OP: &str = "channel_norm";
    check::activation(OP, "x", x)?;
    check::out_dtype(OP, out)?;
    check::vector(OP, "gamma", gamma, x.cols())?;
    let mut result = Tensor::empty(x.device(), out, *x.shape())?;
    x.device().backend().channel_norm(&ChannelNorm { x, gamma, activation }, &mut result)?;
    Ok(result)
}
