"""The verdict on an engine's precision: compares the precision that was asked for with the engine's compute layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from ..types import PrecisionFound, PrecisionName

EngineKind = Literal["cpu", "gpu"]
#: (Compute layers in the precision that was asked for, all compute layers) -> whether that is enough.
Rule = Callable[[int, int], bool]


def _one(asked: int, total: int) -> bool:
    return asked > 0


def _most(asked: int, total: int) -> bool:
    return 2 * asked > total


def _each(asked: int, total: int) -> bool:
    return 0 < asked == total


def _no_other(asked: int, total: int) -> bool:
    return asked == total


#: How many compute layers must have the precision that was asked for, if the engine is to be `verified`.
_RULES: dict[EngineKind, dict[PrecisionName, Rule]] = {
    # A CPU library either uses the Q/DQ pairs of convolutions or does not, so one INT8 layer is enough proof. It stores weights in
    # FP16 and computes in FP32, so FP16 is never met.
    "cpu": {"fp32": _no_other, "fp16": _each, "int8": _one},
    # TensorRT computes in the types that the graph gives it, and the graph leaves some layers in a higher precision.
    "gpu": {"fp32": _no_other, "fp16": _most, "int8": _most, "fp8": _most},
}


def judge(asked: PrecisionName, layers: Mapping[str, int], kind: EngineKind, mixed: bool = False) -> PrecisionFound:
    """Compares the precision that was asked for with the counts of compute layers: `verified`, `mismatch`, or `requested` if unknown.

    `mixed`: only part of the model is meant to have the precision, so one layer is enough. A TensorRT engine may not
    report its layers' types; then the result is `requested`.
    """
    total = sum(layers.values())
    if kind == "gpu" and total == 0:
        return PrecisionFound(asked, "requested", {}, "the engine's layers do not tell their types")
    rule = _RULES[kind][asked]
    met = (_one if mixed and rule is _most else rule)(layers.get(asked, 0), total)
    detail = f"the engine has {describe(layers)}"
    if kind == "cpu" and asked == "fp16":
        detail = f"on a CPU FP16 is storage; the layers run in fp32 ({detail})"
    return PrecisionFound(asked, "verified" if met else "mismatch", dict(layers), detail)


def describe(layers: Mapping[str, int]) -> str:
    """Counts of compute layers by precision, in words."""
    return ", ".join(f"{count} compute layers in {name}" for name, count in sorted(layers.items())) or "no compute layers"
