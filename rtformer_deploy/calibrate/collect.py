"""Runs a model without functions in ONNX Runtime, one image at a time, and keeps a histogram of each inner tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import CalibrationError
from ..formats.model_file import parse_model, serialize_model
from ..formats.tensor_types import infer_types
from ..image.frames import preprocess
from ..types import Frame, ModelSpec
from .histogram import BINS, Histogram
from .not_finite import cause

_MEASURED = [ir.TensorType(dtype) for dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)]  # no sequences
_GROUP = 64 * 2**20  # bytes of inner tensors that are fetched at once


class Collector:
    """Runs a model with the tensors `names` as further outputs and keeps a histogram of each, never the activations."""

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int | None = None) -> None:
        import onnxruntime as ort

        self.histograms = {name: Histogram() for name in names}
        self._model = parse_model(serialize_model(model))
        self._input = next(value.name for value in self._model.graph.inputs if value.name not in self._model.graph.initializers)
        self._outputs = {value.name for value in self._model.graph.outputs}
        self._groups = _expose(self._model, names)
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors
        options.enable_cpu_mem_arena = False  # memory goes back after each run
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(serialize_model(self._model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise CalibrationError(f"ONNX Runtime cannot run the model with its inner tensors as outputs: {error}") from error

    def show(self, image: NDArray[np.float32], name: str) -> None:
        """Counts every tensor's values for one input (N, 3, H, W).

        Raises CalibrationError for NaN, and for infinity that reaches an output; it names the first tensor that is not finite. Infinity
        that ends inside, as in a mask before a softmax, is not counted.
        """
        first, broken = "", False
        if self._input in self.histograms:
            self.histograms[str(self._input)].add(image)
        for group in self._groups:
            for tensor, values in zip(group, self._session.run(group, {self._input: image}), strict=True):
                try:
                    self.histograms[tensor].add(values)
                except ValueError:
                    first = first or tensor
                    broken = broken or tensor in self._outputs or bool(np.isnan(values).any())
                    self.histograms[tensor].add(values[np.isfinite(values)])
        if broken:
            raise self._not_finite(first, image, name)

    def _not_finite(self, tensor: str, image: NDArray[np.float32], name: str) -> CalibrationError:
        node = next(node for node in self._model.graph for output in node.outputs if output.name == tensor)
        known = {str(value.name) for value in self._model.graph.outputs}
        names = list(dict.fromkeys(str(value.name) for value in node.inputs if value is not None and value.name in known))
        read = dict(zip(names, self._session.run(names, {self._input: image}), strict=True)) if names else {}
        (values,) = self._session.run([tensor], {self._input: image})
        if self._input in {value.name for value in node.inputs if value is not None}:
            read[str(self._input)] = image
        what, hint = cause(node, read)
        kind = "NaN" if np.isnan(values).any() else "infinity"
        return CalibrationError(f"The tensor {tensor} holds {kind} on {name}, and none before it does: {what}.", hint)


def show_frame(collector: Collector, frame: Frame, spec: ModelSpec, name: str) -> None:
    """Shows a frame of any size to a collector as the model's input, repeated to its batch. Raises as `Collector.show`."""
    batch = spec.input.shape[0]
    ready = preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, corners=spec.resize_corners)
    collector.show(np.repeat(ready[None], batch if isinstance(batch, int) else 1, 0), name)


def float_tensors(model: ir.Model, inlined: ir.Model) -> list[str]:
    """The names of the FP32 and FP16 tensors between the nodes of `model`, its input among them; `inlined` is `model` without functions."""
    infer_types(inlined)
    types = {output.name: output.type for node in inlined.graph for output in node.outputs}
    types |= {value.name: value.type for value in inlined.graph.inputs if value.name not in inlined.graph.initializers}
    names = [value.name for value in model.graph.inputs] + [output.name for node in model.graph for output in node.outputs]
    return [name for name in names if name and types.get(name) in _MEASURED]


def state(histograms: Mapping[str, Histogram]) -> dict[str, NDArray[Any]]:
    """Histograms as arrays for a checkpoint, in the same order."""
    items = list(histograms.values())
    return {
        "counts": np.stack([item.counts for item in items]),
        "sizes": np.array([[item.limit, item.largest, item.zeros, item.top] for item in items], np.float64),
    }


def restore(histograms: Mapping[str, Histogram], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Restores histograms from a checkpoint's arrays. Raises ValueError, and changes nothing, if they do not fit."""
    if arrays["counts"].shape != (len(histograms), BINS) or arrays["sizes"].shape != (len(histograms), 4):
        raise ValueError(f"it does not hold {len(histograms)} histograms of {BINS} bins")
    if arrays["counts"].dtype != np.int64 or arrays["sizes"].dtype != np.float64 or arrays["counts"].min() < 0:
        raise ValueError("its counts are not whole numbers")
    if not np.isfinite(arrays["sizes"]).all() or arrays["sizes"].min() < 0:
        raise ValueError("its limits are not numbers from 0 on")
    for item, counts, sizes in zip(histograms.values(), arrays["counts"], arrays["sizes"], strict=True):
        item.counts = counts.astype(np.int64)
        item.limit, item.largest, item.zeros, item.top = float(sizes[0]), float(sizes[1]), int(sizes[2]), int(sizes[3])


def _expose(model: ir.Model, names: Sequence[str]) -> list[list[str]]:
    """Makes the tensors outputs, and returns their names in groups that do not take too much memory."""
    known = {output.name: output for node in model.graph for output in node.outputs}
    have = {value.name for value in model.graph.outputs}
    groups: list[list[str]] = [[]]
    size = 0
    for name in names:
        value = known.get(name)
        if value is None:
            continue
        if name not in have:
            model.graph.outputs.append(value)
        size += _bytes(value)
        if size > _GROUP and groups[-1]:
            groups.append([])
            size = _bytes(value)
        groups[-1].append(name)
    return [group for group in groups if group]


def _bytes(value: ir.Value) -> int:
    shape = () if value.shape is None else value.shape
    return 4 * math.prod(size if isinstance(size, int) else 1 for size in shape)
