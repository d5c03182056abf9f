#!/usr/bin/env python3
"""Draws rows of peers/compare.py as bars: plot.py ROWS.jsonl OUT.svg. A bar is the peer's time, ours being 1."""

import json
import sys
from pathlib import Path
from xml.sax.saxutils import escape

BAR, GAP, LEFT, WIDTH = 16, 12, 190, 420
COLOURS = {"ours": "#1f6f5c", "torch": "#c8643c", "sd.cpp": "#6b6f8e"}


def main(source, target):
    cases = {}
    for row in map(json.loads, Path(source).read_text().splitlines()):
        cases.setdefault(row["case"], []).append(row)
    longest = max(row["ratio"] for rows in cases.values() for row in rows)
    shapes, y = [], 24
    for case, rows in cases.items():
        shapes.append(f'<text x="{LEFT - 10}" y="{y + 12}" text-anchor="end">{escape(case)}</text>')
        for row in rows:
            length = row["ratio"] / longest * WIDTH
            colour = COLOURS[row["who"].split()[0]]
            label = f'{row["who"]}  {row["ratio"]:.2f}  ({row["seconds"] * 1e3:.0f} ms)'
            shapes.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 3}" fill="{colour}"/>')
            shapes.append(f'<text x="{LEFT + length + 6:.1f}" y="{y + 11}">{escape(label)}</text>')
            y += BAR
        y += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 190}" height="{y}" font-family="sans-serif"'
    title = '<text x="10" y="14">Time of a case, the faster of our types being 1: shorter is better</text>'
    ground = f'<rect width="{LEFT + WIDTH + 190}" height="{y}" fill="#ffffff"/>'
    Path(target).write_text("\n".join([head + ' font-size="11">', ground, title, *shapes, "</svg>"]) + "\n")


main(*sys.argv[1:])
