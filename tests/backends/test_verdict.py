"""The verdict on precision, for both kinds of engine."""

from __future__ import annotations

from typing import Any

import pytest

from rtformer_deploy.backends.verdict import EngineKind, judge


@pytest.mark.parametrize(
    ("kind", "asked", "layers", "state"),
    [
        ("cpu", "fp32", {"fp32": 3}, "verified"),
        ("cpu", "fp32", {"fp32": 3, "bf16": 1}, "mismatch"),
        ("cpu", "fp32", {}, "verified"),
        ("cpu", "fp16", {"fp32": 3}, "mismatch"),
        ("cpu", "fp16", {"fp16": 2, "fp32": 1}, "mismatch"),
        ("cpu", "fp16", {"fp16": 3}, "verified"),
        ("cpu", "fp16", {}, "mismatch"),
        ("cpu", "int8", {"fp32": 1, "int8": 2}, "verified"),
        ("cpu", "int8", {"fp32": 56, "int8": 1}, "verified"),
        ("cpu", "int8", {"fp32": 3}, "mismatch"),
        ("cpu", "int8", {}, "mismatch"),
        ("gpu", "fp32", {"fp32": 57}, "verified"),
        ("gpu", "fp32", {"fp32": 56, "fp16": 1}, "mismatch"),
        ("gpu", "fp16", {"fp16": 57}, "verified"),
        ("gpu", "fp16", {"fp16": 50, "fp32": 7}, "verified"),
        ("gpu", "fp16", {"fp16": 5, "fp32": 5}, "mismatch"),
        ("gpu", "fp16", {"fp32": 57}, "mismatch"),
        ("gpu", "fp16", {"fp16": 1, "fp32": 56}, "mismatch"),
        ("gpu", "fp16", {"bf16": 57}, "mismatch"),
        ("gpu", "int8", {"int8": 45, "fp16": 12}, "verified"),
        ("gpu", "int8", {"fp16": 57}, "mismatch"),
        ("gpu", "int8", {}, "requested"),
        ("gpu", "fp32", {}, "requested"),
    ],
)
def test_the_verdict(kind: EngineKind, asked: Any, layers: dict[str, int], state: str) -> None:
    found = judge(asked, layers, kind)
    assert (found.asked, found.state, dict(found.layers)) == (asked, state, layers)
    assert all(f"{count} compute layers in {name}" in found.detail for name, count in layers.items())


@pytest.mark.parametrize(
    ("kind", "asked", "layers", "state"),
    [
        ("gpu", "int8", {"int8": 1, "fp16": 56}, "verified"),
        ("gpu", "fp16", {"fp16": 1, "fp32": 56}, "verified"),
        ("gpu", "int8", {"fp16": 57}, "mismatch"),
        ("gpu", "fp32", {"fp32": 56, "fp16": 1}, "mismatch"),
        ("cpu", "fp16", {"fp16": 1, "fp32": 56}, "mismatch"),
        ("cpu", "int8", {"int8": 1, "fp32": 56}, "verified"),
    ],
)
def test_one_layer_is_enough_in_a_mix(kind: EngineKind, asked: Any, layers: dict[str, int], state: str) -> None:
    assert judge(asked, layers, kind, mixed=True).state == state


def test_fp16_on_a_cpu_is_called_storage() -> None:
    assert judge("fp16", {"fp32": 3}, "cpu").detail == (
        "on a CPU FP16 is storage; the layers run in fp32 (the engine has 3 compute layers in fp32)"
    )


def test_a_gpu_engine_that_tells_no_types() -> None:
    assert judge("fp16", {}, "gpu").detail == "the engine's layers do not tell their types"
