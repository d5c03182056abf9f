"""Draws with the models being trained: the schedule, guidance and rescale of QwenImagePipeline."""
import math

import numpy as np
import torch
from PIL import Image

import fast_transformer
from layout import decode, pack, unpack

# FlowMatchEulerDiscreteScheduler as in scheduler_config.json
BASE_SHIFT, MAX_SHIFT, BASE_TOKENS, MAX_TOKENS, TERMINAL = 0.5, 0.9, 256, 8192, 0.02


def sigmas(steps, tokens):
    s = np.linspace(1.0, 1 / steps, steps)
    shift = math.exp((MAX_SHIFT - BASE_SHIFT) / (MAX_TOKENS - BASE_TOKENS) * (tokens - BASE_TOKENS) + BASE_SHIFT)
    s = shift / (shift + (1 / s - 1))
    s = 1 - (1 - s) * (1 - TERMINAL) / (1 - s[-1])
    return np.append(s, 0.0).tolist()


@torch.no_grad()
def draw(models, prompts, steps=20, guidance=4.0, seed=0):
    """u8 [n, size, size, 3]. `models` has transformer, text_encoder, vae, mean, std, tokens (Prompts) and side (latent tokens)."""
    side, n = models.side, len(prompts)
    x = pack(torch.randn(n, 16, 2 * side, 2 * side, generator=torch.Generator().manual_seed(seed))).to(models.mean.device)
    def condition(texts):
        ids, mask = models.tokens.encode(texts)
        return models.text_encoder(ids, models.tokens.prefix), mask, fast_transformer.rope_tables(models.transformer, side, ids.shape[1])
    (text, mask, rope), (no_text, no_mask, no_rope) = condition(prompts), condition([" "] * n)
    levels = sigmas(steps, side * side)
    for now, then in zip(levels, levels[1:]):
        sigma = torch.full((n,), now, device=x.device)
        with_text = fast_transformer.forward(models.transformer, x, text, mask, sigma, rope)
        without = fast_transformer.forward(models.transformer, x, no_text, no_mask, sigma, no_rope)
        v = without + guidance * (with_text - without)
        v = v * (with_text.norm(dim=-1, keepdim=True) / v.norm(dim=-1, keepdim=True))
        x = x + (then - now) * v
    z = unpack(x, 2 * side, 2 * side) * models.std + models.mean
    y = torch.cat([decode(models.vae, part).clamp(-1, 1) for part in z.split(16)])
    return ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def sheet(pictures, columns, path):
    """Pictures of one size in rows."""
    n, h, w, _ = pictures.shape
    rows = -(-n // columns)
    out = np.full((rows * h, columns * w, 3), 255, np.uint8)
    for i, p in enumerate(pictures):
        out[i // columns * h:(i // columns + 1) * h, i % columns * w:(i % columns + 1) * w] = p
    Image.fromarray(out).save(path)
