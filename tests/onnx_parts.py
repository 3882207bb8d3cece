"""Parts of an ONNX model that a test knows to be there, and what a model computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from rtformer_deploy.formats.model_file import serialize_model


def constant(value: ir.Value | None) -> NDArray[Any]:
    """The array of a value that is a constant or an initializer; a copy."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().copy()


def producer(value: ir.Value | None) -> ir.Node:
    """The node that a value comes from."""
    assert value is not None
    node = value.producer()
    assert node is not None
    return node


def run_model(model: ir.Model, image: NDArray[np.floating]) -> NDArray[Any]:
    """The only output of a model for the input named "input", by ONNX Runtime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(serialize_model(model), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": image})
    return np.asarray(output)
