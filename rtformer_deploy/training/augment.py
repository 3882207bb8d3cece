"""A labelled frame -> a random view of it: one affine warp (scale, aspect, crop, flip) and one colour change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..types import IMAGENET_MEAN, Frame, LabelMap

#: What surrounds an image that is smaller than its crop: the mean colour, so that it is near zero once normalised.
BORDER = tuple(round(value * 255) for value in IMAGENET_MEAN)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strong the random changes are.

    `scale` is the range of the zoom (log-uniform), `aspect` the largest relative stretch of one axis, `colour` the strength of
    brightness, contrast, saturation, tint and gamma changes (0: none). At a zoom of 1 a view shows a frame at `frame_scale` of its size;
    `corners`: frames are resized from corner to corner. Both are a recipe's `scale` and `resize_corners`.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    aspect: float = 0.1
    flip: bool = True
    colour: float = 0.4
    frame_scale: float = 1.0
    corners: bool = False


def random_view(
    frame: Frame,
    label: LabelMap,
    size: tuple[int, int],
    options: Augmentation,
    ignore: int,
    rng: np.random.Generator,
    around: tuple[int, int] | None = None,
) -> tuple[Frame, LabelMap]:
    """A frame and its label -> a view of `size` (H, W) of both; what lies outside the frame gets BORDER and `ignore`.

    `around` is a pixel (y, x) that the view must hold.
    """
    matrix = _warp(frame.shape[:2], size, options, rng, around)
    height, width = size
    view = np.asarray(cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=BORDER), np.uint8)
    ids = np.asarray(cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=ignore), np.uint8)
    if options.colour:
        view = _recolour(view, options.colour, rng)
    return view, ids


def _warp(
    shape: tuple[int, ...], size: tuple[int, int], options: Augmentation, rng: np.random.Generator, around: tuple[int, int] | None
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The 2x3 matrix from frame to view pixels; pixel centres lie at halves, or with `corners` at whole numbers."""
    half = 0.0 if options.corners else 0.5
    zoom = options.frame_scale * math.exp(rng.uniform(math.log(options.scale[0]), math.log(options.scale[1])))
    stretch = math.exp(rng.uniform(-1, 1) * math.log1p(options.aspect))
    matrix = np.zeros((2, 3))
    for axis, factor in ((0, zoom * math.sqrt(stretch)), (1, zoom / math.sqrt(stretch))):
        side, length = shape[1 - axis], size[1 - axis]  # axis 0 is x, 1 is y
        scaled = side * factor
        if options.corners and side > 1 and scaled > 1:  # the last pixel then lies on the last of `scaled` pixels
            factor = (scaled - 1) / (side - 1)
        centre = None if around is None else (around[1 - axis] + half) * factor
        offset = _offset(scaled, length, centre, rng)
        matrix[axis, axis] = factor
        matrix[axis, 2] = half * factor - offset - half
    if options.flip and rng.random() < 0.5:
        matrix[0] *= -1
        matrix[0, 2] += size[1] - 1
    return matrix


def _offset(scaled: float, length: int, centre: float | None, rng: np.random.Generator) -> float:
    """Where a crop of `length` starts on an axis of `scaled` pixels: inside it, or around all of it if it is shorter."""
    low, high = min(0.0, scaled - length), max(0.0, scaled - length)
    if centre is not None:
        margin = 0.1 * length
        low, high = max(low, min(high, centre - length + margin)), min(high, max(low, centre - margin))
    return float(rng.uniform(low, high))


def _recolour(view: Frame, strength: float, rng: np.random.Generator) -> Frame:
    """Brightness, contrast, saturation and tint as one 3x4 matrix, and in half of the cases a gamma curve."""
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    tint = 1 + 0.25 * strength * rng.uniform(-1, 1, 3)
    grey = np.array([0.299, 0.587, 0.114])
    colours = saturation * np.eye(3) + (1 - saturation) * np.tile(grey, (3, 1))
    matrix = brightness * contrast * tint[:, None] * colours
    middle = float(np.array(cv2.mean(view)[:3]) @ grey) * brightness
    changed = cv2.transform(view, np.hstack([matrix, np.full((3, 1), (1 - contrast) * middle)]))
    if rng.random() < 0.5:
        gamma = math.exp(rng.uniform(-1, 1) * strength)
        changed = cv2.LUT(changed, np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8))
    return np.asarray(changed, np.uint8)
