"""LoKr files as trainers write them, and the transformer's output with each at scale 0.8.

LyCORIS: W + 0.8 * s * kron(w1, w2), each matrix whole or a product of two (`_a`, `_b`); s is alpha over the rank where one of them is a product,
1 where none is (alpha is then any number) and where there is no alpha. diffusers 0.42.1 reads none of them for Qwen-Image: outputs are of merged weights.
PEFT: the file and the output are its own (`LoKrModel`), s is alpha over the rank of its settings everywhere. Needs peft.
"""
import json, os
import torch
from safetensors.torch import load_file, save_file
from parts.lora import QWEN, SCALE, merged_by
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


def peft(c, tr, names, call):
    """PEFT's own file, settings and output, at its scale times 0.8."""
    from peft import LoKrConfig, get_peft_model
    torch.manual_seed(184 + c.p["offset"])
    d = f"{c.out}/lora/peft_lokr"
    m = get_peft_model(tr, LoKrConfig(**PEFT, target_modules=names, init_weights=False))
    m.save_pretrained(d)
    os.remove(f"{d}/README.md")
    with open(f"{d}/adapter_config.json", "w") as f:
        json.dump({"peft_type": "LOKR", **PEFT}, f, indent=1)
    sd = load_file(f"{d}/adapter_model.safetensors")
    os.chmod(f"{d}/adapter_model.safetensors", 0o644)
    deltas = {n: mod.get_delta_weight("default") for n, mod in ((n, tr.get_submodule(n)) for n in names)}
    for n in names:
        tr.get_submodule(n).scaling["default"] *= SCALE
    y = call()
    m.unload()
    return y, sd, deltas


def run(c):
    tr = load_qwen(c).transformer
    names = [f"transformer_blocks.{i}.{t}" for i in range(tr.config.num_layers) for t in QWEN] + ["img_in", "txt_in", "proj_out"]
    (h, w), nt = c.p["tr"]["t2i"]
    x, e, ts = c.rnd(162, 1, h * w, 64), c.rnd(163, 1, nt, tr.config.joint_attention_dim), torch.tensor([0.75])
    call = lambda: tr(hidden_states=x, encoder_hidden_states=e, timestep=ts, img_shapes=[[(1, h, w)]], return_dict=False)[0]
    base = call()
    d, rows = {"hidden_states": x, "encoder_hidden_states": e, "timestep": ts, "output.none": base}, []
    for seed, (k, how) in enumerate(FILES.items(), 180):
        sd, deltas = lycoris(c, tr, names, seed, *how)
        save_file({n: t.contiguous() for n, t in sd.items()}, f"{c.out}/lora/qwen_{k}.safetensors", metadata={"format": "pt"})
        os.chmod(f"{c.out}/lora/qwen_{k}.safetensors", 0o644)
        y = d[f"output.{k}"] = merged_by(tr, deltas, SCALE, call)
        assert (y - base).abs().max() > 0.01, k
        rows.append({"file": f"lora/qwen_{k}.safetensors", "output": f"output.{k}", "computed_by": "manual merge"})
    y, sd, deltas = peft(c, tr, names, call)
    err = float((y - merged_by(tr, deltas, SCALE, call)).abs().max())
    assert err < 1e-4 and (y - base).abs().max() > 0.01, err
    assert (call() - base).abs().max() == 0, "the model is as it was"
    kinds = {k.rsplit(".", 1)[1] for k in sd}
    assert kinds == {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"}, kinds
    d["output.peft_lokr"] = y
    rows.append({"file": "lora/peft_lokr/adapter_model.safetensors", "output": "output.peft_lokr", "computed_by": "peft", "max_diff_to_manual_merge": err})
    c.save("lokr_qwen", d, scale=SCALE, grid=[h, w], files=rows, note="weights of qwen_tiny; whole: alpha is ten billion and counts nothing; lycoris: alpha 1, rank 2; kohya: both matrices in two, ranks 2 and 3, alpha 4.5 over 3; diffusers: no alpha; peft: settings beside the file")
