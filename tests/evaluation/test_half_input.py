"""verify's stages of an engine whose input is FP16: the rounding of the input alone is no difference."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir
from helpers import frames, tiny_model, tiny_spec

from rtformer_deploy.backends import build, open_engine
from rtformer_deploy.evaluation.stages import Stage, compare_image
from rtformer_deploy.graph.edit import clone
from rtformer_deploy.graph.fp16 import to_fp16
from rtformer_deploy.graph.half_ends import half_ends
from rtformer_deploy.types import BuildOptions, ModelSpec


def stages(one: ir.Model, other: ir.Model, spec: ModelSpec) -> dict[str, Stage]:
    """What `compare_image` says of two models; `spec` is the second one's."""
    options, (frame,) = BuildOptions(threads=1), frames((80, 70))
    first, second = build(one, tiny_spec(), "onnxruntime", options), build(other, spec, "onnxruntime", options)
    with open_engine(first, threads=1) as a, open_engine(second, threads=1) as b:
        return {stage.name: stage for stage in compare_image(a, b, lambda: frame).stages}


def test_inputs_are_compared_in_the_smaller_type() -> None:
    usual = to_fp16(tiny_model())
    half = half_ends(clone(usual))
    found = stages(usual, half, tiny_spec())
    assert found["normalise"] == Stage("normalise", False, 0.0, "compared in FP16, the type of B's input")
    assert not found["decode"].differs
    assert not found["resize"].differs
    assert not found["argmax"].differs
    assert stages(half, usual, tiny_spec())["normalise"].detail == "compared in FP16, the type of A's input"
    assert stages(half, half, tiny_spec())["normalise"].detail == ""


def test_another_mean_differs_all_the_same() -> None:
    usual = to_fp16(tiny_model())
    other = stages(usual, half_ends(clone(usual)), dataclasses.replace(tiny_spec(), mean=(0.5, 0.5, 0.5)))["normalise"]
    assert other.differs
    assert "A has mean" in other.detail
