"""The language model of the text encoder: names and arithmetic of transformers' Qwen2.5-VL, small, and with the prompt template's prefix run once a batch."""
import torch
import torch.nn as nn
import torch.nn.functional as F

from fast_transformer import attention

EPS = 1e-6


class RmsNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, dim, heads, kv_heads):
        super().__init__()
        head = dim // heads
        self.heads, self.kv_heads = heads, kv_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, kv_heads * head)
        self.v_proj = nn.Linear(dim, kv_heads * head)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def project(self, x, rope):
        """Rotated queries, rotated keys and values, keys and values repeated for each query head: [n, heads, tokens, head]."""
        split = lambda y, n: y.unflatten(-1, (n, -1)).transpose(1, 2)
        repeat = lambda y: y.repeat_interleave(self.heads // self.kv_heads, 1)
        return (rotate(split(self.q_proj(x), self.heads), rope), repeat(rotate(split(self.k_proj(x), self.kv_heads), rope)),
                repeat(split(self.v_proj(x), self.kv_heads)))


class FeedForward(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.gate_proj = nn.Linear(dim, inner, bias=False)
        self.up_proj = nn.Linear(dim, inner, bias=False)
        self.down_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, dim, heads, kv_heads, inner):
        super().__init__()
        self.self_attn = Attention(dim, heads, kv_heads)
        self.mlp = FeedForward(dim, inner)
        self.input_layernorm = RmsNorm(dim)
        self.post_attention_layernorm = RmsNorm(dim)

    def after_attention(self, x, o):
        x = x + self.self_attn.o_proj(o.transpose(1, 2).flatten(2))
        return x + self.mlp(self.post_attention_layernorm(x))


def rotate(x, rope):
    a, b = x.chunk(2, -1)
    return (x * rope[0] + torch.cat([-b, a], -1) * rope[1]).to(x.dtype)


class TextEncoder(nn.Module):
    def __init__(self, vocab, dim=192, layers=3, heads=6, kv_heads=2, inner=512, theta=1e6):
        super().__init__()
        self.config = dict(vocab=vocab, dim=dim, layers=layers, heads=heads, kv_heads=kv_heads, inner=inner, theta=theta)
        self.embed_tokens = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList([Layer(dim, heads, kv_heads, inner) for _ in range(layers)])
        self.norm = RmsNorm(dim)
        for name, p in self.named_parameters():
            if "embed" in name:
                nn.init.normal_(p, std=0.3)
            elif p.dim() == 2:
                nn.init.normal_(p, std=dim ** -0.5 * (0.5 if "o_proj" in name or "down_proj" in name else 1.0))
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        head = dim // heads
        self.register_buffer("frequencies", 1.0 / theta ** (torch.arange(0, head, 2).float() / head), persistent=False)

    def forward(self, ids, prefix):
        """Hidden states of `ids` [n, t] after the final norm. Padding stands at the end, where causal attention never looks back at it."""
        t, p = ids.shape[1], len(prefix)
        angles = torch.outer(torch.arange(p + t, device=ids.device).float(), self.frequencies).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        visible = torch.ones(t, p + t, dtype=torch.bool, device=ids.device).tril(p)
        x, before = self.embed_tokens(ids), self.embed_tokens(prefix[None])
        for layer in self.layers:
            qp, kp, vp = layer.self_attn.project(layer.input_layernorm(before), (cos[:p], sin[:p]))
            before = layer.after_attention(before, F.scaled_dot_product_attention(qp, kp, vp, is_causal=True))
            q, k, v = layer.self_attn.project(layer.input_layernorm(x), (cos[p:], sin[p:]))
            k, v = (torch.cat([shared.expand(len(ids), -1, -1, -1).to(own.dtype), own], 2) for shared, own in ((kp, k), (vp, v)))
            x = layer.after_attention(x, attention(q, k, v, visible))
        return self.norm(x)
