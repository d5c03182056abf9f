//! Pictures to latents.

use inkstone_tensor::Tensor;

use super::Config;
use super::blocks::{Head, MidBlock, ResidualBlock, conv1, conv3, resample_conv};
use crate::Result;
use crate::nn::conv::Conv;
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
                down.push(Down::Halve(Box::new(resample_conv(loader, &name, dim, dim).halving())));
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

    /// `pictures [n, h, w, channels]`, result f32 `[n, h / 8, w / 8, 2 * z_dim]`: means, then log variances.
    pub(super) fn forward(&self, pictures: &Tensor, ctx: &Context<'_>) -> Result<Tensor> {
        let mut x = self.conv_in.forward(pictures)?;
        ctx.tap(format_args!("conv_in"), &x);
        for (i, layer) in self.down.iter().enumerate() {
            ctx.check_cancelled()?;
            x = match layer {
                Down::Block(block) => block.forward(x)?,
                Down::Halve(conv) => conv.forward(&x)?,
            };
            ctx.tap(format_args!("down.{i}"), &x);
        }
        x = self.mid.forward(x)?;
        ctx.tap(format_args!("mid"), &x);
        self.quant_conv.forward_f32(&self.head.forward(&x, ctx)?)
    }
}
