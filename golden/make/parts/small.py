"""Files in which small tensors (biases, norms, convolutions) are quantized like matrices: whole networks cast to 8-bit floats, as
many shared files are, GGUF with vectors of blocks and of f64, and a VAE in GGUF whose tensors lie there under other shapes, which
ComfyUI-GGUF notes as `comfy.gguf.orig_shape.NAME`. Each is dequantized by torch or the gguf package, and the network is run with
those values in f32."""
import os
import gguf, torch
import numpy as np
from gguf import GGMLQuantizationType as T
from golden_common import f32, finish_gguf
from parts.formats import wan_names
from parts.ggufs import deq
from parts.qwen import load
from gguf.quants import quantize
from safetensors.torch import save_file


def cast(path, sd, dtype):
    """All in one 8-bit float, without scales."""
    q = {n: x.to(dtype) for n, x in sd.items()}
    save_file({n: x.contiguous() for n, x in q.items()}, path)
    os.chmod(path, 0o644)
    return {n: x.to(f32) for n, x in q.items()}


def scaled(path, sd, dtype):
    """The same with a scale for every `.weight`, of norms too, and one for each output where there are several dimensions."""
    out, back = {}, {}
    for n, x in sd.items():
        if n.endswith(".weight"):
            top = torch.finfo(dtype).max
            scale = x.abs().amax(tuple(range(1, x.ndim)), keepdim=True) / top if x.ndim > 1 else x.abs().max() / top
            q = (x / scale).to(dtype)
            out[n], out[n.removesuffix(".weight") + ".scale_weight"] = q, scale.reshape(-1)
            back[n] = q.to(f32) * scale
        else:
            out[n] = x.to(dtype)
            back[n] = out[n].to(f32)
    save_file({n: x.contiguous() for n, x in out.items()}, path)
    os.chmod(path, 0o644)
    return back


def vectors(path, sd):
    """q8_0 wherever blocks fit, vectors too; the others alternate between f64 and f16."""
    w = gguf.GGUFWriter(path, "qwen_image")
    back = {}
    for i, (n, x) in enumerate(sd.items()):
        x = x.numpy()
        t = T.Q8_0 if x.shape[-1] % 32 == 0 else T.F64 if i % 2 else T.F16
        q = quantize(x, t) if t == T.Q8_0 else x.astype(np.float64 if t == T.F64 else np.float16)
        # Blocks of a vector are a row.
        w.add_tensor(n, q, raw_dtype=t)
        back[n] = torch.from_numpy(deq(q, t) if t == T.Q8_0 else q.astype(np.float32)).reshape(x.shape)
    finish_gguf(w)
    return back


def reshaped(path, vae):
    """Wan's names; what has more than one dimension lies there in rows of 256 values if it can, else as a vector."""
    sd, back = vae.state_dict(), {}
    w = gguf.GGUFWriter(path, "wan")
    for i, (theirs, n) in enumerate(wan_names(vae)):
        x = sd[n].numpy()
        flat = x
        if x.ndim > 1:
            flat = x.reshape(-1, 256) if x.size % 256 == 0 else x.reshape(-1)
            w.add_array("comfy.gguf.orig_shape." + theirs, [int(d) for d in x.shape])
        t = T.F32 if x.ndim == 1 else T.Q8_0 if flat.shape[-1] % 32 == 0 and i % 2 else T.F16
        q = quantize(flat, t) if t == T.Q8_0 else flat.astype(np.float16 if t == T.F16 else np.float32)
        w.add_tensor(theirs, q, raw_dtype=t)
        back[n] = torch.from_numpy(deq(q, t) if t == T.Q8_0 else q.astype(np.float32)).reshape(x.shape)
    finish_gguf(w)
    return back


def run(c):
    qp = load(c)
    tr, te, vae = qp.transformer, qp.text_encoder, qp.vae
    at = lambda n: f"{c.out}/formats/{n}"
    (h, w), nt = c.p["tr"]["t2i"]
    hs, e, ts = c.rnd(182, 1, h * w, 64), c.rnd(183, 1, nt, tr.config.joint_attention_dim), torch.tensor([0.75])
    ids = qp.tokenizer([qp.prompt_template_encode.format(c.p["prompts"][0])], return_tensors="pt").input_ids
    (zh, zw), (ph, pw) = c.p["qwen_vae"]
    z, img = c.rnd(191, 1, 16, 1, zh, zw), c.rnd(192, 1, 3, 1, ph, pw).clamp(-1, 1)
    d = {"hidden_states": hs, "encoder_hidden_states": e, "timestep": ts, "input_ids": ids, "latents": z, "image": img}

    def other(m, back):
        new = type(m)(m.config) if m is te else type(m).from_config(m.config)
        new.load_state_dict({**m.state_dict(), **back})
        return new.eval()

    def step(back):
        return other(tr, back)(hidden_states=hs, encoder_hidden_states=e, timestep=ts, img_shapes=[[(1, h, w)]], return_dict=False)[0]

    def encode(back):
        return other(te, back)(input_ids=ids, output_hidden_states=True).hidden_states[-1]

    def both_ways(name, back):
        m = other(vae, back)
        d[f"decoded.{name}"], d[f"encoded.{name}"] = m.decode(z, return_dict=False)[0], m.encode(img).latent_dist.mean

    language = {n: x for n, x in te.state_dict().items() if n.startswith("model.language_model.")}
    d["output.cast"] = step(cast(at("transformer_cast.safetensors"), tr.state_dict(), torch.float8_e4m3fn))
    d["output.scaled"] = step(scaled(at("transformer_scaled.safetensors"), tr.state_dict(), torch.float8_e4m3fn))
    d["output.vectors"] = step(vectors(at("transformer_vectors.gguf"), tr.state_dict()))
    d["hidden.cast"] = encode(cast(at("text_encoder_cast.safetensors"), language, torch.float8_e5m2))
    both_ways("cast", cast(at("vae_cast.safetensors"), vae.state_dict(), torch.float8_e4m3fn))
    both_ways("scaled", scaled(at("vae_scaled.safetensors"), vae.state_dict(), torch.float8_e4m3fn))
    both_ways("reshaped", reshaped(at("vae_reshaped.gguf"), vae))
    c.save("small", d, grid=[h, w],
           note="output.* = one transformer step, hidden.* = the text encoder's last hidden state, decoded.* and encoded.* = the VAE both ways, with the values of formats/*_NAME, in f32")
