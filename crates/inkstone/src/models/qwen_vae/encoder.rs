//! Pictures to latents.

use inkstone_tensor::Tensor;

use super::Config;
use super::blocks::{Head, MidBlock, ResidualBlock, conv1, conv3, halving_conv};
use crate::Result;
use crate::nn::conv::Conv;
use crate::nn::strips::{StripWalk, Strips};
use crate::progress::Context;
use crate::weights::Loader;

#[derive(Clone, Debug)]
pub(super) struct Encoder {
    conv_in: Conv,
    down: Vec<Down>,
    mid: MidBlock,
    head: Head,
    quant_conv: Conv,
}

#[derive(Clone, Debug)]
enum Down {
    Block(Box<ResidualBlock>),
    Halve(Box<Conv>),
}

impl Encoder {
    pub(super) fn load(config: &Config, loader: &mut Loader) -> Self {
        let moments = 2 * config.z_dim;
        let last = config.dim_mult.len() - 1;
        let conv_in = conv3(loader, "encoder.conv_in", config.input_channels, config.base_dim);
        let mut down = Vec::new();
        let mut channels = config.base_dim;
        for (i, mult) in config.dim_mult.iter().enumerate() {
            let dim = mult * config.base_dim;
            for _ in 0..config.num_res_blocks {
                let name = format!("encoder.down_blocks.{}", down.len());
                down.push(Down::Block(Box::new(ResidualBlock::load(loader, &name, channels, dim))));
                channels = dim;
            }
            if i < last {
                let name = format!("encoder.down_blocks.{}", down.len());
                down.push(Down::Halve(Box::new(halving_conv(loader, &name, dim))));
            }
        }
        Self {
            conv_in,
            down,
            mid: MidBlock::load(loader, "encoder.mid_block", channels),
            head: Head::load(loader, "encoder", channels, moments),
            quant_conv: conv1(loader, "quant_conv", moments, moments),
        }
    }

    /// `pictures [n, h, w, channels]`, result f32 `[n, h / 8, w / 8, 2 * z_dim]`: means, then log variances. The strips
    /// are of lines of the pictures.
    pub(super) fn forward(&self, pictures: Tensor, strips: Strips, ctx: &Context<'_>) -> Result<Tensor> {
        let x = strips.pass(pictures, |x, walk| self.shrink(&x, walk, ctx))?;
        let x = self.mid.forward(x)?;
        ctx.tap(format_args!("mid"), &x);
        let mut walk = StripWalk::whole();
        let moments = self.head.forward(&x, &mut walk, ctx)?;
        self.quant_conv.forward_f32(&moments, None, &mut walk)
    }

    /// A strip `[n, h, w, channels]` through all levels; result `[n, h / 8, w / 8, c]`.
    fn shrink(&self, strip: &Tensor, walk: &mut StripWalk, ctx: &Context<'_>) -> Result<Tensor> {
        let mut x = self.conv_in.forward(strip, walk)?;
        walk.tap(ctx, format_args!("conv_in"), &x);
        for (i, layer) in self.down.iter().enumerate() {
            ctx.check_cancelled()?;
            x = match layer {
                Down::Block(block) => block.forward(x, walk)?,
                Down::Halve(conv) => {
                    let halved = conv.forward(&x, walk)?;
                    walk.change_size(&halved);
                    halved
                }
            };
            walk.tap(ctx, format_args!("down.{i}"), &x);
        }
        Ok(x)
    }
}
