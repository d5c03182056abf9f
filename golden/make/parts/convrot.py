"""The transformer of qwen_tiny as ComfyUI stores it in signed bytes (int8_tensorwise, "ConvRot"): rows rotated in groups by the
regular Hadamard matrix, a scale for each row. The matrix is built here as the Kronecker power that the paper names
(arXiv:2512.03673), the values come from plain matrix products in f64, and the network is run with them in f32."""
import json, os
import numpy as np, torch
from golden_common import f32
from parts.qwen import load
from safetensors.torch import save_file

H4 = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2


def hadamard(n):
    h = np.eye(1)
    while len(h) < n:
        h = np.kron(h, H4)
    assert len(h) == n and np.allclose(h @ h.T, np.eye(n))
    return h


def quantize(w, group, per_row):
    """Codes, scales, and the values that they stand for."""
    h = hadamard(group)
    w = w.numpy().astype(np.float64)
    rotated = (w.reshape(len(w), -1, group) @ h.T).reshape(w.shape)
    scale = (np.abs(rotated).max(1, keepdims=True) if per_row else np.abs(rotated).max()) / 127
    scale = np.float32(scale)
    q = np.clip(np.rint(rotated / scale), -128, 127)
    values = ((q * np.float64(scale)).reshape(len(w), -1, group) @ h).reshape(w.shape)
    return torch.from_numpy(q.astype(np.int8)), torch.from_numpy(np.array(scale)), torch.from_numpy(values.astype(np.float32))


def run(c):
    tr = load(c).transformer
    out, back, listed = {}, {}, {}
    prefix = "model.diffusion_model."
    for n, w in tr.state_dict().items():
        layer = n.removesuffix(".weight")
        if w.ndim != 2 or not n.startswith("transformer_blocks."):
            out[prefix + n] = w.bfloat16()
            continue
        # The largest group that divides; to_k without rotation, to_v and add_v_proj in smaller groups, to_q with one scale.
        group = 256 if w.shape[1] % 256 == 0 else 64
        group = 1 if ".to_k" in n else 16 if ".to_v" in n else 4 if ".add_v_proj" in n else group
        q, scale, back[n] = quantize(w, group, ".to_q" not in n)
        note = {"format": "int8_tensorwise"}
        if group == 256 and ".img_mlp." in n:
            note["convrot"] = True                       # 256 where the note does not say
        elif group == 64 and ".to_out." in n:
            note["params"] = {"convrot": True, "convrot_groupsize": group}
        elif group > 1:
            note |= {"convrot": True, "convrot_groupsize": group, "per_row": scale.ndim == 2}
        out[prefix + n], out[prefix + layer + ".weight_scale"] = q, scale.reshape(-1) if ".to_k" in n else scale
        if n.startswith("transformer_blocks.0."):
            out[prefix + layer + ".comfy_quant"] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
        else:
            listed[layer] = note
    os.makedirs(c.out + "/formats", exist_ok=True)
    path = c.out + "/formats/transformer_convrot.safetensors"
    meta = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": listed})}
    save_file({k: v.contiguous() for k, v in out.items()}, path, meta)
    os.chmod(path, 0o644)
    (h, w), nt = c.p["tr"]["t2i"]
    hs, e, ts = c.rnd(182, 1, h * w, 64), c.rnd(183, 1, nt, tr.config.joint_attention_dim), torch.tensor([0.75])
    m = type(tr).from_config(tr.config).eval()
    m.load_state_dict({**tr.state_dict(), **back})
    o = m(hidden_states=hs, encoder_hidden_states=e, timestep=ts, img_shapes=[[(1, h, w)]], return_dict=False)[0]
    c.save("convrot", {"hidden_states": hs, "encoder_hidden_states": e, "timestep": ts, "output": o.to(f32)}, grid=[h, w],
           note="output = one transformer step with the values of formats/transformer_convrot.safetensors, rotated back in f64, in f32")
