"""Scores prompt following without a person: is the drawing nearest to each picture one of the concept that was asked for, and is the background the colour that was asked for?

    python score.py --data data/emoji256.npz --names concepts.txt --model ../models/tiny --size 128 --sheet sheet.png
    python score.py --data data/emoji256.npz --names concepts.txt --list prompts.txt        # for another program: one line of id, seed, prompt
    python score.py --data data/emoji256.npz --names concepts.txt --pictures FOLDER         # which has drawn them as FOLDER/id.png

A picture's features are its pixels at 24 x 24 with the background (the median of its border) taken away; near is small squared distance,
the least over the styles and a few scales of every drawing of the list. Of a pair, each half is looked at by itself, and both must be right; of a count, the
nearest of every drawing once, twice, three and four times. A background is right when the named colour nearest to the border's median is the one asked for.
"""
import argparse
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import captions
from drawings import Drawings, place
from scenes import GRIDS, HALF, PLACES

FEATURE_PX = 24
DRAWING_PX = 64
SCALES = (0.8, 0.85, 0.9, 0.95, 1.0)
PROMPTS = {"one": 200, "beside": 40, "above": 20, "count": 60}
SEEDS, SHEET_PICTURES = 2, 64
SHARE_WITH_COLOR = 0.5


@dataclass
class Question:
    id: str
    seed: int
    prompt: str
    kind: str           # of scenes.Scene
    names: list         # English names of the drawings that must be found, in their order
    background: str


def questions(rows):
    """The list never changes for one set of names and captions."""
    order = sorted(rows, key=lambda row: row["hex"])
    return [q for kind, count in PROMPTS.items() for q in of_kind(kind, count, order)]


def of_kind(kind, count, order):
    rng, out = random.Random(1), []
    for k in range(count):
        color = rng.choice([c for c in captions.BACKGROUNDS if c != "white"]) if rng.random() < SHARE_WITH_COLOR else None
        if kind == "one":
            rows = [order[k % len(order)]]
            text = captions.one(rows[0], color, rng)
        elif kind == "count":
            rows = [rng.choice(order)] * rng.choice(list(GRIDS))
            text = captions.count(rows[0], len(rows), color, rng)
        else:
            rows = rng.sample(order, 2)
            text = captions.pair(*rows, kind == "above", color, rng)
        out += [Question(f"{kind}_{k:03d}_{seed}", seed, text, kind, [row["en"] for row in rows], color or "white") for seed in range(SEEDS)]
    return out


