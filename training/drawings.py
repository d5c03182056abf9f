"""The drawings and how they are put into a picture. Everything here works on premultiplied RGBA in [0, 1]."""
import json

import numpy as np
import torch
import torch.nn.functional as F

STYLES = ("noto", "fluent-emoji-flat")


class Drawings:
    """RGBA drawings at one size, with the rows of the json next to the npz (style, group, English and Chinese name)."""

    def __init__(self, npz, size_px, styles=STYLES, names=None):
        rows = json.load(open(npz.replace(".npz", ".json")))
        keep = [i for i, row in enumerate(rows) if row["style"] in styles and (names is None or row["en"] in names)]
        self.rows = [rows[i] for i in keep]
        self.size_px = size_px
        pixels = np.load(npz)["rgba"]
        self.rgba = torch.cat([shrink(pixels[keep[s:s + 256]], size_px) for s in range(0, len(keep), 256)])

    def __len__(self):
        return len(self.rows)

    def of_style(self, style):
        return [i for i, row in enumerate(self.rows) if row["style"] == style]


def shrink(rgba_u8, size_px):
    """[n, s, s, 4] bytes to premultiplied [n, 4, size, size] floats."""
    x = torch.from_numpy(rgba_u8).permute(0, 3, 1, 2).float() / 255
    x[:, :3] *= x[:, 3:]
    return x if x.shape[-1] == size_px else F.interpolate(x, (size_px, size_px), mode="area")


def place(rgba, scale, center, out_px):
    """Draws each [n, 4, s, s] picture at its scale (1 = fills the frame) and centre (-1..1 in x and y) on an empty frame."""
    theta = torch.zeros(len(rgba), 2, 3, device=rgba.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = -center / scale[:, None]
    grid = F.affine_grid(theta, (len(rgba), 4, out_px, out_px), align_corners=False)
    return F.grid_sample(rgba, grid, mode="bilinear", align_corners=False)


def over(rgba, background):
    """Composites on a background, both in [0, 1]."""
    return rgba[:, :3] + background * (1 - rgba[:, 3:])
