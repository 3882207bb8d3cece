"""Checks that the parts of an EngineInfo fit each other."""

from __future__ import annotations

from ..types import MOST_BATCH_PIXELS, EngineInfo
from .documents import DocumentError
from .model_spec import check_spec


def check_info(info: EngineInfo) -> None:
    """Raises DocumentError if the parts of an EngineInfo contradict each other."""
    spec = info.spec
    check_spec(spec, "spec.")
    smallest, usual, largest = info.batch
    if not smallest <= usual <= largest:
        raise DocumentError(f"batch is {smallest}, {usual}, {largest}; expected the smallest, usual and largest, which rise")
    if largest * spec.size[0] * spec.size[1] > MOST_BATCH_PIXELS:
        raise DocumentError(f"batch goes up to {largest} frames of {spec.size[0]}x{spec.size[1]}, more than {MOST_BATCH_PIXELS:,} pixels")
    source, target = info.inputs[0], info.outputs[0]
    is_half = info.io == "fp16"
    if len(info.inputs) != 1 or (source.name, source.shape[1:], source.dtype) != (
        spec.input.name,
        spec.input.shape[1:],
        "float16" if is_half else "float32",
    ):
        raise DocumentError("inputs are not the one that spec.input describes")
    if isinstance(source.shape[0], int) and info.batch != (source.shape[0],) * 3:
        raise DocumentError(f"batch is {smallest}, {usual}, {largest}; the input has a fixed batch of {source.shape[0]}")
    if len(info.outputs) != 1 or (target.name, len(target.shape), target.dtype) != (
        spec.output.name,
        len(spec.output.shape),
        "float16" if is_half and spec.output.dtype == "float32" else spec.output.dtype,
    ):
        raise DocumentError("outputs are not the one that spec.output describes")
    if spec.head != "labels" and target.shape[1] != len(spec.classes):
        raise DocumentError(f"outputs[0] gives {target.shape[1]} classes; spec.classes names {len(spec.classes)}")
