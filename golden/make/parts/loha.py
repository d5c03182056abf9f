"""LoHa files as trainers write them, LoRAs in three more dialects, and the transformer's output with each at scale 0.8.

LyCORIS: W + 0.8 * alpha / rank * (w1_a w1_b) * (w2_a w2_b), element by element; alpha is the rank where there is none. diffusers 0.42.1 reads no LoHa for
Qwen-Image: outputs are of merged weights. PEFT: the file and the output are its own (`LoHaModel`), alpha and rank are in its settings. Needs peft.
`lora_dots` has `transformer.LAYER.lora.up.weight`; `lora_float8` both 8-bit floats, and alphas that are whole numbers or f64;
`lora_diff` what ComfyUI saves of the difference of two models: `diff` of weights and norms, `diff_b` of biases.
"""
import torch
from parts.lora import RANK, SCALE, factors, merged_by, qwen_call, with_merge, with_peft
from parts.qwen import load as load_qwen

# every so many layers, prefix, dots in layers' names, rank, alpha and its type, type of the matrices
FILES = {
    "loha_lycoris": (1, "lycoris_", False, 3, 2.0, torch.bfloat16, torch.bfloat16),
    "loha_kohya": (3, "lora_unet_", False, 6, 3, torch.int64, torch.float16),
    "loha_dots": (2, "diffusion_model.", True, 2, None, None, torch.bfloat16),
}
PEFT = {"r": 2, "alpha": 4, "rank_pattern": {"attn.to_q": 6, "to_out.0": 3}, "alpha_pattern": {"attn.to_q": 3, "net.2": 1}}


def lycoris(c, tr, names, seed, every, prefix, dots, rank, alpha, alpha_dtype, dtype):
    g, mods, sd, deltas = c.gen(seed), dict(tr.named_modules()), {}, {}
    for n in names[::every]:
        o, i = mods[n].weight.shape
        rnd = lambda r, k, s: (torch.randn(r, k, generator=g) * s).to(dtype)
        parts = {"w1_a": rnd(o, rank, 0.5), "w1_b": rnd(rank, i, rank ** -0.5), "w2_a": rnd(o, rank, 1.0), "w2_b": rnd(rank, i, (rank * i) ** -0.5)}
        w = {k: t.float() for k, t in parts.items()}
        deltas[n] = (w["w1_a"] @ w["w1_b"]) * (w["w2_a"] @ w["w2_b"]) * ((alpha or rank) / rank)
        k = prefix + (n if dots else n.replace(".", "_"))
        sd.update({f"{k}.hada_{p}": t for p, t in parts.items()})
        if alpha:
            sd[f"{k}.alpha"] = torch.tensor(alpha, dtype=alpha_dtype)
    return sd, deltas


def loras(f):
    """Two files with these factors: another dialect, and numbers of other types."""
    dots, float8, deltas8 = {}, {}, {}
    for j, (n, (a, b)) in enumerate(f.items()):
        dots.update({f"transformer.{n}.lora.down.weight": a, f"transformer.{n}.lora.up.weight": b})
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float64 if j % 8 == 0 else torch.float8_e5m2)
        alpha = [torch.tensor(1, dtype=torch.int32), torch.tensor([3.0], dtype=torch.float64), torch.tensor(2.0, dtype=torch.float16)][j % 3]
        float8.update({f"{n}.lora_A.weight": a8, f"{n}.lora_B.weight": b8, f"{n}.alpha": alpha})
        deltas8[n] = b8.float() @ a8.float() * (float(alpha) / RANK)
    return {"lora_dots": (dots, {n: b.float() @ a.float() for n, (a, b) in f.items()}), "lora_float8": (float8, deltas8)}


def difference(c, tr, f):
    """As ComfyUI saves what one model has beyond another: matrices of low rank, whole ones, norms and biases. No alpha."""
    g, sd, deltas, params = c.gen(195), {}, {}, dict(tr.named_parameters())
    rnd = lambda s, *shape: (torch.randn(*shape, generator=g) * s).bfloat16()
    for j, n in enumerate(f):
        a, b = f[n]
        o, i = b.shape[0], a.shape[1]
        if j % 5 == 0 and o * i <= 4096:
            d = sd[f"diffusion_model.{n}.diff"] = rnd(0.3 * i ** -0.5, o, i)
            deltas[n + ".weight"] = d.float()
        else:
            sd.update({f"diffusion_model.{n}.lora_up.weight": b, f"diffusion_model.{n}.lora_down.weight": a})
            deltas[n + ".weight"] = b.float() @ a.float()
        d = sd[f"diffusion_model.{n}.diff_b"] = rnd(0.2, o)
        deltas[n + ".bias"] = d.float()
    norms = [p for p in params if p.endswith("weight") and params[p].dim() == 1]
    for j, p in enumerate(norms):
        d = rnd(0.2, *params[p].shape)
        sd[f"diffusion_model.{p[:-7]}.diff"] = d.float() if j % 2 else d.half()
        deltas[p] = sd[f"diffusion_model.{p[:-7]}.diff"].float()
    assert len(norms) == 4 * tr.config.num_layers + 1, norms
    return sd, deltas


def with_differences(tr, deltas, call):
    params = dict(tr.named_parameters())
    old = {p: params[p].data.clone() for p in deltas}
    for p, d in deltas.items():
        params[p].data += SCALE * d
    y = call()
    for p, w in old.items():
        params[p].data = w
    return y


def run(c):
    from peft import LoHaConfig
    tr = load_qwen(c).transformer
    names, grid, call, d = qwen_call(c, tr)
    base, rows = d["output.none"], []
    sd, deltas = difference(c, tr, factors(c, tr, names, 161))
    merged = lambda deltas: merged_by(tr, deltas, SCALE, call)
    made = {k: lycoris(c, tr, names, seed, *how) for seed, (k, how) in enumerate(FILES.items(), 190)} | loras(factors(c, tr, names, 161))
    made = {k: (sd, merged(deltas)) for k, (sd, deltas) in made.items()} | {"lora_diff": (sd, with_differences(tr, deltas, call))}
    for k, (sd, y) in made.items():
        rows.append(with_merge(c, k, sd, y, base))
        d[f"output.{k}"] = y
    row, d["output.peft_loha"], kinds = with_peft(c, LoHaConfig, PEFT, 194, names[::3], call, tr)
    assert kinds == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}, kinds
    rows.append(row)
    c.save("loha_qwen", d, scale=SCALE, grid=grid, files=rows, note="weights of qwen_tiny; lycoris: alpha 2 over rank 4; kohya: f16, every third layer, alpha the whole number 3 over 6, so both factors of the product are larger than most weights; dots: every other layer, no alpha; lora_dots has the factors of lora_qwen; lora_float8 those in 8-bit floats and f64, alphas 1, 3 and 2 in i32, f64 and f16; lora_diff has differences of all biases and norms and of some weights; peft: every third layer, settings beside the file")
