"""PyTorch, diffusers and transformers as a warm process: reads a case a line, runs it once, answers a line of JSON.

    echo block/256 | python torch_cases.py --model FOLDER --dtype bf16

Cases are those of `inkstone bench -`: linear/ROWSxINxOUT, attention/TOKENSxHEADSxDIM, layer/TOKENS, block/SIDE,
decode/SIDE. FOLDER has a slice of Qwen-Image in the diffusers layout (blocks and layers of full size).
"""

import argparse
import json
import os
import statistics
import sys
import time

ARGS = argparse.ArgumentParser()
ARGS.add_argument("--model", required=True)
ARGS.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
ARGS.add_argument("--threads", type=int, default=os.cpu_count())
ARGS.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: processor time of all threads")
ARGS = ARGS.parse_args()
os.environ["OMP_NUM_THREADS"] = str(ARGS.threads)

import torch
import torch.nn.functional as F

torch.set_num_threads(ARGS.threads)
torch.set_grad_enabled(False)
torch.manual_seed(0)
DTYPE = {"bf16": torch.bfloat16, "f32": torch.float32}[ARGS.dtype]
PROMPT_TOKENS = 40
MODELS = {}
now = {"wall": time.perf_counter, "cpu": time.process_time}[ARGS.clock]


def model(name, load):
    if name not in MODELS:
        MODELS[name] = load().eval()
    return MODELS[name]


def seconds(call):
    start = now()
    call()
    return now() - start


def parts(layers, call):
    """Median seconds of the layers in one forward."""
    begun, taken = {}, []
    before = lambda module, _: begun.__setitem__(module, now())
    after = lambda module, *_: taken.append(now() - begun[module])
    hooks = [h for layer in layers for h in (layer.register_forward_pre_hook(before), layer.register_forward_hook(after))]
    call()
    for hook in hooks:
        hook.remove()
    return statistics.median(taken)


def linear(rows, n_in, n_out):
    x, weight = torch.randn(rows, n_in).to(DTYPE), torch.randn(n_out, n_in).to(DTYPE)
    return lambda: seconds(lambda: F.linear(x, weight))


def attention(tokens, heads, head_dim):
    q, k, v = (torch.randn(1, heads, tokens, head_dim).to(DTYPE) for _ in range(3))
    return lambda: seconds(lambda: F.scaled_dot_product_attention(q, k, v))


def layer(tokens):
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    lm = model("text", lambda: Model.from_pretrained(f"{ARGS.model}/text_encoder", dtype=DTYPE)).model.language_model
    ids = torch.randint(0, 150000, (1, tokens))
    mask = torch.ones_like(ids)
    return lambda: parts(lm.layers, lambda: lm(input_ids=ids, attention_mask=mask, use_cache=False))


def block(side):
    from diffusers import QwenImageTransformer2DModel as Model

    dit = model("dit", lambda: Model.from_pretrained(f"{ARGS.model}/transformer", dtype=DTYPE))
    side //= 16
    latents, prompt = torch.randn(1, side * side, 64).to(DTYPE), torch.randn(1, PROMPT_TOKENS, 3584).to(DTYPE)
    forward = lambda: dit(
        hidden_states=latents,
        encoder_hidden_states=prompt,
        timestep=torch.tensor([0.7]).to(DTYPE),
        img_shapes=[[(1, side, side)]],
        return_dict=False,
    )
    return lambda: parts(dit.transformer_blocks, forward)


def decode(side):
    from diffusers import AutoencoderKLQwenImage as Model

    vae = model("vae", lambda: Model.from_pretrained(f"{ARGS.model}/vae", dtype=DTYPE))
    latents = torch.randn(1, 16, 1, side // 8, side // 8).to(DTYPE)
    return lambda: seconds(lambda: vae.decode(latents, return_dict=False))


def main():
    ready = {}
    for line in sys.stdin:
        name = line.strip().removeprefix("prepare ")
        if name not in ready:
            kind, sizes = name.split("/")
            ready[name] = {f.__name__: f for f in (linear, attention, layer, block, decode)}[kind](
                *map(int, sizes.split("x"))
            )
            ready[name]()  # the first run is not like the others
        answer = {"case": name, "dtype": ARGS.dtype}
        if not line.startswith("prepare "):
            answer["seconds"] = ready[name]()
        print(json.dumps(answer), flush=True)


main()