def border_color(x):
    """Median of the outermost sixteenth, [n, 3]."""
    w = max(1, x.shape[-1] // 16)
    edge = torch.cat([x[..., :w, :].flatten(2), x[..., -w:, :].flatten(2), x[..., :w].flatten(2), x[..., -w:].flatten(2)], 2)
    return edge.median(2).values


def features(x):
    """[n, 3, h, w] in [0, 1], the background already at zero."""
    return F.interpolate(x, (FEATURE_PX, FEATURE_PX), mode="area").flatten(1)


def nearest(pictures, rgba, scales):
    """Index of the drawing nearest to each picture. Each drawing is put on the picture's own background colour before both lose it."""
    color = border_color(pictures)[:, :, None, None]
    seen = features(pictures - color)
    best, which = torch.full((len(pictures),), float("inf")), torch.zeros(len(pictures), dtype=torch.long)
    for scale in scales:
        scaled = place(rgba, torch.full((len(rgba),), scale), torch.zeros(len(rgba), 2), DRAWING_PX)
        ink, cover = features(scaled[:, :3]), features(scaled[:, 3:].expand(-1, 3, -1, -1))
        for k in range(len(pictures)):
            on = color[k].flatten()[:, None].expand(3, FEATURE_PX ** 2).flatten()
            distance = (ink - cover * on - seen[k]).square().sum(1)
            d, at = distance.min(0)
            if d < best[k]:
                best[k], which[k] = d, at
    return which.tolist()


def crops(pictures, places):
    """The square around each place of a drawing of half the picture's size."""
    side = pictures.shape[-1]
    corner = lambda c: round((c + 0.5) * side / 2)
    return [pictures[..., corner(y):corner(y) + side // 2, corner(x):corner(x) + side // 2] for x, y in places]


def in_a_grid(rgba, number):
    """Every drawing `number` times in one picture, premultiplied RGBA."""
    out = torch.zeros(len(rgba), 4, DRAWING_PX, DRAWING_PX)
    for at in GRIDS[number]:
        out += place(rgba, torch.full((len(rgba),), HALF), torch.tensor([at]).float().expand(len(rgba), 2), DRAWING_PX)
    return out


def found(pictures, kind, drawings):
    """English names of what each picture shows, as in Question.names."""
    names = [row["en"] for row in drawings.rows]
    if kind == "one":
        return [[names[i]] for i in nearest(pictures, drawings.rgba, SCALES)]
    if kind == "count":
        numbers = [1, *GRIDS]
        every = torch.cat([drawings.rgba, *(in_a_grid(drawings.rgba, n) for n in GRIDS)])
        return [[names[i % len(names)]] * numbers[i // len(names)] for i in nearest(pictures, every, [1.0])]
    halves = [nearest(crop, drawings.rgba, SCALES) for crop in crops(pictures, PLACES[kind])]
    return [[names[i] for i in both] for both in zip(*halves)]


def report(pictures, asked, drawings):
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    seen = [None] * len(asked)
    for kind in PROMPTS:
        of = [k for k, q in enumerate(asked) if q.kind == kind]
        for k, names in zip(of, found(x[of], kind, drawings)):
            seen[k] = names
    names = list(captions.BACKGROUNDS)
    palette = torch.tensor([captions.BACKGROUNDS[n][1] for n in names]).float() / 255
    border = border_color(x)
    shown = [names[i] for i in torch.cdist(border, palette).argmin(1)]
    wanted = palette[[names.index(q.background) for q in asked]]
    right = [s == q.names for s, q in zip(seen, asked)]
    color = [s == q.background for s, q in zip(shown, asked)]
    share = lambda hits, of: 100 * sum(h for h, q in zip(hits, asked) if of(q)) / max(1, sum(map(of, asked)))
    one, colored, english = (lambda q: q.kind == "one"), (lambda q: q.background != "white"), (lambda q: q.prompt.isascii())
    print(f"one drawing right: {share(right, one):.1f} % (on white {share(right, lambda q: one(q) and not colored(q)):.1f} %, on a colour {share(right, lambda q: one(q) and colored(q)):.1f} %; "
          f"English {share(right, lambda q: one(q) and english(q)):.1f} %, Chinese {share(right, lambda q: one(q) and not english(q)):.1f} %)")
    print(f"both of a pair right: {share(right, lambda q: q.kind in PLACES):.1f} %; count right: {share(right, lambda q: q.kind == 'count'):.1f} %, "
          f"its number alone {share([len(s) == len(q.names) for s, q in zip(seen, asked)], lambda q: q.kind == 'count'):.1f} %")
    print(f"background right: {share(color, lambda q: True):.1f} % (on a colour {share(color, colored):.1f} %), mean error {255 * (border - wanted).abs().mean():.1f} of 255")
    print("taken for another:", "; ".join(f"{q.prompt}: {len(s)} {', '.join(dict.fromkeys(s))}" for q, s, ok in zip(asked, seen, right) if not ok))


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
    drawings = Drawings(args.data, DRAWING_PX, args.styles.split(","), names)
    asked = questions([r for r in drawings.rows if r["style"] == "noto"])
    if args.list:
        with open(args.list, "w") as f:
            f.writelines(f"{q.id}\t{q.seed}\t{q.prompt}\n" for q in asked)
        return
    if args.pictures:
        pictures = np.stack([np.array(Image.open(f"{args.pictures}/{q.id}.png").convert("RGB")) for q in asked])
    else:
        import folder
        from layout import use_single_frame_convs
        from sample import draw
        models = folder.read(args.model, args.size)
        use_single_frame_convs()
        by_seed = {seed: draw_in_parts(draw, models, [q.prompt for q in asked if q.seed == seed], seed) for seed in range(SEEDS)}
        pictures = np.stack([by_seed[q.seed][k // SEEDS] for k, q in enumerate(asked)])
    report(pictures, asked, drawings)
    if args.sheet:
        from sample import sheet
        stride = SEEDS * sum(PROMPTS.values()) // SHEET_PICTURES
        sheet(pictures[::stride][:SHEET_PICTURES], 8, args.sheet)
        print("sheet:", "; ".join(q.prompt for q in asked[::stride][:SHEET_PICTURES]))


def draw_in_parts(draw, models, prompts, seed):
    return np.concatenate([draw(models, prompts[s:s + 25], seed=1000 * seed + s) for s in range(0, len(prompts), 25)])


if __name__ == "__main__":
    main()
