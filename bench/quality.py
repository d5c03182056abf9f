"""Compares pictures of the embedded model in each format with those in f32, a prompt for every drawing that it knows.

    cargo build --release && python3 bench/quality.py [--dtype bf16] [FORMAT...]

Needs numpy and Pillow. FORMAT is what -q takes, or `stored` for none; --dtype is that of the activations beside it.
"""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
INKSTONE = ROOT / "target/release/inkstone"
WORST = 3


def draw(prompt, seed, flags, path):
    fixed = ["--model", "tiny", "--seed", str(seed), "--output", path, "--overwrite", "--metadata", "none", "--no-config", "-Q"]
    subprocess.run([INKSTONE, "generate", prompt, *fixed, *flags], check=True, stdout=subprocess.DEVNULL)
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)


def psnr_db(a, b):
    error = np.mean((a - b) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("formats", nargs="*", default=["stored", "int8", "q8", "q4"])
    arguments.add_argument("--dtype", default="bf16")
    args = arguments.parse_args()
    prompts = (ROOT / "training/concepts.txt").read_text().splitlines()
    found = {name: [] for name in args.formats}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "picture.png"
        for seed, prompt in enumerate(prompts):
            want = draw(prompt, seed, ["--dtype", "f32"], path)
            for name, values in found.items():
                flags = [] if name == "stored" else ["-q", name]
                values.append((psnr_db(draw(prompt, seed, ["--dtype", args.dtype, *flags], path), want), prompt))
    for name, values in found.items():
        decibels = [value for value, _ in values]
        worst = ", ".join(f"{prompt} {value:.1f}" for value, prompt in sorted(values)[:WORST])
        low, middle = np.percentile(decibels, [5, 50])
        print(f"{name:7} {args.dtype}: median {middle:.1f} dB, 5 % below {low:.1f}; worst of {len(values)}: {worst}")


if __name__ == "__main__":
    main()
