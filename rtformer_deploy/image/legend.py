"""A legend on an overlay: the colour and the name of each class that the picture shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..types import Frame, LabelMap
from .areas import class_areas

_BACKGROUND, _TEXT = (16, 16, 16, 200), (255, 255, 255, 255)
_LEAST_SHARE = 0.001  # a class with less of the frame than this has no line


def draw_legend(frame: Frame, labels: LabelMap, names: Sequence[str], palette: Sequence[Sequence[int]]) -> Frame:
    """An overlay and its label map (H, W) -> a copy with a legend in the lower left corner: the classes seen, the largest first.

    The text is a fortieth of the frame's height, at least 10 pixels; lines that do not fit are left out from the end.
    """
    seen = [area for area in class_areas(labels, names) if area.share >= _LEAST_SHARE]
    seen.sort(key=lambda area: -area.pixels)
    size = max(10, frame.shape[0] // 40)
    font, line, margin = ImageFont.load_default(size), round(size * 1.5), size // 2
    seen = seen[: max(0, (frame.shape[0] - 2 * margin) // line - 1)]
    if not seen:
        return frame.copy()
    picture = Image.fromarray(frame).convert("RGBA")
    panel = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    width = line + margin + max(round(draw.textlength(area.name, font)) for area in seen)
    left, top = margin, frame.shape[0] - margin - line * len(seen)
    draw.rectangle((left - margin // 2, top - margin // 2, left + width + margin // 2, frame.shape[0] - margin // 2), _BACKGROUND)
    for row, area in enumerate(seen):
        y = top + row * line
        draw.rectangle((left, y + line // 6, left + size, y + line // 6 + size), (*map(int, palette[area.index]), 255))
        draw.text((left + line, y + line // 2), area.name, _TEXT, font, anchor="lm")
    return np.asarray(Image.alpha_composite(picture, panel).convert("RGB"))
