#!/usr/bin/env python3
"""diffusers and Inkstone side by side on the embedded model: pictures into docs/pictures/parity_N.png, the table of docs/parity.md on stdout.

  side_by_side.py ../../target/release/inkstone

Left: the pictures of the fixture embedded_t2i (diffusers in float32). Right: what the binary draws with the same requests, in f32 and in bf16.
"""
import argparse, json, math, os, subprocess, tempfile
import numpy as np
from PIL import Image
from safetensors import safe_open

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
SHOWN_PX, GAP_PX = 256, 8


def draw(binary, about, case, dtype, folder):
    path = f"{folder}/{dtype}.png"
    subprocess.run([binary, "generate", case["prompt"], "--model", f"{ROOT}/{about['model']}", "--negative-prompt", about["negative_prompt"], "--true-cfg-scale", str(about["true_cfg_scale"]),
                    "--steps", str(about["steps"]), "--seed", str(case["seed"]), "--size", f"{about['width']}x{about['height']}", "--dtype", dtype, "--output", path, "--overwrite", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return np.array(Image.open(path).convert("RGB"))


def psnr(a, b):
    error = ((a.astype(float) - b.astype(float)) ** 2).mean()
    return 10 * math.log10(255 ** 2 / error) if error else math.inf


def beside(left, right):
    grow = lambda a: Image.fromarray(a).resize((SHOWN_PX, SHOWN_PX), Image.NEAREST)
    out = Image.new("RGB", (2 * SHOWN_PX + GAP_PX, SHOWN_PX), "white")
    out.paste(grow(left), (0, 0))
    out.paste(grow(right), (SHOWN_PX + GAP_PX, 0))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary")
    a = p.parse_args()
    with safe_open(f"{ROOT}/golden/data/embedded_t2i.safetensors", "np") as f, tempfile.TemporaryDirectory() as folder:
        about = json.loads(f.metadata()["about"])
        print("| prompt | seed | | PSNR, f32 | PSNR, bf16 |\n|---|---|---|---|---|")
        for i, case in enumerate(about["cases"]):
            reference = f.get_tensor(f"image_u8.{i}")
            ours = {t: draw(a.binary, about, case, t, folder) for t in ("f32", "bf16")}
            beside(reference, ours["bf16"]).save(f"{ROOT}/docs/pictures/parity_{i}.png")
            db = {t: "the same bytes" if psnr(x, reference) == math.inf else f"{psnr(x, reference):.1f} dB" for t, x in ours.items()}
            print(f"| {case['prompt']} | {case['seed']} | ![left diffusers, right Inkstone](pictures/parity_{i}.png) | {db['f32']} | {db['bf16']} |")


if __name__ == "__main__":
    main()
