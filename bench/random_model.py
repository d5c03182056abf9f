"""Writes a model folder of Qwen-Image's full width with random weights, in place: no second copy is made.

    python3 bench/random_model.py FOLDER [--format bf16] [--blocks 60] [--layers 28] [--vocab 152064] [--tokenizer FOLDER]

Formats are bf16 and those that `inkstone convert` writes, q8 and q4: the same layers have the same formats. Codes repeat
after 32 MiB; the files have their real size. A block of the transformer has 0.68 GB in bf16, 0.23 GB in q4 (of which the
modulations, in 6 bits, are 0.09), a layer of the text encoder 0.47 GB, in q4 0.13 GB. Without `--tokenizer` it is the
embedded model's. `--lora RANK` adds FOLDER/lora.safetensors, a LoRA around all layers of the blocks but the modulations;
`--lokr FACTOR` FOLDER/lokr.safetensors, a LoKr around the same ones whose first matrices are as large as the factor;
`--gguf` adds FOLDER/transformer.gguf, the transformer in q8_0. Needs numpy, and gguf for the latter.
"""

import argparse
import json
import pathlib
import shutil

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIM, TEXT, HIDDEN, KV = 3072, 3584, 18944, 512
PIECE = 1 << 23
GROUP = 64
# Layers that stay as they are, and those that have more bits in q4, 6 and 5 (weights/quantize.rs).
EDGES = ("img_in", "txt_in", "proj_out", "norm_out.linear", "time_text_embed", "embed_tokens")
MODULATIONS = ("img_mod.1", "txt_mod.1")
IMAGE = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "img_mlp.net.0.proj", "img_mlp.net.2")


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


def adapted(blocks):
    """The layers of the blocks but the modulations."""
    for name, shape in transformer(blocks):
        layer = name.removesuffix(".weight")
        if name.startswith("transformer_blocks.") and layer != name and len(shape) == 2 and not layer.endswith(MODULATIONS):
            yield layer, shape


def lora(blocks, rank):
    for layer, (outs, ins) in adapted(blocks):
        yield f"{layer}.lora_A.weight", [rank, ins]
        yield f"{layer}.lora_B.weight", [outs, rank]


def lokr(blocks, factor):
    for layer, (outs, ins) in adapted(blocks):
        yield f"{layer}.lokr_w1", [factor, factor]
        yield f"{layer}.lokr_w2", [outs // factor, ins // factor]


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


def bits_of(name, shape, bits):
    """Bits of a tensor's codes; none for one that stays bf16."""
    layer = name.removesuffix(".weight")
    if bits is None or len(shape) != 2 or layer == name or any(edge in layer for edge in EDGES):
        return None
    least = 6 if layer.endswith(MODULATIONS) else 5 if layer.endswith(IMAGE) else bits
    return max(bits, least)


def parts(tensors, bits):
    """What lies in the file: name, type, shape, bytes, and what makes the bytes."""
    for name, shape in tensors:
        count, codes = int(np.prod(shape)), bits_of(name, shape, bits)
        if codes is None:
            yield name, "BF16", shape, 2 * count, lambda file, rng, name=name, shape=shape: floats(file, rng, name, shape)
            continue
        n_out, n_in = shape
        layer = name.removesuffix(".weight")
        # Even codes from 0 to 2^bits - 1 with this scale, around 0, have the variance 1 / n_in.
        scale = (12 / (4**codes - 1) / n_in) ** 0.5
        yield name, "U32", [n_out, n_in * codes // 32], count * codes // 8, random_bytes(count * codes // 8)
        for part, value in (("scales", scale), ("biases", -scale * (2**codes - 1) / 2)):
            yield f"{layer}.{part}", "BF16", [n_out, n_in // GROUP], 2 * count // GROUP, constant(value, count // GROUP)


def floats(file, rng, name, shape):
    """Matrices have the variance 1 / n_in, norms are near 1, biases near 0."""
    count, fan_in = int(np.prod(shape)), int(np.prod(shape[1:]))
    middle, reach = (0.0, 0.02) if name.endswith(".bias") else (1.0, 0.1)
    if len(shape) > 1 and fan_in > 1:
        middle, reach = 0.0, (3.0 / fan_in) ** 0.5
    for first in range(0, count, PIECE):
        values = rng.uniform(middle - reach, middle + reach, min(PIECE, count - first)).astype(np.float32)
        bf16(values).tofile(file)


def bf16(values):
    return (values.view(np.uint32) >> 16).astype(np.uint16)


POOL = np.random.default_rng(2).bytes(4 * PIECE)


def random_bytes(count):
    def make(file, rng):
        left, at = count, int(rng.integers(len(POOL)))
        while left:
            piece = memoryview(POOL)[at : at + left]
            file.write(piece)
            left, at = left - len(piece), 0
    return make


def constant(value, count):
    return lambda file, _: np.full(count, bf16(np.float32([value]))[0]).tofile(file)


def write(path, tensors, rng, bits=None):
    """A safetensors file, tensor after tensor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, end = {}, 0
    stored = list(parts(tensors, bits))
    for name, dtype, shape, count, _ in stored:
        start, end = end, end + count
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, make in stored:
            make(file, rng)
            file.flush()


def write_gguf(path, tensors, rng):
    """A GGUF file in q8_0, biases and norms in f32."""
    import gguf

    q8_0 = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(path, "qwen_image", use_temp_file=True)
    for name, shape in tensors:
        if len(shape) == 1:
            writer.add_tensor(name, np.full(shape, name.endswith("weight"), np.float32))
            continue
        blocks = np.empty([shape[0], shape[1] // 32, 34], np.uint8)
        # Even codes from -128 to 127 with this scale have the variance 1 / n_in.
        blocks[..., :2] = np.array([(12 / 65535 / shape[1]) ** 0.5], np.float16).view(np.uint8)
        blocks[..., 2:] = rng.integers(0, 256, blocks[..., 2:].shape, np.uint8)
        writer.add_tensor(name, blocks.reshape(shape[0], -1), raw_dtype=q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--blocks", type=int, default=60)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--vocab", type=int, default=152064)
    parser.add_argument("--format", choices=["bf16", "q8", "q4"], default="bf16")
    parser.add_argument("--tokenizer", type=pathlib.Path, default=ROOT / "models/tiny/tokenizer")
    parser.add_argument("--lora", type=int, metavar="RANK")
    parser.add_argument("--lokr", type=int, metavar="FACTOR")
    parser.add_argument("--gguf", action="store_true")
    args = parser.parse_args()
    tiny = ROOT / "models/tiny"
    copies = [("model_index.json", tiny), ("scheduler/scheduler_config.json", tiny / "scheduler")]
    for name, folder in [*copies, ("tokenizer/tokenizer.json", args.tokenizer)]:
        path = args.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path.name, path)
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
    bits = {"bf16": None, "q8": 8, "q4": 4}[args.format]
    write(args.folder / "transformer/diffusion_pytorch_model.safetensors", transformer(args.blocks), rng, bits)
    write(args.folder / "text_encoder/model.safetensors", text_encoder(args.layers, args.vocab), rng, bits)
    write(args.folder / "vae/diffusion_pytorch_model.safetensors", vae(), rng)
    if args.lora:
        write(args.folder / "lora.safetensors", lora(args.blocks, args.lora), rng)
    if args.lokr:
        write(args.folder / "lokr.safetensors", lokr(args.blocks, args.lokr), rng)
    if args.gguf:
        write_gguf(args.folder / "transformer.gguf", transformer(args.blocks), rng)


if __name__ == "__main__":
    main()
