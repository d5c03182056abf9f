"""The README's strip: eight prompts drawn by the binary with its embedded model, side by side, and the commands.

    python strip.py ../target/release/inkstone ../docs/pictures/strip.png [--model ../models/tiny]
"""
import argparse
import subprocess
import tempfile

from PIL import Image

PROMPTS = [("red apple", 1), ("熊猫", 1), ("a car on a yellow background", 1), ("三个星星，深蓝色背景", 1), ("a dinosaur", 1), ("a sun above a house", 1), ("雪人，浅蓝色背景", 1), ("two roses", 1)]
SHOWN_PX = 128


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary")
    p.add_argument("out")
    p.add_argument("--model", help="folder instead of the embedded model")
    args = p.parse_args()
    strip = Image.new("RGB", (SHOWN_PX * len(PROMPTS), SHOWN_PX), "white")
    with tempfile.TemporaryDirectory() as folder:
        for k, (prompt, seed) in enumerate(PROMPTS):
            subprocess.run([args.binary, prompt, "--seed", str(seed), "--output", f"{folder}/{k}.png", "--quiet", *(["--model", args.model] if args.model else [])], check=True, stdout=subprocess.DEVNULL)
            picture = Image.open(f"{folder}/{k}.png").convert("RGB")
            strip.paste(picture.resize((SHOWN_PX, SHOWN_PX), Image.BICUBIC), (k * SHOWN_PX, 0))
            print(f'inkstone "{prompt}" --seed {seed}')
    strip.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
