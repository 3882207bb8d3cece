"""The compiled loops of pre- and post-processing, if this install has them. Without them NumPy does the same, more slowly.

They are built from `_native.cpp` and `plugins/*.cuh` when the package is installed, if there is a C++ compiler. Both paths round
every operation in the same order, so they give the same bits.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..types import Frame, LabelMap
from .geometry import Axis, Window


def _load() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("rtformer_deploy.image._native"), ""
    except ImportError as error:
        return None, str(error)


_module, _reason = _load()


def available() -> bool:
    """Whether the compiled loops are used; if not, NumPy is."""
    return _module is not None


def description() -> str:
    """One line for reports: "native (avx512)", or "NumPy" and why."""
    return f"native ({_module.instruction_set()})" if _module is not None else f"NumPy (the native code is not there: {_reason})"


def usable_threads(threads: int | None = None) -> int:
    """`threads`, or the number of CPUs that this process may use."""
    if threads is not None:
        return max(1, threads)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def upsample_argmax(logits: NDArray[np.float32], rows: Axis, columns: Axis, threads: int) -> LabelMap:
    """Finite, contiguous logits (C, h, w) and the frame's rows and columns in them -> labels (H, W)."""
    assert _module is not None, "ask available() first"
    labels = np.empty((rows.weight.size, columns.weight.size), np.uint8)
    tables = rows.cells, rows.weight, columns.cells, columns.padded_weight
    _module.upsample_argmax(logits, *logits.shape, labels, *labels.shape, *tables, threads)
    return labels


def interpolate(logits: NDArray[np.float32], rows: Axis, columns: Axis, threads: int) -> NDArray[np.float32]:
    """Contiguous logits (C, h, w) and the places' rows and columns in them -> the logits there (C, H, W)."""
    assert _module is not None, "ask available() first"
    out = np.empty((logits.shape[0], rows.weight.size, columns.weight.size), np.float32)
    tables = rows.low, rows.high, rows.weight, columns.low, columns.high, columns.weight
    _module.interpolate(logits, *logits.shape, out, *out.shape[1:], *tables, threads)
    return out


def confidence(logits: NDArray[np.float32], rows: Axis, columns: Axis, threads: int) -> NDArray[np.uint8]:
    """Finite, contiguous logits (C, h, w) and the frame's rows and columns in them -> the winner's softmax in 8 bits (H, W)."""
    assert _module is not None, "ask available() first"
    levels = np.empty((rows.weight.size, columns.weight.size), np.uint8)
    tables = rows.cells, rows.weight, columns.low, columns.high, columns.weight
    _module.confidence(logits, *logits.shape, levels, *levels.shape, *tables, threads)
    return levels


def outlines(labels: LabelMap, nodes: bool) -> tuple[bytes, bytes]:
    """A contiguous label map (H, W) -> its rings' corners (int32 x, y) and its rings (int64 area, class, corners, doubled area).

    `nodes`: with a corner where two other areas meet on a straight edge, too.
    """
    assert _module is not None, "ask available() first"
    corners, rings = _module.outlines(labels, *labels.shape, nodes)
    return corners, rings


def copy_rows(source: NDArray[np.uint8], target: NDArray[np.uint8], threads: int) -> None:
    """An array whose rows (one step of its first axis) are contiguous -> the same bytes in contiguous memory of the same size."""
    assert _module is not None, "ask available() first"
    _module.copy_rows(source, target, threads)


def preprocess(
    frame: Frame,
    out: NDArray[np.float32],
    part: Window,
    rows: Axis,
    columns: Axis,
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    threads: int,
) -> None:
    """A contiguous frame (H, W, 3) -> value * scale + bias in the window `part` of `out` (3, H', W'); the rest of `out` does not change."""
    assert _module is not None, "ask available() first"
    place = part.top, part.left, part.height, part.width
    tables = rows.low, rows.weight, columns.low, columns.weight
    factors = tuple(scale.tolist()), tuple(bias.tolist())
    _module.preprocess(frame, *frame.shape[:2], out, *out.shape[1:], *place, *tables, *factors, threads)
