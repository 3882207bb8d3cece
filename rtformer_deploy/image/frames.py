"""Frames in, label maps and pictures out: decode, resize and normalise; upsample, argmax, colour and overlay.

These functions define what `segment`, `evaluate`, `serve`, the CPU code and the kernels compute. A frame is RGB uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, ImageError
from ..types import Frame, LabelMap, Resize
from . import native
from .decode import decode_image, load_image
from .folders import images_in
from .geometry import Axis, Size, Window, input_axes, nearest, window
from .png import save_png
from .upsample import upsample_argmax, upsample_argmax_reference

__all__ = [
    "colourize",
    "decode_image",
    "images_in",
    "load_image",
    "normalisation",
    "overlay",
    "preprocess",
    "resize_labels",
    "save_png",
    "upsample_argmax",
    "upsample_argmax_reference",
]


def preprocess(
    frame: Frame,
    spec_size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    resize: Resize = "stretch",
    out: NDArray[np.float32] | None = None,
    *,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """A frame of any size -> the engine's input (3, H, W) float32, written into `out` if there is one.

    Bilinear with half-pixel centres and no antialiasing, computed in float32 (OpenCV's INTER_LINEAR); then /255, minus `mean`, over
    `std`. `letterbox` keeps the picture's proportions; the rest is 0. A frame of the right size is not interpolated.
    `threads` None uses every CPU. Raises ImageError for an array that is not a frame.
    """
    frame = _checked(frame)
    size = (frame.shape[0], frame.shape[1])
    part = window(size, spec_size, resize)
    target = out if out is not None and out.flags.c_contiguous else np.empty((3, *spec_size), np.float32)
    if target.shape != (3, *spec_size) or target.dtype != np.float32:
        raise ValueError(f"out should be float32 {(3, *spec_size)}; it is {target.dtype} {target.shape}")
    if (part.height, part.width) != spec_size:
        target.fill(0.0)
    rows, columns = input_axes(size, part)
    scale, bias = normalisation(mean, std)
    if native.available():
        native.preprocess(frame, target, part, rows, columns, scale, bias, native.usable_threads(threads))
    else:
        _preprocess(frame, target, part, rows, columns, scale, bias)
    if out is not None and out is not target:
        out[...] = target
        return out
    return target


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of each channel -> (scale, bias) float32: value * scale + bias is /255, minus the mean, over the deviation."""
    deviation = np.asarray(std, np.float64)
    return (1.0 / (255.0 * deviation)).astype(np.float32), (-np.asarray(mean, np.float64) / deviation).astype(np.float32)


def resize_labels(labels: NDArray[np.integer], size: Size, input_size: Size, resize: Resize = "stretch", *, classes: int = 256) -> LabelMap:
    """Labels (h, w) over the engine's input -> labels (H, W) at the frame's `size`, each pixel has the nearest label; always a copy.

    Raises EngineError for a label that is not one of the `classes`.
    """
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise EngineError(
            f"The engine gives the class id {wrong}, and there are {classes} classes: 0 to {classes - 1}.",
            "Build it again with as many as it tells apart: --classes.",
        )
    part = window(size, input_size, resize)
    rows, columns = labels.shape[0] / input_size[0], labels.shape[1] / input_size[1]
    y = nearest(labels.shape[0], size[0], part.height / size[0] * rows, part.top * rows)
    x = nearest(labels.shape[1], size[1], part.width / size[1] * columns, part.left * columns)
    return labels.astype(np.uint8, copy=False)[y[:, None], x]


def colourize(labels: LabelMap, palette: Sequence[Sequence[int]]) -> Frame:
    """Labels (H, W) -> their colours, RGB (H, W, 3); an id without a colour (255, the datasets' "ignore") is black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    return np.take(colours, labels, axis=0)


def overlay(frame: Frame, labels: LabelMap, palette: Sequence[Sequence[int]], alpha: float = 0.5) -> Frame:
    """A frame and its labels of the same size -> (1 - alpha) * frame + alpha * colour, rounded half up; RGB (H, W, 3).

    Pixels whose id has no colour (255, "ignored") stay as they are in the frame.
    """
    if frame.shape[:2] != labels.shape:
        raise ValueError(f"the labels are {labels.shape}, the frame is {frame.shape[:2]}")
    colours = np.zeros((256, 3), np.uint16)
    colours[: len(palette)] = palette
    places = np.take(colours << 8, labels, axis=0)
    places |= frame
    drawn: Frame = np.take(_blended(alpha), places)
    if labels.size and labels.max() >= len(palette):
        ignored = labels >= len(palette)
        drawn[ignored] = frame[ignored]
    return drawn


def _blended(alpha: float) -> NDArray[np.uint8]:
    """What a colour's level over a frame's level gives, at 256 * colour + frame."""
    levels = np.arange(256, dtype=np.float32)
    dimmed = levels * np.float32(1 - alpha) + np.float32(0.5)
    return (dimmed + (levels * np.float32(alpha))[:, None]).astype(np.uint8).ravel()


def _checked(frame: Frame) -> Frame:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        actual = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ImageError(f"A frame is RGB uint8 (H, W, 3), not {actual}.", "Read images with rtformer_deploy.load_image.")
    return np.ascontiguousarray(frame)


def _preprocess(
    frame: Frame,
    target: NDArray[np.float32],
    part: Window,
    rows: Axis,
    columns: Axis,
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> None:
    """The same as the native code, in NumPy, one channel after another."""
    resized = frame.shape[:2] != (part.height, part.width)
    place = target[:, part.top : part.top + part.height, part.left : part.left + part.width]
    for channel in range(3):
        plane = frame[:, :, channel].astype(np.float32)
        if resized:
            plane = (np.float32(1) - columns.weight) * plane[:, columns.low] + columns.weight * plane[:, columns.high]
            weight = rows.weight[:, None]
            plane = (np.float32(1) - weight) * plane[rows.low] + weight * plane[rows.high]
        place[channel] = plane * scale[channel] + bias[channel]
