"""A frame for measurements if the user gives none: the bundled photograph, or a drawn street."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..content import content_dir
from ..types import Frame
from .frames import load_image

#: The photograph in models/samples/ that everything is tried on.
PHOTOGRAPH = "street.jpg"
#: Of a picture's colours; a smaller std is a scale.
_LEAST_SPREAD = 0.02


def sample_photograph() -> Path | None:
    """The photograph that comes with the project; None if this copy has none."""
    path = content_dir("models") / "samples" / PHOTOGRAPH
    return path if os.path.isfile(path) else None


def sample_frame(size: tuple[int, int]) -> Frame:
    """A frame (H, W, 3) of this (H, W): the bundled photograph resized, or the drawn street if this copy has none."""
    photograph = sample_photograph()
    if photograph is None:
        return drawn_street(size)
    frame = cv2.resize(load_image(photograph), size[::-1], interpolation=cv2.INTER_AREA)
    return frame.astype(np.uint8, copy=False)


def sample_source() -> str:
    """What `sample_frame` returns, in words."""
    photograph = sample_photograph()
    return "drawn street" if photograph is None else f"bundled {photograph.name}, resized"


def noise(size: tuple[int, int], mean: Sequence[float], std: Sequence[float], seed: int = 0) -> Frame:
    """White noise with the mean and spread of RGB, from 0 to 1, that a model expects: (H, W, 3), the same for the same arguments.

    A `std` as small as 1/255 is no spread, but makes bytes of the numbers; noise with it would be black.
    """
    if max(std) < _LEAST_SPREAD:
        mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    values = np.random.default_rng(seed).standard_normal((*size, 3), np.float32) * np.array(std) + np.array(mean)
    frame: Frame = (255 * values).round().clip(0, 255).astype(np.uint8)
    return frame


def drawn_street(size: tuple[int, int], seed: int = 0) -> Frame:
    """A street drawn from plain shapes with a little noise: (H, W, 3) RGB, the same for the same size and seed.

    It has large even regions, as photographs have. On noise nearly every pixel changes class, and post-processing would look slow.
    """
    height, width = size
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    frame = np.empty((height, width, 3), np.float32)
    frame[:] = np.array([120, 160, 210]) + 60.0 * (rows / height)[..., None]  # sky, lighter towards the horizon
    horizon = int(height * 0.45)
    left = 0
    while left < width:  # a row of houses
        right = left + max(1, int(width * draw.uniform(0.08, 0.2)))
        roof = int(height * draw.uniform(0.1, 0.35))
        frame[roof:horizon, left:right] = draw.uniform(70, 190, 3)
        left = right
    frame[horizon:] = (110, 105, 100)  # pavement
    road = np.abs(columns - width / 2) < (rows - horizon * 0.9) * (width / height) * 0.9
    frame[road & (rows >= horizon)] = (75, 75, 80)
    for _ in range(6):  # vehicles, larger the nearer they are
        nearness = draw.uniform(0.1, 0.5)
        tall, wide = max(1, int(height * nearness * 0.4)), max(1, int(width * nearness * 0.25))
        bottom = int(horizon + (height - horizon) * nearness) + 1
        start = int(draw.uniform(0, max(1, width - wide)))
        frame[max(0, bottom - tall) : bottom, start : start + wide] = draw.uniform(20, 230, 3)
    frame += draw.normal(0, 4, frame.shape)
    return frame.clip(0, 255).astype(np.uint8)
