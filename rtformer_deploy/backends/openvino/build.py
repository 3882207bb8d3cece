"""ONNX model to an OpenVINO engine: one portable file, a stored zip of the IR (model.xml, model.bin), FP32 arithmetic."""

from __future__ import annotations

import collections
import io
from typing import Any

import onnx_ir as ir

from ...errors import BuildError, openvino_reason
from ...files import sha256
from ...formats.model_file import serialize_model
from ...types import Backend, BuildOptions, Engine, EngineInfo, ModelSpec, Progress, TensorSpec
from ..shapes import batch_range, output_shape, tensors
from ..verdict import judge
from .plan import compile_plan, core, import_openvino, note, pack, version

#: Layers that make up most of the cost, by their names in OpenVINO's execution graph.
COMPUTE_LAYERS = frozenset({"Convolution", "GroupConvolution", "Deconvolution", "MatMul", "FullyConnected", "ScaledDotProductAttention"})

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "i8": "int8", "u8": "int8"}


def build(model: ir.Model, spec: ModelSpec, options: BuildOptions, progress: Progress, backend: Backend, model_sha256: str) -> Engine:
    """An ONNX model to an OpenVINO engine for any CPU.

    FP32 pins OpenVINO's inference precision to f32; FP16 stores the weights as FP16 and computes in FP32, so its
    `PrecisionFound` is a mismatch that says so. Raises BuildError, MissingPackageError.
    """
    reader = core()
    source, target = tensors(model, spec)
    batch = batch_range(source, options)
    data = serialize_model(model)
    try:
        progress("OpenVINO: read the model", 0, 3)
        converted = reader.read_model(io.BytesIO(data))
        _bound_batch(converted, source, batch)
        _keep_names(converted, model)
        progress("OpenVINO: write the plan", 1, 3)
        plan = pack(converted, compress=options.precision == "fp16")
        progress("OpenVINO: open it and read its layers", 2, 3)
        layers = layer_precisions(compile_plan(plan, options.threads))
    except (RuntimeError, OSError) as error:  # OpenVINO's own exceptions are RuntimeErrors
        raise BuildError(f"OpenVINO refused the model: {openvino_reason(error)}") from error
    progress("OpenVINO: done", 3, 3)
    info = EngineInfo(
        spec=spec,
        backend=backend,
        inputs=(source,),
        outputs=(TensorSpec(target.name, output_shape(spec, target), target.dtype),),
        batch=batch,
        precision=judge(options.precision, layers, "cpu"),
        builder_version=version(),
        gpu=None,
        plan_sha256=sha256(plan),
        model_sha256=model_sha256,
    )
    return Engine(plan, info)


def layer_precisions(compiled: Any) -> dict[str, int]:
    """A compiled model to the count of its compute layers by precision, read from the kernels OpenVINO chose.

    The kernel's name ends in the precision of its activations ("brgconv_avx512_f32"). `runtimePrecision` would say f16 for a
    layer that only stores FP16 weights.
    """
    counts: collections.Counter[str] = collections.Counter()
    for layer in compiled.get_runtime_model().get_ops():
        if note(layer, "layerType") in COMPUTE_LAYERS:
            suffix = note(layer, "primitiveType").rsplit("_", 1)[-1].lower()
            counts[_PRECISIONS.get(suffix, suffix)] += 1
    return dict(counts)


def _keep_names(converted: Any, model: ir.Model) -> None:
    """Gives the layers that make an output their nodes' names back, which OpenVINO has replaced by the output's name."""
    names = {output.name: output.producer() for output in model.graph.outputs}
    for result in converted.get_results():
        layer = result.input_value(0).get_node()
        node = names.get(layer.get_friendly_name())
        if node is not None and node.name:
            layer.set_friendly_name(node.name)


def _bound_batch(model: Any, source: TensorSpec, batch: tuple[int, int, int]) -> None:
    """Sets a free batch dimension to the given range, so that OpenVINO can plan its memory."""
    ov = import_openvino()
    if not isinstance(source.shape[0], int):
        smallest, _, largest = batch
        first = ov.Dimension(smallest, largest) if smallest < largest else ov.Dimension(smallest)
        model.reshape({source.name: ov.PartialShape([first, *(ov.Dimension(size) for size in source.shape[1:])])})
