"""Scores prompt following without a person: is the drawing nearest to each picture one of the concept that was asked for, and is the background the colour that was asked for?

    python score.py --data data/emoji256.npz --names concepts100.txt --model ../models/tiny --size 128 --sheet sheet.png
    python score.py --data data/emoji256.npz --names concepts100.txt --list prompts.txt        # for another program: one line of id, seed, prompt
    python score.py --data data/emoji256.npz --names concepts100.txt --pictures FOLDER         # which has drawn them as FOLDER/id.png

A picture's features are its pixels at 24 x 24 with the background (the median of its border) taken away; near is small squared distance,
the least over the styles and a few scales of every drawing of the list. A background is right when the named colour nearest to the border's median is the one asked for.
"""
import argparse
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import captions
from drawings import Drawings, place

FEATURE_PX = 24
SCALES = (0.8, 0.85, 0.9, 0.95, 1.0)
PROMPTS, SEEDS, SHEET_PICTURES = 200, 2, 64
SHARE_WITH_COLOR = 0.5


def questions(rows):
    """(id, seed, prompt, English name, background). The list never changes for one set of names."""
    rng = random.Random(1)
    order = sorted(rows, key=lambda row: row["hex"])
    out = []
    for k in range(PROMPTS):
        row = order[k % len(order)]
        color = rng.choice([c for c in captions.BACKGROUNDS if c != "white"]) if rng.random() < SHARE_WITH_COLOR else None
        text = captions.one(row, color, rng)
        out += [(f"{k:03d}_{seed}", seed, text, row["en"], color or "white") for seed in range(SEEDS)]
    return out


def border_color(x):
    """Median of the outermost sixteenth, [n, 3]."""
    w = max(1, x.shape[-1] // 16)
    edge = torch.cat([x[..., :w, :].flatten(2), x[..., -w:, :].flatten(2), x[..., :w].flatten(2), x[..., -w:].flatten(2)], 2)
    return edge.median(2).values


def features(x):
    """[n, 3, h, w] in [0, 1], the background already at zero."""
    return F.interpolate(x, (FEATURE_PX, FEATURE_PX), mode="area").flatten(1)


def nearest(pictures, drawings):
    """Index of the drawing nearest to each picture. Each drawing is put on the picture's own background colour before both lose it."""
    color = border_color(pictures)[:, :, None, None]
    seen = features(pictures - color)
    best, which = torch.full((len(pictures),), float("inf")), torch.zeros(len(pictures), dtype=torch.long)
    for scale in SCALES:
        rgba = place(drawings.rgba, torch.full((len(drawings),), scale), torch.zeros(len(drawings), 2), 64)
        ink, cover = features(rgba[:, :3]), features(rgba[:, 3:].expand(-1, 3, -1, -1))
        for k in range(len(pictures)):
            on = color[k].flatten()[:, None].expand(3, FEATURE_PX ** 2).flatten()
            distance = (ink - cover * on - seen[k]).square().sum(1)
            d, at = distance.min(0)
            if d < best[k]:
                best[k], which[k] = d, at
    return which


def report(pictures, asked, drawings):
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    found = [drawings.rows[i]["en"] for i in nearest(x, drawings)]
    names = list(captions.BACKGROUNDS)
    palette = torch.tensor([captions.BACKGROUNDS[n][1] for n in names]).float() / 255
    border = border_color(x)
    shown = [names[i] for i in torch.cdist(border, palette).argmin(1)]
    wanted = palette[[names.index(q[4]) for q in asked]]
    plain = [q[4] == "white" for q in asked]
    concept = [f == q[3] for f, q in zip(found, asked)]
    color = [s == q[4] for s, q in zip(shown, asked)]
    share = lambda hits, of: 100 * sum(h for h, o in zip(hits, of) if o) / max(1, sum(of))
    every, colored = [True] * len(asked), [not p for p in plain]
    print(f"concept right: {share(concept, every):.1f} % of {len(asked)} (on white {share(concept, plain):.1f} %, on a colour {share(concept, colored):.1f} %)")
    print(f"background right: {share(color, every):.1f} % (on a colour {share(color, colored):.1f} %), mean error {255 * (border - wanted).abs().mean():.1f} of 255")
    chinese = [not q[2].isascii() for q in asked]
    print(f"concept right in Chinese: {share(concept, chinese):.1f} %, in English: {share(concept, [not c for c in chinese]):.1f} %")
    wrong = [f"{q[2]}: {f}" for q, f, ok in zip(asked, found, concept) if not ok]
    print("taken for another:", "; ".join(wrong[:40]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--names", help="file with the English names the model claims; all without it")
    p.add_argument("--styles", default="noto,fluent-emoji-flat", help="styles whose drawings count as the concept")
    p.add_argument("--model", help="diffusers folder, drawn with the fast forwards")
    p.add_argument("--size", type=int)
    p.add_argument("--list")
    p.add_argument("--pictures")
    p.add_argument("--sheet")
    args = p.parse_args()
    torch.set_num_threads(1)
    names = set(open(args.names).read().split("\n")) if args.names else None
    drawings = Drawings(args.data, 64, args.styles.split(","), names)
    asked = questions([r for r in drawings.rows if r["style"] == "noto"])
    if args.list:
        with open(args.list, "w") as f:
            f.writelines(f"{q[0]}\t{q[1]}\t{q[2]}\n" for q in asked)
        return
    if args.pictures:
        pictures = np.stack([np.array(Image.open(f"{args.pictures}/{q[0]}.png").convert("RGB")) for q in asked])
    else:
        import folder
        from layout import use_single_frame_convs
        from sample import draw
        models = folder.read(args.model, args.size)
        use_single_frame_convs()
        by_seed = {seed: draw_in_parts(draw, models, [q[2] for q in asked if q[1] == seed], seed) for seed in range(SEEDS)}
        pictures = np.stack([by_seed[q[1]][k // SEEDS] for k, q in enumerate(asked)])
    report(pictures, asked, drawings)
    if args.sheet:
        from sample import sheet
        sheet(pictures[::SEEDS][:SHEET_PICTURES], 8, args.sheet)
        print("sheet:", "; ".join(q[2] for q in asked[::SEEDS][:SHEET_PICTURES]))


def draw_in_parts(draw, models, prompts, seed):
    return np.concatenate([draw(models, prompts[s:s + 25], seed=1000 * seed + s) for s in range(0, len(prompts), 25)])


if __name__ == "__main__":
    main()
