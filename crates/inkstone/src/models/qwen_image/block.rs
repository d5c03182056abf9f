//! One block: modulated attention of both streams to each other, then a feed-forward network for each.

use inkstone_tensor::ops::Mask;
use inkstone_tensor::{DType, Pages, Tensor};

use super::conditioning::Conditioning;
use super::modulation::BlockModulation;
use crate::Result;
use crate::nn::attention::{Heads, Projections, joint};
use crate::nn::linear::Linear;
use crate::nn::mlp::GeluMlp;
use crate::nn::norm::RmsNorm;
use crate::progress::Context;
use crate::weights::Loader;

/// Added to the mean square in the norms of queries and keys (`eps=1e-6`, transformer_qwenimage.py).
const QK_NORM_EPS: f32 = 1e-6;
/// The feed-forward network is this many times as wide as the model (`FeedForward`, `mult=4`).
const MLP_RATIO: usize = 4;
/// Shift, scale and gate, of attention and of the feed-forward network.
const MODULATIONS: usize = 6;

#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) img_mod: Linear,
    pub(super) txt_mod: Linear,
    /// Of the two modulation layers, which only [`ModulationTable`](super::ModulationTable) reads.
    pub(super) modulation_pages: Pages,
    /// Of all other layers.
    pub(super) pages: Pages,
    img: Stream,
    txt: Stream,
    heads: Heads,
    index: usize,
    activations: DType,
}

/// The weights of one stream.
#[derive(Clone, Debug)]
struct Stream {
    qkv: Projections,
    out: Linear,
    mlp: GeluMlp,
}

/// What a stream's tensors are called.
struct Names {
    q: &'static str,
    k: &'static str,
    v: &'static str,
    norm_q: &'static str,
    norm_k: &'static str,
    out: &'static str,
    mlp: &'static str,
}

const IMG: Names = Names {
    q: "attn.to_q",
    k: "attn.to_k",
    v: "attn.to_v",
    norm_q: "attn.norm_q",
    norm_k: "attn.norm_k",
    out: "attn.to_out.0",
    mlp: "img_mlp",
};

const TXT: Names = Names {
    q: "attn.add_q_proj",
    k: "attn.add_k_proj",
    v: "attn.add_v_proj",
    norm_q: "attn.norm_added_q",
    norm_k: "attn.norm_added_k",
    out: "attn.to_add_out",
    mlp: "txt_mlp",
};

impl Stream {
    fn load(loader: &mut Loader, block: &str, names: &Names, heads: Heads) -> Self {
        let dim = heads.width();
        let name = |part: &str| format!("{block}.{part}");
        let mut norm = |part: &str| RmsNorm::load(loader, &name(part), heads.head_dim, QK_NORM_EPS);
        let norms = (norm(names.norm_q), norm(names.norm_k));
        let mut linear = |part: &str| Linear::load(loader, &name(part), dim, dim);
        Self {
            qkv: Projections {
                q: linear(names.q),
                k: linear(names.k),
                v: linear(names.v),
                norms: Some(norms),
            },
            out: linear(names.out),
            mlp: GeluMlp::load(loader, &name(names.mlp), dim, MLP_RATIO * dim),
        }
    }
}

impl Block {
    pub(super) fn load(loader: &mut Loader, index: usize, heads: Heads) -> Self {
        let name = format!("transformer_blocks.{index}");
        let dim = heads.width();
        loader.pages(); // of what came before
        let img_mod = Linear::load(loader, &format!("{name}.img_mod.1"), dim, MODULATIONS * dim);
        let txt_mod = Linear::load(loader, &format!("{name}.txt_mod.1"), dim, MODULATIONS * dim);
        let modulation_pages = loader.pages();
        let img = Stream::load(loader, &name, &IMG, heads);
        let txt = Stream::load(loader, &name, &TXT, heads);
        Self {
            img_mod,
            txt_mod,
            modulation_pages,
            pages: loader.end_layer(),
            img,
            txt,
            heads,
            index,
            activations: loader.activations(),
        }
    }

    /// Both streams behind the block.
    pub(super) fn forward(
        &self,
        img: Tensor, // f32 [batch * n_img, dim]
        txt: Tensor, // f32 [n_txt, dim]
        modulation: &BlockModulation,
        cond: &Conditioning,
        ctx: &Context<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let [img_attn, img_mlp] = &modulation.img;
        let [txt_attn, txt_mlp] = &modulation.txt;

        let img_qkv = self.img.qkv.forward(&img_attn.norm(&img, self.activations)?, &cond.img_rope)?;
        let txt_qkv = self.txt.qkv.forward(&txt_attn.norm(&txt, self.activations)?, &cond.txt_rope)?;
        // In every sequence the text comes first.
        let streams = [&txt_qkv, &img_qkv];
        let seen = joint(&streams, &cond.sequences, self.heads, Mask::Full, self.activations)?;
        self.tap_attention(&seen, ctx)?;
        let img = self.img.out.forward_add(img, Some(&img_attn.gate), &seen[1])?;
        let txt = self.txt.out.forward_add(txt, Some(&txt_attn.gate), &seen[0])?;
        drop((img_qkv, txt_qkv, seen)); // their memory serves the feed-forward networks

        let img_normed = img_mlp.norm(&img, self.activations)?;
        let img = self.img.mlp.forward_add(img, &img_mlp.gate, &img_normed)?;
        let txt_normed = txt_mlp.norm(&txt, self.activations)?;
        let txt = self.txt.mlp.forward_add(txt, &txt_mlp.gate, &txt_normed)?;
        Ok((img, txt))
    }

    /// Shows the attention's result, which otherwise only exists as part of the residual.
    fn tap_attention(&self, seen: &[Tensor], ctx: &Context<'_>) -> Result<()> {
        if ctx.tap.is_some() {
            let i = self.index;
            ctx.tap(format_args!("block.{i}.attn.img"), &self.img.out.forward_f32(&seen[1])?);
            ctx.tap(format_args!("block.{i}.attn.txt"), &self.txt.out.forward_f32(&seen[0])?);
        }
        Ok(())
    }
}
