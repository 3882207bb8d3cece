"""The kernels of plugins/ in NumPy, for `null`: the arguments of a launch -> what the CPU code makes of the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtformer_deploy.errors import EngineError
from rtformer_deploy.image import frames as image
from rtformer_deploy.lanes.frame_tables import INPUT_TABLES, OUTPUT_TABLES, FrameTables, frame_tables
from rtformer_deploy.types import ModelSpec

View = Callable[[int, int], NDArray[np.uint8]]  # (address, size) -> the device's memory there


def _preprocess(view: View, spec: ModelSpec, arguments: tuple[Any, ...], dtype: str) -> None:
    """Frame (H, W, 3) -> one image of the engine's input; the tables in device memory have to be the frame's."""
    frame_at, height, width, out, out_height, out_width = arguments[:6]
    size = (int(height), int(width))
    _check_tables(view, frame_tables(spec, size), INPUT_TABLES, arguments[10:14])
    frame = view(frame_at, 3 * size[0] * size[1]).reshape(*size, 3)
    made = image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, threads=1).astype(dtype)
    assert spec.size == (out_height, out_width)
    view(out, made.nbytes)[:] = made.reshape(-1).view(np.uint8)


def _upsample_argmax(view: View, spec: ModelSpec, arguments: tuple[Any, ...], dtype: str) -> None:
    """One image of the logits -> labels (H, W), and the flag where a logit is not finite."""
    logits_at, classes, rows, columns, labels_at, height, width = arguments[:7]
    shape, size = (int(classes), int(rows), int(columns)), (int(height), int(width))
    _check_tables(view, frame_tables(spec, size), OUTPUT_TABLES, arguments[7:12])
    logits = view(logits_at, int(np.prod(shape)) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    try:
        labels = image.upsample_argmax(logits.astype(np.float32), size, spec.size, spec.resize, threads=1)
    except EngineError:
        view(arguments[12], 4).view(np.int32)[0] = 1
        return
    view(labels_at, labels.nbytes)[:] = labels.reshape(-1)


def _check_tables(view: View, tables: FrameTables, names: tuple[str, ...], addresses: tuple[int, ...]) -> None:
    start = addresses[0] - tables.offsets[names[0]]
    assert list(addresses) == [start + tables.offsets[name] for name in names]
    assert np.array_equal(view(start, tables.blob.nbytes), tables.blob), "the tables on the device are another size's"


def _for(kernel: Callable[[View, ModelSpec, tuple[Any, ...], str], None], dtype: str) -> Callable[[View, Any, tuple[Any, ...]], None]:
    return lambda view, spec, arguments: kernel(view, spec, arguments, dtype)


#: By the names in plugins/.
KERNELS = {
    "preprocess_f32": _for(_preprocess, "float32"),
    "preprocess_f16": _for(_preprocess, "float16"),
    "upsample_argmax_f32": _for(_upsample_argmax, "float32"),
    "upsample_argmax_f16": _for(_upsample_argmax, "float16"),
}
