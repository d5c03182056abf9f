"""The VAE of qwen_tiny as mflux saves it: its names (qwen_weight_mapping.py), convolutions in MLX's order of dimensions, norms as
vectors. Values are the same, so what the VAE computes is in qwen_vae_decode and qwen_vae_encode."""
import json, os, re
from parts.qwen import load
from safetensors.torch import save_file

BLOCKS = 2   # residual blocks of a stage of the encoder, behind them what halves the picture


def name(n):
    """diffusers' name in mflux."""
    n = re.sub(r"^encoder\.down_blocks\.(\d+)\.(resample|time_conv)", lambda m: f"encoder.down_blocks.{int(m[1]) // (BLOCKS + 1)}.downsamplers.0.{m[2]}", n)
    n = re.sub(r"^encoder\.down_blocks\.(\d+)\.(conv|norm)", lambda m: f"encoder.down_blocks.{int(m[1]) // (BLOCKS + 1)}.resnets.{int(m[1]) % (BLOCKS + 1)}.{m[2]}", n)
    n = re.sub(r"^decoder\.up_blocks\.(\d+)", r"decoder.up_block\1", n)
    n = n.replace("conv_shortcut", "skip_conv").replace("resample.1.", "resample_conv.").replace(".gamma", ".weight")
    # All but the two layers of the attention and what changes the size are convolutions of three dimensions.
    return re.sub(r"(conv_in|conv_out|conv1|conv2|skip_conv|time_conv|quant_conv)\.(weight|bias)$", r"\1.conv3d.\2", n)


def run(c):
    vae = load(c).vae
    assert vae.config.num_res_blocks == BLOCKS
    out, pairs = {}, []
    for n, w in vae.state_dict().items():
        if n.startswith("encoder.down_blocks.5.time_conv"):
            continue   # mflux has none there
        pairs.append([name(n), n])
        if n.endswith(".gamma"):
            w = w.flatten()
        elif w.ndim > 1:
            w = w.movedim(1, -1)
        out[name(n)] = w.bfloat16().contiguous()
    os.makedirs(c.out + "/formats", exist_ok=True)
    path = c.out + "/formats/vae_mflux.safetensors"
    save_file(out, path, {"quantization_level": "8", "mflux_version": "0.18.0"})
    os.chmod(path, 0o644)
    c.save_json("names_mflux", {"mflux_vae": pairs, "about": "a tensor's name in mflux, and in diffusers"}, indent=0)
