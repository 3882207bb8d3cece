"""What a graph must pass before TensorRT gets it: onnx.checker, and one run on ONNX Runtime.

TensorRT-RTX builds on machines that cannot run what it builds; there this is the only check that the graph computes at all.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import BuildError, first_line
from ...graph.functions import DOMAIN
from ...graph.notes import expects_finite
from ...graph.run import run_model

_KNOWN = frozenset({"", "ai.onnx", DOMAIN})
_HINT = "Build with --fp32, or with --backend onnxruntime to see more of it; if neither helps, report this with the model."


def check_graph(model: ir.Model, data: bytes, feed: dict[str, NDArray[np.floating]]) -> None:
    """Raises BuildError if ONNX's checker or ONNX Runtime refuses a graph, or if it gives NaN where the model in FP32 does not.

    `data` is the serialised model, `feed` its input. A graph with nodes for our plugins is not run: only TensorRT knows them.
    """
    foreign = sorted({f"{node.op_type} ({node.domain})" for node in model.graph.all_nodes() if node.domain not in _KNOWN})
    if foreign:
        raise BuildError(
            f"TensorRT cannot read the model, as these operators are not ONNX's own: {', '.join(foreign)}.",
            "If ONNX Runtime optimised the model, give the model from before it did. --backend onnxruntime builds it as it is.",
        )
    if len(data) < onnx.checker.MAXIMUM_PROTOBUF:
        try:
            onnx.checker.check_model(data, full_check=True)
        except Exception as error:  # the checker, shape inference and protobuf have no base class in common
            raise BuildError(f"TensorRT cannot read the model, as its graph is not valid ONNX: {first_line(error)}", _HINT) from error
    if any(node.domain == DOMAIN for node in model.graph):
        return
    try:
        outputs = run_model(data, feed)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise BuildError(
            f"TensorRT cannot read the model, as its graph does not run on ONNX Runtime: {first_line(error)}", _HINT
        ) from error
    if expects_finite(model) and not all(np.isfinite(each).all() for each in outputs.values() if each.dtype.kind == "f"):
        half = any(output.dtype == ir.DataType.FLOAT16 for output in model.graph.outputs)
        raise BuildError(
            "The graph that was made for TensorRT gives NaN or infinity on the sample frame; in FP32 the model does not.",
            "Leave --io fp16 out; if that does not help, build with --fp32." if half else "Build with --fp32.",
        )
