"""The same two networks in the formats of other programs: GGUF with llama.cpp's names, ComfyUI's fp8, MLX and mflux. Each
is dequantized by its own reference (gguf, torch, mlx), and the network is run with those values in f32. Also the values of
all 8-bit floats, and tables of names. Needs MLX_PYTHON (see mlx.py) for the MLX files."""
import json, os, subprocess, sys, tempfile
import gguf, torch
import numpy as np
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize
from golden_common import f32, finish_gguf
from parts.qwen import load
from safetensors.torch import load_file, save_file

MLX = r'''
import json, sys
import mlx.core as mx
mx.set_default_device(mx.cpu)
src, dst, back, bits, group, meta = sys.argv[1:7]
bits, group = int(bits), int(group)
out, values = {}, {}
for n, w in mx.load(src).items():
    if n.endswith(".weight") and w.ndim == 2 and w.shape[1] % group == 0:
        q, s, b = mx.quantize(w, group_size=group, bits=bits)
        layer = n[:-len(".weight")]
        out[n], out[layer + ".scales"], out[layer + ".biases"] = q, s, b
        # As a product sees it: in f32.
        values[n] = mx.dequantize(q, s.astype(mx.float32), b.astype(mx.float32), group_size=group, bits=bits)
    else:
        out[n] = w
mx.save_safetensors(dst, out, json.loads(meta))
mx.save_safetensors(back, values)
'''


def mlx(path, sd, bits, group, meta, name):
    """Writes sd in MLX's format under names made by `name`; returns the values of what was quantized."""
    with tempfile.TemporaryDirectory() as t:
        save_file({name(k): v.bfloat16().contiguous() for k, v in sd.items()}, t + "/in.safetensors")
        subprocess.run([os.environ["MLX_PYTHON"], "-c", MLX, t + "/in.safetensors", path, t + "/back.safetensors", str(bits), str(group), json.dumps(meta)], check=True)
        back = load_file(t + "/back.safetensors")
    return {k: back[name(k)] for k in sd if name(k) in back}


def mflux(name):
    for a, b in (("attn.to_out.0", "attn.attn_to_out.0"), ("img_mod.1", "img_mod_linear"), ("txt_mod.1", "txt_mod_linear"),
                 ("img_mlp.net.0.proj", "img_ff.mlp_in"), ("img_mlp.net.2", "img_ff.mlp_out"),
                 ("txt_mlp.net.0.proj", "txt_ff.mlp_in"), ("txt_mlp.net.2", "txt_ff.mlp_out")):
        name = name.replace(a, b)
    return name


def comfy_fp8(path, sd):
    """Two of the layouts that are around, one a block; img_in has no scale, the rest is plain bf16."""
    out, back = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for n, w in sd.items():
        layer = n.removesuffix(".weight")
        if n == "img_in.weight":
            q, scale = w.to(torch.float8_e4m3fn), None
        elif w.ndim == 2 and n.startswith("transformer_blocks."):
            scale = (w.abs().max() / 448).to(f32)
            q = (w / scale).to(torch.float8_e4m3fn)
        else:
            out[n] = w.bfloat16()
            continue
        out[n], back[n] = q, q.to(f32) * (1 if scale is None else scale)
        if n.startswith("transformer_blocks.0."):
            out[layer + ".scale_weight"], out[layer + ".scale_input"] = scale, torch.tensor(1.0)
        elif scale is not None:
            out[layer + ".weight_scale"] = scale.reshape(1)
            out[layer + ".comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    save_file({"model.diffusion_model." + k: v.contiguous() for k, v in out.items()}, path)
    return back


def llama_cpp(path, sd, layers):
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2VL, layers)
    w = gguf.GGUFWriter(path, "qwen2vl")
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    w.add_array("tokenizer.ggml.token_type", [1, 1, 1])
    back, pairs = {}, []
    for n, x in sd.items():
        if not n.startswith("model.language_model."):
            continue
        n4 = n.replace("model.language_model.", "model.")
        to = names.get_name(n4, try_suffixes=(".weight", ".bias"))
        pairs.append([to, n4])
        x = x.numpy()
        t = T.Q6_K if x.ndim == 2 and x.shape[1] % 256 == 0 else T.Q5_0 if x.ndim == 2 and x.shape[1] % 32 == 0 else T.F32
        t = T.Q8_0 if t == T.Q6_K else t
        q = quantize(x, t) if t != T.F32 else x
        w.add_tensor(to, q, raw_dtype=t)
        if t != T.F32:
            back[n] = torch.from_numpy(np.ascontiguousarray(dequantize(q, t).astype(np.float32))).reshape(x.shape)
    finish_gguf(w)
    return back, pairs


