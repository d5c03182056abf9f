"""Scenes: which drawings stand where on which background, how they are said, and their latents."""
import random
from dataclasses import dataclass

import torch

import captions
from drawings import over, place
from layout import encode, pack

SCALE_ON_WHITE, SCALE_ON_COLOR = 1.0, 0.85      # a margin of colour shows all around
HALF = 0.48      # scale of a drawing that shares the picture
PLACES = {"beside": [(-.5, 0), (.5, 0)], "above": [(0, -.5), (0, .5)]}
GRIDS = {2: [(-.5, 0), (.5, 0)], 3: [(0, -.5), (-.5, .5), (.5, .5)], 4: [(-.5, -.5), (.5, -.5), (-.5, .5), (.5, .5)]}


@dataclass
class Scene:
    kind: str                  # one, beside, above, count
    drawings: list             # indices
    places: list               # (x, y) of each, -1..1
    scale: float
    background: str
    weight: float = 1.0

    def caption(self, rows, rng):
        rows = [rows[i] for i in self.drawings]
        said = self.background if self.background != "white" or rng.random() < 0.1 else None
        if self.kind == "one":
            return captions.one(rows[0], said, rng)
        if self.kind == "count":
            return captions.count(rows[0], len(rows), said, rng)
        return captions.pair(rows[0], rows[1], self.kind == "above", said, rng)


def singles(count, background_share):
    """Every drawing on white and on every colour; `background_share` of the samples have a colour."""
    colors = [name for name in captions.BACKGROUNDS if name != "white"]
    scenes = []
    for i in range(count):
        scenes.append(Scene("one", [i], [(0, 0)], SCALE_ON_WHITE, "white", 1 - background_share))
        scenes += [Scene("one", [i], [(0, 0)], SCALE_ON_COLOR, c, background_share / len(colors)) for c in colors]
    return scenes


def groups(drawings, styles, pairs, counts, weight, rng):
    """Pairs of one style and counts of two to four; `weight` is the weight of all of them together."""
    by_style = [drawings.of_style(s) for s in styles]
    draw_background = lambda: rng.choice(["white"] * 6 + list(captions.BACKGROUNDS))
    scenes = []
    for _ in range(pairs):
        of = rng.choice(by_style)
        kind = rng.choice(["beside", "beside", "above"])
        scenes.append(Scene(kind, [rng.choice(of), rng.choice(of)], PLACES[kind], HALF, draw_background()))
    for _ in range(counts):
        number = rng.choice(list(GRIDS))
        scenes.append(Scene("count", [rng.randrange(len(drawings))] * number, GRIDS[number], HALF, draw_background()))
    for s in scenes:
        s.weight = weight / len(scenes)
    return scenes


def picture(scene, drawings):
    """[3, size, size] in [-1, 1]."""
    x = torch.tensor(captions.BACKGROUNDS[scene.background][1]).float().view(1, 3, 1, 1) / 255
    for i, at in zip(scene.drawings, scene.places):
        x = over(place(drawings.rgba[i:i + 1], torch.tensor([scene.scale]), torch.tensor([at]).float(), drawings.size_px), x)
    return x[0] * 2 - 1


@torch.no_grad()
def latents(scenes, drawings, vae, mean, std):
    """Normalised packed latents of every scene, f16."""
    parts = []
    for s in range(0, len(scenes), 32):
        x = torch.stack([picture(scene, drawings) for scene in scenes[s:s + 32]]).to(mean.device)
        parts.append(pack((encode(vae, x)[0] - mean) / std).half())
    return torch.cat(parts)


class Prompts:
    """Token ids as the text encoder gets them: the template's prefix apart, the rest right-padded."""

    def __init__(self, tokenizer, device="cpu"):
        self.tokenizer, self.device = tokenizer, device
        self.prefix = torch.tensor(tokenizer.encode(captions.PREFIX).ids, device=device)
        self.suffix = tokenizer.encode(captions.SUFFIX).ids
        self.padding = tokenizer.token_to_id("<|endoftext|>")
        assert len(self.prefix) == 34, "the reference drops 34 tokens"

    def length(self, text):
        return len(self.tokenizer.encode(text).ids) + len(self.suffix)

    def encode(self, texts, length=0):
        """(ids [n, t], mask [n, t]), t the longest of the texts or `length`."""
        rows = [e.ids + self.suffix for e in self.tokenizer.encode_batch(texts)]
        longest = max(length, *map(len, rows))
        ids = torch.tensor([r + [self.padding] * (longest - len(r)) for r in rows])
        mask = torch.arange(longest)[None] < torch.tensor([len(r) for r in rows])[:, None]
        return ids.to(self.device), mask.to(self.device)
