"""Small things that many tests need: a tiny segmentation network as ONNX and as PyTorch, its ModelSpec, frames."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from smooth_frames import frames as frames

from rtformer_deploy.formats.model_file import parse_model, stamp_spec
from rtformer_deploy.formats.recipe import numbered_labels, output_spec
from rtformer_deploy.types import Head, ModelSpec, Progress, Resize, TensorSpec

SIZE = (64, 96)
CLASSES = 5
CHANNELS = (3, 8, 8, CLASSES)

Batch = int | Literal["batch"]


def load_file(path: Path, name: str | None = None) -> ModuleType:
    """A Python file as a module, called as the file or by `name`."""
    spec = importlib.util.spec_from_file_location(name or path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def load_benchmark(root: Path, name: str) -> ModuleType:
    """A script of benchmarks/ as a module, by a name that no folder of tests has; it finds its neighbours while it is loaded."""
    folder = root / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        return load_file(folder / f"{name}.py", f"benchmark_{name}")
    finally:
        sys.path.remove(str(folder))


def tiny_weights(seed: int = 0) -> list[NDArray[np.float32]]:
    """The weights of three 3x3 convolutions of stride 2."""
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((outputs, inputs, 3, 3)) * 0.3).astype(np.float32) for inputs, outputs in itertools.pairwise(CHANNELS)]


def tiny_spec(batch: Batch = 1, head: Head = "lowres", size: tuple[int, int] = SIZE, resize: Resize = "stretch") -> ModelSpec:
    """The ModelSpec of the tiny network."""
    labels = numbered_labels(CLASSES)
    return ModelSpec(
        name="tiny",
        arch={"name": "tiny"},
        classes=labels.names,
        palette=labels.palette,
        input=TensorSpec("input", (batch, 3, *size), "float32"),
        output=output_spec(head, CLASSES, batch, size),
        head=head,
        resize=resize,
    )


def tiny_model(batch: Batch = 1, head: Head = "lowres", size: tuple[int, int] = SIZE, seed: int = 0) -> ir.Model:
    """Three convolutions of stride 2 and, for the heads "logits" and "labels", the upsampling and the argmax; stamped with its spec."""
    spec = tiny_spec(batch, head, size)
    weights = [numpy_helper.from_array(value, f"weight{index}") for index, value in enumerate(tiny_weights(seed))]
    nodes = []
    previous = "input"
    for index in range(3):
        nodes.append(helper.make_node("Conv", [previous, f"weight{index}"], [f"conv{index}"], strides=[2, 2], pads=[1] * 4))
        previous = f"conv{index}"
        if index < 2:
            nodes.append(helper.make_node("Relu", [previous], [f"relu{index}"]))
            previous = f"relu{index}"
    if head != "lowres":
        weights.append(numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "scales"))
        nodes.append(
            helper.make_node("Resize", [previous, "", "scales"], ["large"], mode="linear", coordinate_transformation_mode="half_pixel")
        )
        previous = "large"
    if head == "labels":
        nodes.append(helper.make_node("ArgMax", [previous], ["argmax"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["argmax"], ["labels"], to=TensorProto.UINT8))
    else:
        nodes.append(helper.make_node("Identity", [previous], ["logits"]))
    kind = TensorProto.UINT8 if head == "labels" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, spec.input.shape)],
        [helper.make_tensor_value_info(spec.output.name, kind, spec.output.shape)],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto)
    model = parse_model(proto.SerializeToString())
    stamp_spec(model, spec)
    return model


class StoppedError(Exception):
    """What a test's progress callback raises to stop a step."""


def stop(phase: str, done: int, total: int) -> None:
    """A Progress that stops at the first step."""
    raise StoppedError(phase)


def stop_at(last: int) -> Progress:
    """A Progress that stops once `last` steps are done."""

    def stop_then(phase: str, done: int, total: int) -> None:
        if done >= last:
            raise StoppedError(phase)

    return stop_then


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Makes packages look as if they were not installed."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


#: Changes a file's bytes.
Edit = Callable[[bytes], bytes]


def mutated(data: bytes, edits: Iterable[Edit]) -> bytes:
    """A file's bytes -> the bytes after these edits, one after the other."""
    for edit in edits:
        data = edit(data)
    return data