def wan_names(vae):
    """Pairs of Wan's names and diffusers' for this VAE, found by asking diffusers' converter for every name there could be."""
    could = ["conv1", "conv2"]
    for c in ("encoder", "decoder"):
        could += [f"{c}.conv1", f"{c}.head.0", f"{c}.head.2", f"{c}.middle.1.norm", f"{c}.middle.1.to_qkv", f"{c}.middle.1.proj"]
        blocks = [f"{c}.middle.{i}" for i in (0, 2)] + [f"{c}.{'down' if c == 'encoder' else 'up'}samples.{i}" for i in range(16)]
        could += [f"{b}.{r}" for b in blocks for r in ("residual.0", "residual.2", "residual.3", "residual.6", "shortcut", "resample.1", "time_conv")]
    want = set(vae.state_dict())
    pairs = []
    for n in (f"{m}.{k}" for m in could for k in ("weight", "bias", "gamma")):
        to = list(convert_wan_vae_to_diffusers({n: torch.zeros(1)}))
        if to and to[0] in want:
            pairs.append([n, to[0]])
    assert {b for _, b in pairs} == want and len(pairs) == len(want), want - {b for _, b in pairs}
    return pairs


def run(c):
    qp = load(c)
    tr, te = qp.transformer, qp.text_encoder
    os.makedirs(c.out + "/formats", exist_ok=True)
    at = lambda n: f"{c.out}/formats/{n}"
    (h, w), nt = c.p["tr"]["t2i"]
    hs, e, ts = c.rnd(182, 1, h * w, 64), c.rnd(183, 1, nt, tr.config.joint_attention_dim), torch.tensor([0.75])
    d = {"hidden_states": hs, "encoder_hidden_states": e, "timestep": ts}

    def step(back):
        m = type(tr).from_config(tr.config).eval()
        m.load_state_dict({**tr.state_dict(), **back})
        return m(hidden_states=hs, encoder_hidden_states=e, timestep=ts, img_shapes=[[(1, h, w)]], return_dict=False)[0]

    ids = qp.tokenizer([qp.prompt_template_encode.format(c.p["prompts"][0])], return_tensors="pt").input_ids
    d["input_ids"] = ids

    def encode(back):
        m = type(te)(te.config).eval()
        m.load_state_dict({**te.state_dict(), **back})
        return m(input_ids=ids, output_hidden_states=True).hidden_states[-1]

    d["output.fp8"] = step(comfy_fp8(at("transformer_fp8.safetensors"), tr.state_dict()))
    back, llama = llama_cpp(at("text_encoder.gguf"), te.state_dict(), te.config.text_config.num_hidden_layers)
    d["hidden.gguf"] = encode(back)
    meta = {"quantization_level": "8", "mflux_version": "0.18.0"}
    back = mlx(at("transformer_mflux.safetensors"), tr.state_dict(), 8, 64, meta, mflux)
    assert len(back) > 5, list(back)
    d["output.mflux"] = step(back)
    lm = {k: v for k, v in te.state_dict().items() if k.startswith("model.language_model.")}
    name = lambda n: n.replace("model.language_model.", "language_model.model.")
    back = mlx(at("text_encoder_mlx.safetensors"), lm, 4, 32, {"format": "mlx"}, name)
    assert any("embed_tokens" in k for k in back)
    d["hidden.mlx"] = encode(back)
    for kind, t in (("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
        codes = torch.arange(256).to(torch.uint8)
        values = codes.view(t).to(f32)
        codes = codes[torch.isfinite(values)]
        d[f"{kind}.codes"], d[f"{kind}.values"] = codes, codes.view(t).to(f32)
    c.save("formats", d, grid=[h, w],
           note="output.* = one transformer step, hidden.* = the text encoder's last hidden state (input_ids), with the values that each format's own reference dequantizes, in f32")
    c.save_json("names", {"llama_cpp": llama, "wan_vae": wan_names(qp.vae), "mflux_transformer": [[mflux(n), n] for n in tr.state_dict()],
                          "about": "a tensor's name in another program, and in diffusers or transformers: by gguf's tensor name map, diffusers' convert_wan_vae_to_diffusers, mflux's qwen_weight_mapping"}, indent=0)
