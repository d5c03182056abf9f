"""Writes a model folder of Qwen-Image's full width with random bf16 weights, in place: no second copy is made.

    python3 bench/random_model.py FOLDER [--blocks 60] [--layers 28] [--vocab 152064]

A block of the transformer has 0.68 GB, a layer of the text encoder 0.47 GB. The tokenizer is the embedded model's.
Needs numpy.
"""

import argparse
import json
import pathlib
import shutil

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIM, TEXT, HIDDEN, KV = 3072, 3584, 18944, 512
PIECE = 1 << 23


def transformer(blocks):
    yield from linear("img_in", 64, DIM)
    yield "txt_norm.weight", [TEXT]
    yield from linear("txt_in", TEXT, DIM)
    yield from linear("time_text_embed.timestep_embedder.linear_1", 256, DIM)
    yield from linear("time_text_embed.timestep_embedder.linear_2", DIM, DIM)
    for i in range(blocks):
        name = f"transformer_blocks.{i}"
        for stream in ("img", "txt"):
            yield from linear(f"{name}.{stream}_mod.1", DIM, 6 * DIM)
            yield from linear(f"{name}.{stream}_mlp.net.0.proj", DIM, 4 * DIM)
            yield from linear(f"{name}.{stream}_mlp.net.2", 4 * DIM, DIM)
        for part in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            yield from linear(f"{name}.attn.{part}", DIM, DIM)
        for part in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            yield f"{name}.attn.{part}.weight", [128]
    yield from linear("norm_out.linear", DIM, 2 * DIM)
    yield from linear("proj_out", DIM, 64)


def text_encoder(layers, vocab):
    yield "model.embed_tokens.weight", [vocab, TEXT]
    for i in range(layers):
        name = f"model.layers.{i}"
        yield f"{name}.input_layernorm.weight", [TEXT]
        yield f"{name}.post_attention_layernorm.weight", [TEXT]
        yield from linear(f"{name}.self_attn.q_proj", TEXT, TEXT)
        yield from linear(f"{name}.self_attn.k_proj", TEXT, KV)
        yield from linear(f"{name}.self_attn.v_proj", TEXT, KV)
        yield f"{name}.self_attn.o_proj.weight", [TEXT, TEXT]
        yield f"{name}.mlp.gate_proj.weight", [HIDDEN, TEXT]
        yield f"{name}.mlp.up_proj.weight", [HIDDEN, TEXT]
        yield f"{name}.mlp.down_proj.weight", [TEXT, HIDDEN]
    yield "model.norm.weight", [TEXT]


def vae():
    dims, blocks = [96, 192, 384, 384], 2
    yield from conv("encoder.conv_in", 3, 96)
    index, channels = 0, 96
    for level, dim in enumerate(dims):
        for _ in range(blocks):
            yield from residual(f"encoder.down_blocks.{index}", channels, dim)
            index, channels = index + 1, dim
        if level < 3:
            yield from plain(f"encoder.down_blocks.{index}.resample.1", dim, dim)
            index += 1
    yield from middle("encoder", 384)
    yield from norm_conv("encoder", 384, 32)
    yield from conv("quant_conv", 32, 32, 1)
    yield from conv("post_quant_conv", 16, 16, 1)
    yield from conv("decoder.conv_in", 16, 384)
    yield from middle("decoder", 384)
    for level, dim in enumerate(dims[::-1]):
        for j in range(blocks + 1):
            c_in = dim if j else (384 if level == 0 else dims[::-1][level - 1] // 2)
            yield from residual(f"decoder.up_blocks.{level}.resnets.{j}", c_in, dim)
        if level < 3:
            yield from plain(f"decoder.up_blocks.{level}.upsamplers.0.resample.1", dim, dim // 2)
    yield from norm_conv("decoder", 96, 3)


def linear(name, n_in, n_out):
    yield f"{name}.weight", [n_out, n_in]
    yield f"{name}.bias", [n_out]


def conv(name, c_in, c_out, kernel=3):
    yield f"{name}.weight", [c_out, c_in] + 3 * [kernel]
    yield f"{name}.bias", [c_out]


def plain(name, c_in, c_out, kernel=3):
    yield f"{name}.weight", [c_out, c_in] + 2 * [kernel]
    yield f"{name}.bias", [c_out]


def residual(name, c_in, c_out):
    yield f"{name}.norm1.gamma", [c_in, 1, 1, 1]
    yield from conv(f"{name}.conv1", c_in, c_out)
    yield f"{name}.norm2.gamma", [c_out, 1, 1, 1]
    yield from conv(f"{name}.conv2", c_out, c_out)
    if c_in != c_out:
        yield from conv(f"{name}.conv_shortcut", c_in, c_out, 1)


def middle(name, c):
    yield from residual(f"{name}.mid_block.resnets.0", c, c)
    yield f"{name}.mid_block.attentions.0.norm.gamma", [c, 1, 1]
    yield from plain(f"{name}.mid_block.attentions.0.to_qkv", c, 3 * c, 1)
    yield from plain(f"{name}.mid_block.attentions.0.proj", c, c, 1)
    yield from residual(f"{name}.mid_block.resnets.1", c, c)


def norm_conv(name, c_in, c_out):
    yield f"{name}.norm_out.gamma", [c_in, 1, 1, 1]
    yield from conv(f"{name}.conv_out", c_in, c_out)


def write(path, tensors, rng):
    """A safetensors file, tensor after tensor. Matrices have the variance 1 / n_in, norms are near 1, biases near 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, end = {}, 0
    tensors = list(tensors)
    for name, shape in tensors:
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors:
            count, fan_in = int(np.prod(shape)), int(np.prod(shape[1:]))
            middle, reach = (0.0, 0.02) if name.endswith(".bias") else (1.0, 0.1)
            if len(shape) > 1 and fan_in > 1:
                middle, reach = 0.0, (3.0 / fan_in) ** 0.5
            for first in range(0, count, PIECE):
                values = rng.uniform(middle - reach, middle + reach, min(PIECE, count - first)).astype(np.float32)
                (values.view(np.uint32) >> 16).astype(np.uint16).tofile(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--vocab", type=int, default=152064)
    args = parser.parse_args()
    tiny = ROOT / "models/tiny"
    for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"):
        (args.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tiny / name, args.folder / name)
    index = json.loads((args.folder / "model_index.json").read_text())
    index.pop("_native_side_px", None)
    (args.folder / "model_index.json").write_text(json.dumps(index))
    configs = {
        "transformer": {"_class_name": "QwenImageTransformer2DModel", "num_layers": args.blocks},
        "text_encoder": {
            "model_type": "qwen2_5_vl", "hidden_size": TEXT, "intermediate_size": HIDDEN, "vocab_size": args.vocab,
            "num_attention_heads": 28, "num_key_value_heads": 4, "num_hidden_layers": args.layers,
        },
        "vae": {"_class_name": "AutoencoderKLQwenImage", "latents_mean": [0.0] * 16, "latents_std": [1.0] * 16},
    }
    rng = np.random.default_rng(1)
    for folder, config in configs.items():
        (args.folder / folder).mkdir(parents=True, exist_ok=True)
        (args.folder / folder / "config.json").write_text(json.dumps(config))
    write(args.folder / "transformer/diffusion_pytorch_model.safetensors", transformer(args.blocks), rng)
    write(args.folder / "text_encoder/model.safetensors", text_encoder(args.layers, args.vocab), rng)
    write(args.folder / "vae/diffusion_pytorch_model.safetensors", vae(), rng)


if __name__ == "__main__":
    main()
