"""The eight-bit number formats of Q/DQ pairs: their types, and arrays stored in them.

INT8, UINT8   whole numbers: weights, and activations with a zero point of 0 or 128
FP8           E4M3FN, floating point with three bits of mantissa, up to 448; small values keep their digits, large ones lose some
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..formats.ranges import LEVELS
from .edit import all_values


@dataclass(frozen=True, slots=True)
class EightBits:
    """A number format: its ONNX type, and the largest value that its scale is to reach."""

    name: str
    dtype: ir.DataType
    most: float

    def zero(self, point: int = 0) -> NDArray[Any]:
        """A zero point, which also tells QuantizeLinear this format."""
        return np.array(point).astype(self.dtype.numpy())

    def stored(self, levels: NDArray[np.float64], most: float) -> NDArray[Any]:
        """Numbers in units of their scale -> the same in this format, limited to `most` on each side of zero."""
        limited = np.clip(levels, -most, most)
        return (limited if self is FP8 else np.rint(limited)).astype(self.dtype.numpy())


INT8 = EightBits("int8", ir.DataType.INT8, LEVELS)
UINT8 = EightBits("uint8", ir.DataType.UINT8, 255)
FP8 = EightBits("fp8", ir.DataType.FLOAT8E4M3FN, 448)

_FP8_TYPES = frozenset({ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2FNUZ})


def holds_fp8(model: ir.Model) -> bool:
    """Whether any tensor of a model is FP8, so that only GPUs of compute capability 8.9 and later compute it."""
    return any(value.dtype in _FP8_TYPES for value in all_values(model))
