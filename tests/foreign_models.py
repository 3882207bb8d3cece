"""Small ONNX models as other tools write them, and what ONNX Runtime gives for a file as it is, with all optimisation off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = (16, 24)
#: What the command line says about them.
SAID = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
Shape = Sequence[int | str] | None


def value(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """Random weights of about one over the root of the inputs."""
    values = np.random.default_rng([seed, *map(ord, name)]).standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 1)
    return numpy_helper.from_array(values.astype(np.float32), name)


def number(name: str, values: Any, kind: type[np.generic] = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, kind), name)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = 17,
    ir_version: int = 9,
) -> Path:
    """A model from (1, 3, 16, 24) "x" to (1, 4, 8, 12) "y", unless it says something else."""
    graph = helper.make_graph(
        nodes, "g", list(inputs or [value("x", (1, 3, *SIZE))]), list(outputs or [value("y", (1, 4, 8, 12))]), list(weights)
    )
    domains = [helper.make_opsetid("", opset), *(helper.make_opsetid("f", 1) for _ in functions[:1])]
    model = helper.make_model(graph, opset_imports=domains, functions=functions, ir_version=ir_version)
    path.write_bytes(model.SerializeToString())
    return path


def net(*end: onnx.NodeProto, classes: int = 4) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Two convolutions from "x" to "s", the scores at half the size; `end` goes on from there. Without it the scores are "y"."""
    last = "s" if end else "y"
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], [last]),
        *end,
    ]
    return nodes, [weight("w1", 16, 3, 3, 3), weight("w2", classes, 16, 1, 1)]


def reference(path: Path, image: NDArray[np.float32], output: str | None = None) -> NDArray[Any]:
    """One output of the file itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    given = image.astype(np.float16) if "16" in source.type else image
    (result,) = session.run([output or session.get_outputs()[0].name], {source.name: given})
    return np.asarray(result)


Maker = Callable[[Path], Path]
