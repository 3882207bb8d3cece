"""A confusion matrix -> an SVG picture: one row a true class, shaded and labelled with where its pixels went."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np

from ..evaluation.metrics import Matrix


def draw_confusion(matrix: Matrix, names: Sequence[str], title: str) -> str:
    """A matrix of pixel counts (rows: true, columns: predicted) -> SVG text; each row is in percent of its true pixels."""
    total = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    count = len(names)
    cell = 40 if count <= 20 else 8
    left = 20 + 7 * max(len(name) for name in names)
    top = left + 24
    width, height = left + cell * count + 20, top + cell * count + 20
    font = f'font-family="sans-serif" font-size="{12 if cell == 40 else 7}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {font}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="18" font-size="14">{escape(title)}</text>',
    ]
    for row, name in enumerate(names):
        middle = cell * row + cell / 2
        parts.append(f'<text x="{left - 6}" y="{top + middle + 3:.0f}" text-anchor="end">{escape(name)}</text>')
        across, up = left + middle + 3, top - 6
        parts.append(f'<text x="{across:.0f}" y="{up}" transform="rotate(-90 {across:.0f} {up})">{escape(name)}</text>')
        parts += [_cell(left + cell * column, top + cell * row, cell, float(shares[row, column])) for column in range(count)]
    return "\n".join([*parts, "</svg>\n"])


def _cell(x: int, y: int, size: int, share: float) -> str:
    """One square, from white to dark blue; its percentage stands in it where there is room and something to say."""
    red, green, blue = (round(255 + (dark - 255) * share**0.5) for dark in (8, 48, 107))
    square = f'<rect x="{x}" y="{y}" width="{size}" height="{size}" fill="rgb({red},{green},{blue})" stroke="#eee"/>'
    if size < 40 or share < 0.005:
        return square
    colour = "white" if share > 0.35 else "black"
    return square + f'<text x="{x + size // 2}" y="{y + size // 2 + 4}" text-anchor="middle" fill="{colour}">{100 * share:.0f}</text>'
