"""NV12, as video decoders on a GPU give it, to RGB: the numbers of FFmpeg's own conversion of a video's YUV 4:2:0, which the CPU way uses.

FFmpeg's x86 code works in whole numbers: values are taken times 8, factors are in 1/8192, and every product is rounded down. A chroma
sample belongs to the two by two pixels that it was made from; nothing is interpolated. plugins/nv12_to_rgb.cu does the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..types import Frame

#: Code of the matrix (ITU-T H.273, MatrixCoefficients) -> the weights of red and of blue in luma.
_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, not of constant luminance
}
_UNTOLD = (0, 2)  # not said, or said to be RGB, which YUV is not: FFmpeg takes both for BT.601
_BT601 = 5

_ONE = 1 << 16
_BLACK, _LUMA_STEPS, _CHROMA_STEPS = 16, 219, 224  # of the limited range


class YuvFactors(NamedTuple):
    """What a pixel is converted with, whole numbers: `luma_offset` times 8, the others in 1/8192.

    Luma times `luma` is grey; the distance of V from 128 times `red_v` is added for red, and so on.
    """

    luma_offset: int
    luma: int
    red_v: int
    green_u: int
    green_v: int
    blue_u: int


def yuv_factors(matrix: int, full: bool) -> YuvFactors:
    """The code of a video's matrix (ITU-T H.273) and whether its range is full (0 to 255) -> the factors.

    A video that does not say its matrix counts as BT.601, whatever its size. Raises ImageError for a matrix that FFmpeg does not convert.
    """
    weights = _WEIGHTS.get(_BT601 if matrix in _UNTOLD else matrix)
    if weights is None:
        raise ImageError(f"The video's colours are of matrix {matrix} (ITU-T H.273), which is not converted to RGB.")
    red, blue = weights
    green = 1 - red - blue
    ratios = 2 * (1 - red), -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green, 2 * (1 - blue)
    chroma = [round(_ONE * 255 / _CHROMA_STEPS * ratio) for ratio in ratios]
    if full:
        return YuvFactors(0, _eighth(_ONE), *(_eighth(int(value * _CHROMA_STEPS / 255)) for value in chroma))
    return YuvFactors(8 * _BLACK, _eighth(_ONE * 255 // _LUMA_STEPS), *map(_eighth, chroma))


def nv12_to_rgb(luma: NDArray[np.uint8], chroma: NDArray[np.uint8], factors: YuvFactors, turns: int = 0) -> Frame:
    """Planes (H, W) and (H/2, W/2, 2), U before V, the halves rounded up -> RGB (H, W, 3), turned `turns` quarters counter-clockwise."""
    height, width = luma.shape
    distances = 8 * chroma.astype(np.int32).repeat(2, 0)[:height].repeat(2, 1)[:, :width] - 8 * 128
    u, v = distances[..., 0], distances[..., 1]
    grey = ((8 * luma.astype(np.int32) - factors.luma_offset) * factors.luma) >> 16
    green = (u * factors.green_u >> 16) + (v * factors.green_v >> 16)
    colours = grey + (v * factors.red_v >> 16), grey + green, grey + (u * factors.blue_u >> 16)
    picture = np.stack(colours, axis=2).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.rot90(picture, turns))


def _eighth(value: int) -> int:
    """A whole number of 1/65536 -> of 1/8192, rounded half up."""
    return (value + 4) >> 3
