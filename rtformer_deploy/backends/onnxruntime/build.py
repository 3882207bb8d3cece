"""ONNX model to an ONNX Runtime engine: the plan is an ONNX file, opened and run once to read what its layers compute in."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ...errors import BuildError, MissingPackageError, OutputError, first_line
from ...files import sha256, temporary_folder
from ...formats.model_file import parse_model, serialize_model
from ...graph.edit import initializer
from ...types import Backend, BuildOptions, Engine, EngineInfo, ModelSpec, Progress, TensorSpec
from ..shapes import batch_range, output_shape, tensors
from ..verdict import judge

_CONVOLVE = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConvInteger"})
_MULTIPLY = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm"})
#: Operators that make up most of the cost, by their names after ONNX Runtime's own fusions.
COMPUTE_LAYERS = _CONVOLVE | _MULTIPLY | {"Attention", "MultiHeadAttention", "DynamicQuantizeMatMul"}

_PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}
_SMALLEST = 16  # elements; smaller tensors are scales, epsilons and Resize's arguments: FP16 saves nothing there and may break them


def build(model: ir.Model, spec: ModelSpec, options: BuildOptions, progress: Progress, backend: Backend, model_sha256: str) -> Engine:
    """An ONNX model to an ONNX Runtime engine for any CPU; the plan is ONNX and opens in any tool that reads it.

    FP16 stores the weights as FP16 and computes in FP32, so its `PrecisionFound` is a mismatch that says so.
    Raises BuildError, MissingPackageError.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingPackageError("onnxruntime", None, "An ONNX Runtime engine") from error
    source, target = tensors(model, spec)
    batch = batch_range(source, options)
    data = serialize_model(model)
    progress("ONNX Runtime: write the plan", 0, 2)
    plan = store_fp16(data) if options.precision == "fp16" else data
    progress("ONNX Runtime: open it, run it once and read its layers", 1, 2)
    try:
        layers = layer_precisions(plan, source.name, (batch[0], *map(int, source.shape[1:])), options.threads, source.dtype)
    except OutputError:  # there is no temporary folder
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise BuildError(f"ONNX Runtime refused the model: {first_line(error)}") from error
    progress("ONNX Runtime: done", 2, 2)
    info = EngineInfo(
        spec=spec,
        backend=backend,
        inputs=(source,),
        outputs=(TensorSpec(target.name, output_shape(spec, target), target.dtype),),
        batch=batch,
        precision=judge(options.precision, layers, "cpu"),
        builder_version=str(ort.__version__),
        gpu=None,
        plan_sha256=sha256(plan),
        model_sha256=model_sha256,
    )
    return Engine(plan, info)


def store_fp16(data: bytes) -> bytes:
    """ONNX bytes to ONNX bytes whose float32 weights are stored as FP16 and cast back: half the file, the same arithmetic.

    Weights that FP16 cannot hold (above 65504), and tensors of fewer than 16 elements, stay as they are.
    """
    model = parse_model(data)
    graph = model.graph
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _SMALLEST or value.is_graph_output():
            continue
        array = tensor.numpy()
        if not np.all(np.abs(array) <= np.finfo(np.float16).max):
            continue
        name = str(value.name)
        small = initializer(graph, f"{name}.fp16", array.astype(np.float16))
        cast = ir.node("Cast", [small], {"to": int(ir.DataType.FLOAT)}, name=f"{name}.fp32")
        cast.outputs[0].shape, cast.outputs[0].dtype = ir.Shape(array.shape), ir.DataType.FLOAT
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        graph.initializers.pop(name)
        cast.outputs[0].name = name
        graph.insert_before(graph[0], cast)
    return serialize_model(model)


def layer_precisions(plan: bytes, name: str, shape: tuple[int, ...], threads: int | None, dtype: str = "float32") -> dict[str, int]:
    """Runs the plan once on zeros and counts its compute layers by the type of their input, from ONNX Runtime's own profile."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # the error says it
    options.enable_profiling = True
    if threads is not None:
        options.intra_op_num_threads = threads
    with temporary_folder() as folder:
        options.profile_file_prefix = str(folder / "profile")
        session = ort.InferenceSession(plan, options, providers=["CPUExecutionProvider"])
        session.run(None, {name: np.zeros(shape, dtype)})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    counts: collections.Counter[str] = collections.Counter()
    for event in events:
        notes = event.get("args", {})
        if event.get("cat") == "Node" and notes.get("op_name") in COMPUTE_LAYERS:
            kind = next(iter(notes["input_type_shape"][0]))
            counts[_PRECISIONS.get(kind, kind)] += 1
    return dict(counts)
