"""Runs a model once in FP32, and says which of its tensors FP16 could not hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..formats.model_file import parse_model, serialize_model
from ..formats.ranges import has_scale
from ..formats.tensor_types import infer_types
from .edit import clone
from .fp16_constants import LARGEST, SMALLEST_NORMAL
from .functions import inline_functions
from .run import run_model

#: Another picture may show more than the one that is tried.
_MARGIN = 2.0
_SUFFIX = "/largest"
_FLOAT = ir.TensorType(ir.DataType.FLOAT)  # not a sequence of such


@dataclass(frozen=True, slots=True)
class Probe:
    """What one FP32 run showed: tensor -> its largest finite absolute value, and whether every output was `finite`."""

    largest: dict[str, float] = field(default_factory=dict)
    finite: bool = True

    def beyond(self, name: str | None) -> bool:
        """Whether a tensor may exceed FP16, or is so small that FP16 keeps few of its digits. As good as zero in FP32 does not count."""
        largest = self.largest.get(str(name))
        return largest is not None and has_scale(largest) and not SMALLEST_NORMAL <= largest <= LARGEST / _MARGIN


def run_probe(model: ir.Model, image: NDArray[np.float32]) -> Probe:
    """Runs a copy of an FP32 model, in which each float tensor of the main graph is reduced to its largest absolute value."""
    names = [str(output.name) for node in model.graph for output in node.outputs if output.name]
    copy = parse_model(serialize_model(inline_functions(clone(model))))
    infer_types(copy)
    values = {value.name: value for node in copy.graph for value in node.outputs}
    chosen = [values[name] for name in dict.fromkeys(names) if name in values and values[name].type == _FLOAT]
    outputs = list(copy.graph.outputs)
    for value in chosen:
        _reduce(copy.graph, value)
    source = next(value for value in copy.graph.inputs if value.name not in copy.graph.initializers)
    results = run_model(serialize_model(copy), {str(source.name): image})
    largest = {str(value.name): float(results[f"{value.name}{_SUFFIX}"]) for value in chosen}
    infinite = [value for value in chosen if not np.isfinite(largest[str(value.name)])]
    if infinite:
        copy.graph.outputs.extend(value for value in infinite if value not in copy.graph.outputs)
        again = run_model(serialize_model(copy), {str(source.name): image})
        largest |= {str(value.name): _finite_largest(again[str(value.name)]) for value in infinite}
    finite = all(np.isfinite(results[str(output.name)]).all() for output in outputs if results[str(output.name)].dtype.kind == "f")
    return Probe(largest, finite)


def _reduce(graph: ir.Graph, value: ir.Value) -> None:
    name = f"{value.name}{_SUFFIX}"
    absolute = ir.node("Abs", [value], name=f"{name}/abs")
    absolute.outputs[0].name = f"{name}/abs"
    reduced = ir.node("ReduceMax", [absolute.outputs[0]], {"keepdims": 0}, name=name)
    reduced.outputs[0].name, reduced.outputs[0].dtype, reduced.outputs[0].shape = name, ir.DataType.FLOAT, ir.Shape(())
    graph.extend([absolute, reduced])
    graph.outputs.append(reduced.outputs[0])


def _finite_largest(array: NDArray[Any]) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
