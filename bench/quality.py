"""Compares pictures of the embedded model in each format with those in f32: every drawing that it knows, some of them on a
colour, in pairs and two to four times.

    cargo build --release && python3 bench/quality.py [--dtype bf16] [FORMAT...]

Needs numpy and Pillow. FORMAT is what -q takes, or `stored` for none; --dtype is that of the activations beside it.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
INKSTONE = ROOT / "target/release/inkstone"
sys.path.insert(0, str(ROOT / "training"))
import captions  # noqa: E402

OTHERS = 60  # prompts of the other kinds
WORST = 3


def prompts():
    """Prompts by kind: no choice by hand, drawings and colours in turns."""
    names = (ROOT / "training/concepts.txt").read_text().splitlines()
    colors, numbers = list(captions.BACKGROUNDS), [english for english, _ in captions.NUMBERS.values()]
    some = [names[i * len(names) // OTHERS] for i in range(OTHERS)]
    next_to = [names[(i * len(names) // OTHERS + 1) % len(names)] for i in range(OTHERS)]
    return {
        "alone": names,
        "on a colour": [captions.with_article(f"a {n} on a {colors[i % len(colors)]} background") for i, n in enumerate(some)],
        "in pairs": [captions.with_article(f"a {a} and a {b}") for a, b in zip(some, next_to)],
        "counted": [f"{numbers[i % len(numbers)]} {captions.plural(n)}" for i, n in enumerate(some)],
    }


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
    for kind, texts in prompts().items():
        report(kind, measure(texts, args.formats, args.dtype))


def measure(texts, formats, dtype):
    """By format, decibels and prompt of each."""
    found = {name: [] for name in formats}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "picture.png"
        for seed, prompt in enumerate(texts):
            want = draw(prompt, seed, ["--dtype", "f32"], path)
            for name, values in found.items():
                flags = [] if name == "stored" else ["-q", name]
                values.append((psnr_db(draw(prompt, seed, ["--dtype", dtype, *flags], path), want), prompt))
    return found


def report(kind, found):
    for name, values in found.items():
        decibels = [value for value, _ in values]
        worst = ", ".join(f"{prompt} {value:.1f}" for value, prompt in sorted(values)[:WORST])
        low, middle = np.percentile(decibels, [5, 50])
        print(f"{kind:12} {name:7} median {middle:.1f} dB, 5 % below {low:.1f}; worst of {len(values)}: {worst}", flush=True)


if __name__ == "__main__":
    main()
