"""Compares pictures of the embedded model in each format with those in f32, in decibels and structural similarity: every drawing that it knows, some of them on a
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


WINDOW, DEVIATION = 11, 1.5


def blurred(plane):
    """Weighted means over the window, at all places where it lies in the picture."""
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * DEVIATION**2))
    weights /= weights.sum()
    for axis in (0, 1):
        plane = np.lib.stride_tricks.sliding_window_view(plane, WINDOW, axis) @ weights
    return plane


def ssim(a, b):
    """Structural similarity as the tests define it (Wang et al. 2004): mean over all windows and the three colours."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    colors = []
    for x, y in zip(np.moveaxis(a, 2, 0), np.moveaxis(b, 2, 0)):
        mx, my = blurred(x), blurred(y)
        vx, vy, cov = blurred(x * x) - mx * mx, blurred(y * y) - my * my, blurred(x * y) - mx * my
        colors.append(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))))
    return np.mean(colors)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("formats", nargs="*", default=["stored", "int8", "q8", "q4"])
    arguments.add_argument("--dtype", default="bf16")
    args = arguments.parse_args()
    for kind, texts in prompts().items():
        report(kind, measure(texts, args.formats, args.dtype))


def measure(texts, formats, dtype):
    """By format, decibels, structural similarity and prompt of each."""
    found = {name: [] for name in formats}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "picture.png"
        for seed, prompt in enumerate(texts):
            want = draw(prompt, seed, ["--dtype", "f32"], path)
            for name, values in found.items():
                flags = [] if name == "stored" else ["-q", name]
                have = draw(prompt, seed, ["--dtype", dtype, *flags], path)
                values.append((psnr_db(have, want), ssim(have, want), prompt))
    return found


def report(kind, found):
    for name, values in found.items():
        for measure, digits in enumerate([1, 4]):
            of = sorted((value[measure], value[2]) for value in values)
            worst = ", ".join(f"{prompt} {value:.{digits}f}" for value, prompt in of[:WORST])
            low, middle = np.percentile([value for value, _ in of], [5, 50])
            unit = ["dB", "SSIM"][measure]
            print(f"{kind:12} {name:7} {unit:4} median {middle:.{digits}f}, 5 % below {low:.{digits}f}; "
                  f"worst of {len(of)}: {worst}", flush=True)


if __name__ == "__main__":
    main()
