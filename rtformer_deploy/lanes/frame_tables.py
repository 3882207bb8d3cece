"""The kernels' tables for one frame size, as one blob of bytes: where its pixels are in the engine's input and in its logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..image.geometry import Size, Window, cell_at, input_axes, output_axes, window
from ..image.upsample import MAX_CLASSES
from ..types import ModelSpec
from .supported import lane_fault

#: The tables of a frame, in their order in the blob. The output tables exist only if the engine gives logits.
INPUT_TABLES = ("row_low", "row_weight", "column_low", "column_weight")
OUTPUT_TABLES = ("row_cells", "row_share", "column_cells", "column_share", "column_cell")

_ALIGNMENT = 16


@dataclass(frozen=True, slots=True, eq=False)
class FrameTables:
    """The tables of one frame size: `blob` uint8 (bytes,), read-only, and where each table begins in it.

    A lane copies `blob` to the device once for each size, aligned to 16 bytes, and passes that address to the kernels together with
    these tables. `size` is the frame's (H, W), `part` the window that the frame covers in the engine's input.
    """

    size: Size
    part: Window
    blob: NDArray[np.uint8]
    offsets: dict[str, int]

    @property
    def frame_bytes(self) -> int:
        """The bytes of one frame (H, W, 3)."""
        return 3 * self.size[0] * self.size[1]

    @property
    def label_bytes(self) -> int:
        """The bytes of one label map (H, W)."""
        return self.size[0] * self.size[1]


def frame_tables(spec: ModelSpec, size: Size) -> FrameTables:
    """The tables for a frame of (H, W) `size`, the same ones that the CPU code reads.

    Raises EngineError if the logits' shape is not known, or no kernel reads frames as the spec says. An engine that gives labels has no
    output tables.
    """
    fault = lane_fault(spec)
    if fault is not None:
        raise EngineError(fault)
    part = window(size, spec.size, spec.resize)
    rows, columns = input_axes(size, part)
    tables: dict[str, NDArray[np.int32] | NDArray[np.float32]] = dict(
        zip(INPUT_TABLES, (rows.low, rows.weight, columns.low, columns.weight), strict=True)
    )
    if spec.head != "labels":
        rows, columns = output_axes(logits_shape(spec)[1:], size, spec.size, spec.resize)
        values = rows.cells, rows.padded_weight, columns.cells, columns.weight, cell_at(columns)
        tables.update(zip(OUTPUT_TABLES, values, strict=True))
    return _packed(size, part, tables)


def logits_shape(spec: ModelSpec) -> tuple[int, int, int]:
    """(C, h, w) of one image's logits. Raises EngineError if they are unknown or cannot give a label map."""
    classes, height, width = spec.output.shape[1:]
    if not isinstance(classes, int) or not isinstance(height, int) or not isinstance(width, int) or not 1 <= classes <= MAX_CLASSES:
        raise EngineError(
            f"Logits of shape {spec.output.shape} are no label map's; they should be (N, classes, h, w) with 1 to 256 classes."
        )
    return classes, height, width


def _packed(size: Size, part: Window, tables: dict[str, NDArray[np.int32] | NDArray[np.float32]]) -> FrameTables:
    offsets, end = {}, 0
    for name, table in tables.items():
        offsets[name] = end
        end += -(-table.nbytes // _ALIGNMENT) * _ALIGNMENT
    blob = np.zeros(end, np.uint8)
    for name, table in tables.items():
        blob[offsets[name] : offsets[name] + table.nbytes] = table.view(np.uint8)
    blob.flags.writeable = False  # shared by every lane
    return FrameTables(size, part, blob, offsets)
