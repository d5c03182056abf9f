"""Checks a model folder: the fast forwards equal diffusers and transformers, stock diffusers draws what sample.py draws, and, with --inkstone, so does the binary.

    python check.py ../models/tiny --size 64 [--inkstone ../target/release/inkstone]
"""
import argparse
import math
import subprocess
import tempfile

import numpy as np
import torch
from diffusers import QwenImagePipeline
from PIL import Image

import captions
import fast_transformer
import folder
from layout import encode, use_reference_convs, use_single_frame_convs
from sample import draw

TOLERANCE = 1e-4          # of the largest value
LEAST_DB = 35.0
PROMPTS = [("red apple", 1), ("熊猫", 2), ("a lion on a blue background", 3)]


def compare(name, ours, reference):
    off = ((ours - reference).abs().max() / reference.abs().max()).item()
    print(f"{name}: off by {off:.1e} of the largest value")
    assert off < TOLERANCE, name


def psnr(a, b):
    return 10 * math.log10(255 ** 2 / max(1e-9, ((a.astype(float) - b.astype(float)) ** 2).mean()))


@torch.no_grad()
def check_parts(models, pipe):
    text = "a lion on a blue background"
    ids, mask = models.tokens.encode([text, "熊猫"])
    hidden = models.text_encoder(ids, models.tokens.prefix)
    whole = pipe.tokenizer(captions.PREFIX + text + captions.SUFFIX, return_tensors="pt").input_ids
    reference = pipe.text_encoder(input_ids=whole, output_hidden_states=True).hidden_states[-1][:, len(models.tokens.prefix):]
    compare("text encoder", hidden[:1, :reference.shape[1]], reference)
    side, sigma = models.side, torch.tensor([0.9, 0.3])
    x = torch.randn(2, side * side, 64)
    fast = fast_transformer.forward(models.transformer, x, hidden, mask, sigma, fast_transformer.rope_tables(models.transformer, side, ids.shape[1]))
    slow = pipe.transformer(hidden_states=x, encoder_hidden_states=hidden, encoder_hidden_states_mask=mask, timestep=sigma, img_shapes=[[(1, side, side)]] * 2, return_dict=False)[0]
    compare("transformer", fast, slow)
    picture = torch.rand(1, 3, 16 * side, 16 * side) * 2 - 1
    reference = pipe.vae.encode(picture.unsqueeze(2)).latent_dist.mode().squeeze(2)
    use_single_frame_convs()
    compare("autoencoder", encode(models.vae, picture)[0], reference)
    use_reference_convs()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--size", type=int, required=True)
    p.add_argument("--inkstone")
    args = p.parse_args()
    torch.manual_seed(0)
    models = folder.read(args.model, args.size)
    pipe = QwenImagePipeline.from_pretrained(args.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    check_parts(models, pipe)
    for prompt, seed in PROMPTS:
        reference = np.array(pipe(prompt=prompt, negative_prompt=" ", true_cfg_scale=4.0, num_inference_steps=20, height=args.size, width=args.size,
                                  generator=torch.Generator("cpu").manual_seed(seed)).images[0])
        found = {"sample.py": draw(models, [prompt], seed=seed)[0]}
        if args.inkstone:
            with tempfile.TemporaryDirectory() as out:
                subprocess.run([args.inkstone, "generate", prompt, "-m", args.model, "--seed", str(seed), "--steps", "20", "--true-cfg-scale", "4", "--negative-prompt", " ",
                                "--size", f"{args.size}x{args.size}", "-o", f"{out}/picture.png", "--quiet"], check=True, stdout=subprocess.DEVNULL)
                found["inkstone"] = np.array(Image.open(f"{out}/picture.png").convert("RGB"))
        for name, picture in found.items():
            db = psnr(picture, reference)
            print(f"{prompt}, seed {seed}: {name} against diffusers {db:.1f} dB")
            assert db >= LEAST_DB, (prompt, name)


if __name__ == "__main__":
    main()
