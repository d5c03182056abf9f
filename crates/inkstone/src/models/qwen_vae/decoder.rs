//! Latents to pictures.

use inkstone_tensor::Tensor;

use super::Config;
use super::blocks::{Head, MidBlock, ResidualBlock, conv1, conv3, doubling_conv};
use crate::Result;
use crate::nn::conv::Conv;
use crate::nn::strips::{StripWalk, Strips};
use crate::progress::Context;
use crate::weights::Loader;

#[derive(Clone, Debug)]
pub(super) struct Decoder {
    post_quant_conv: Conv,
    conv_in: Conv,
    mid: MidBlock,
    up: Vec<UpBlock>,
    head: Head,
}

#[derive(Clone, Debug)]
struct UpBlock {
    blocks: Vec<ResidualBlock>,
    /// Doubles the picture; the last level has none.
    upsample: Option<Conv>,
}

impl Decoder {
    pub(super) fn load(config: &Config, loader: &mut Loader) -> Self {
        let z = config.z_dim;
        let dims: Vec<usize> = config.dim_mult.iter().rev().map(|m| m * config.base_dim).collect();
        let (widest, narrowest) = (dims[0], dims[dims.len() - 1]);
        let last = dims.len() - 1;
        let mut up = Vec::with_capacity(dims.len());
        for (i, &dim) in dims.iter().enumerate() {
            // The upsampling convolution of the level before gave half of that level's channels.
            let c_in = if i == 0 { widest } else { dims[i - 1] / 2 };
            let name = format!("decoder.up_blocks.{i}");
            let block = |loader: &mut Loader, j: usize| {
                let c_in = if j == 0 { c_in } else { dim };
                ResidualBlock::load(loader, &format!("{name}.resnets.{j}"), c_in, dim)
            };
            let blocks = (0..=config.num_res_blocks).map(|j| block(loader, j)).collect();
            let upsampler = format!("{name}.upsamplers.0");
            let upsample = (i < last).then(|| doubling_conv(loader, &upsampler, dim));
            up.push(UpBlock { blocks, upsample });
        }
        Self {
            post_quant_conv: conv1(loader, "post_quant_conv", z, z),
            conv_in: conv3(loader, "decoder.conv_in", z, widest),
            mid: MidBlock::load(loader, "decoder.mid_block", widest),
            up,
            head: Head::load(loader, "decoder", narrowest, config.input_channels),
        }
    }

    /// `latents [n, h, w, z_dim]`, result f32 `[n, 8 h, 8 w, channels]`. The strips are of lines of latents.
    pub(super) fn forward(&self, latents: &Tensor, strips: Strips, ctx: &Context<'_>) -> Result<Tensor> {
        let mut walk = StripWalk::whole();
        let x = self.conv_in.forward(&self.post_quant_conv.forward(latents, &mut walk)?, &mut walk)?;
        ctx.tap(format_args!("conv_in"), &x);
        let x = self.mid.forward(x)?;
        ctx.tap(format_args!("mid"), &x);
        let image = strips.pass(x, |x, walk| self.enlarge(x, walk, ctx))?;
        ctx.tap(format_args!("image"), &image);
        Ok(image)
    }

    /// A strip `x [n, h, w, c]` through all levels; result f32 `[n, 8 h, 8 w, channels]`.
    fn enlarge(&self, mut x: Tensor, walk: &mut StripWalk, ctx: &Context<'_>) -> Result<Tensor> {
        for (i, level) in self.up.iter().enumerate() {
            ctx.check_cancelled()?;
            for block in &level.blocks {
                x = block.forward(x, walk)?;
            }
            if let Some(conv) = &level.upsample {
                walk.change_size(&x);
                x = conv.forward(&x, walk)?;
                walk.change_size(&x);
            }
            walk.tap(ctx, format_args!("up.{i}"), &x);
        }
        self.head.forward(&x, walk, ctx)
    }
}
