"""LoKr files as trainers write them, and the transformer's output with each at scale 0.8.

LyCORIS: W + 0.8 * s * kron(w1, w2), each matrix whole or a product of two (`_a`, `_b`); s is alpha over the rank where one of them is a product,
1 where none is (alpha is then any number) and where there is no alpha. diffusers 0.42.1 reads none of them for Qwen-Image: outputs are of merged weights.
PEFT: the file and the output are its own (`LoKrModel`), s is alpha over the rank of its settings everywhere. Needs peft.
"""
import torch
from parts.lora import SCALE, merged_by, qwen_call, with_merge, with_peft
from parts.qwen import load as load_qwen

# prefix, dots in layers' names, largest size of w1, rank of w1 and of w2 (0: whole), alpha
FILES = {
    "lokr_whole": ("diffusion_model.", True, 4, 0, 0, 9999999999.0),
    "lokr_lycoris": ("lycoris_", False, 8, 0, 2, 1.0),
    "lokr_kohya": ("lora_unet_", False, 16, 2, 3, 4.5),
    "lokr_diffusers": ("transformer.", True, 8, 0, 2, None),
}
PEFT = {"r": 2, "alpha": 5, "rank_pattern": {"attn.to_q": 16}, "alpha_pattern": {"attn.to_k": 3}, "decompose_both": True, "decompose_factor": 8}


def left(size, most):
    """The largest divisor of a size up to `most` that is no larger than its partner."""
    return max(d for d in range(1, most + 1) if size % d == 0 and d * d <= size)


def matrix(g, rows, cols, rank, scale):
    """A random matrix and how it is stored."""
    rnd = lambda r, c, s: (torch.randn(r, c, generator=g) * s).bfloat16()
    if not rank:
        m = rnd(rows, cols, scale)
        return m.float(), {"": m}
    a, b = rnd(rows, rank, scale), rnd(rank, cols, rank ** -0.5)
    return a.float() @ b.float(), {"_a": a, "_b": b}


def lycoris(c, tr, names, seed, prefix, dots, most, rank1, rank2, alpha):
    g, mods, sd, deltas = c.gen(seed), dict(tr.named_modules()), {}, {}
    for n in names:
        o, i = mods[n].weight.shape
        ol, il = left(o, most), left(i, most)
        w1, p1 = matrix(g, ol, il, rank1, 0.4)
        w2, p2 = matrix(g, o // ol, i // il, rank2, 0.5 * i ** -0.5)
        s = alpha / (rank2 or rank1) if alpha and (rank1 or rank2) else 1.0
        deltas[n] = torch.kron(w1, w2) * s
        k = prefix + (n if dots else n.replace(".", "_"))
        sd.update({f"{k}.lokr_w1{e}": t for e, t in p1.items()} | {f"{k}.lokr_w2{e}": t for e, t in p2.items()})
        if alpha:
            sd[f"{k}.alpha"] = torch.tensor(alpha).bfloat16()
    return sd, deltas


def run(c):
    from peft import LoKrConfig
    tr = load_qwen(c).transformer
    names, grid, call, d = qwen_call(c, tr)
    base, rows = d["output.none"], []
    for seed, (k, how) in enumerate(FILES.items(), 180):
        sd, deltas = lycoris(c, tr, names, seed, *how)
        y = d[f"output.{k}"] = merged_by(tr, deltas, SCALE, call)
        rows.append(with_merge(c, k, sd, y, base))
    row, d["output.peft_lokr"], kinds = with_peft(c, LoKrConfig, PEFT, 184, names, call, tr)
    assert kinds == {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"}, kinds
    rows.append(row)
    c.save("lokr_qwen", d, scale=SCALE, grid=grid, files=rows, note="weights of qwen_tiny; whole: alpha is ten billion and counts nothing; lycoris: alpha 1, rank 2; kohya: both matrices in two, ranks 2 and 3, alpha 4.5 over 3; diffusers: no alpha; peft: settings beside the file")
