"""The tiny models in the exact Qwen-Image layout, and the shortcuts that make them cheap to train on one picture."""
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from diffusers.models.autoencoders import autoencoder_kl_qwenimage as reference

LATENT_CHANNELS = 16
VAE_SCALE = 8
PATCH = 2
ROPE_AXES = {32: (8, 12, 12), 64: (16, 24, 24), 128: (16, 56, 56)}   # by head size, the split of the real model


def single_frame_conv(self, x, cache_x=None):
    """With one frame and causal zero padding only the last temporal slice of a kernel meets the frame: a 2-D convolution, exactly."""
    if x.shape[2] != 1 or cache_x is not None or self.stride[0] != 1:
        return self.forward_3d(x, cache_x)
    pad = self._padding
    y = F.conv2d(x[:, :, 0].contiguous(memory_format=torch.channels_last),
                 self.weight[:, :, -1].contiguous(memory_format=torch.channels_last),
                 self.bias, stride=self.stride[1:], padding=(pad[2], pad[0]))
    return y.unsqueeze(2)


def use_single_frame_convs():
    conv = reference.QwenImageCausalConv3d
    if not hasattr(conv, "forward_3d"):
        conv.forward_3d = conv.forward
        conv.forward = single_frame_conv


def use_reference_convs():
    conv = reference.QwenImageCausalConv3d
    if hasattr(conv, "forward_3d"):
        conv.forward = conv.forward_3d
        del conv.forward_3d


def new_vae(base, mult=(1, 2, 4, 4), res_blocks=1, mean=None, std=None):
    """Kernels that a single picture never meets (earlier frames, time convolutions) are zero."""
    z = LATENT_CHANNELS
    vae = AutoencoderKLQwenImage(
        base_dim=base, z_dim=z, dim_mult=list(mult), num_res_blocks=res_blocks, attn_scales=[],
        temperal_downsample=[False, True, True], latents_mean=mean or [0.0] * z, latents_std=std or [1.0] * z)
    with torch.no_grad():
        for m in vae.modules():
            if not isinstance(m, reference.QwenImageCausalConv3d) or m.kernel_size[0] != 3:
                continue
            if m.kernel_size[1] == 1:
                m.weight.zero_()
                m.bias.zero_()
            else:
                last = torch.empty_like(m.weight[:, :, -1])
                torch.nn.init.kaiming_uniform_(last, a=5 ** 0.5)
                m.weight.zero_()
                m.weight[:, :, -1] = last
    return vae


def used_slices(vae):
    """The state without the zero slices, in f16."""
    return {k: (t[:, :, -1] if t.dim() == 5 else t).detach().half().cpu().contiguous() for k, t in vae.state_dict().items()}


def load_used_slices(vae, state):
    full = vae.state_dict()
    for name, t in state.items():
        target = full[name]
        if target.dim() == 5 and t.dim() == 4:
            target.zero_()
            target[:, :, -1] = t.float()
        else:
            target.copy_(t.float())
    return vae


def encode(vae, x):
    """[n, 3, h, w] in [-1, 1] to the mean and log variance of the posterior, [n, 16, h/8, w/8] each."""
    return vae.quant_conv(vae.encoder(x.unsqueeze(2))).squeeze(2).chunk(2, 1)


def decode(vae, z):
    return vae.decoder(vae.post_quant_conv(z.unsqueeze(2))).squeeze(2)


def pack(z):
    """[n, 16, h, w] latents to [n, h/2 * w/2, 64] tokens, channel-major inside a token as in the reference."""
    n, c, h, w = z.shape
    return z.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, c * 4)


def unpack(tokens, h, w):
    n = tokens.shape[0]
    z = tokens.view(n, h // 2, w // 2, LATENT_CHANNELS, 2, 2)
    return z.permute(0, 3, 1, 4, 2, 5).reshape(n, LATENT_CHANNELS, h, w)


def new_transformer(dim, heads, layers, text_dim):
    head = dim // heads
    return QwenImageTransformer2DModel(
        patch_size=PATCH, in_channels=LATENT_CHANNELS * PATCH ** 2, out_channels=LATENT_CHANNELS, num_layers=layers,
        attention_head_dim=head, num_attention_heads=heads, joint_attention_dim=text_dim, axes_dims_rope=ROPE_AXES[head])
