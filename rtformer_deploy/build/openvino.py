"""ONNX model to an OpenVINO engine: one portable file, a stored zip of the IR (model.xml, model.bin), FP32 arithmetic."""

from __future__ import annotations

import collections
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..errors import BuildError, MissingPackageError
from ..files import sha256
from ..onnx_file import serialize_model
from ..types import BuildOptions, Engine, EngineInfo, ModelSpec, Progress, TensorSpec
from .cpu import batch_range, first_line, judge, output_shape, refuse_foreign_options, step, tensors

#: Layers whose arithmetic makes up the cost, in the names of OpenVINO's execution graph.
COMPUTE_LAYERS = frozenset({"Convolution", "GroupConvolution", "Deconvolution", "MatMul", "FullyConnected", "ScaledDotProductAttention"})

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "i8": "int8", "u8": "int8"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same bytes


def build(model: ir.Model, spec: ModelSpec, options: BuildOptions, progress: Progress | None = None) -> Engine:
    """An ONNX model to an OpenVINO engine for any CPU.

    FP32 pins OpenVINO's inference precision to f32; FP16 stores the weights as FP16 and computes in FP32, so its
    `PrecisionFound` is a mismatch that says so. Raises BuildError, MissingPackageError.
    """
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingPackageError("openvino", None, "An OpenVINO engine") from error
    refuse_foreign_options(options, "OpenVINO")
    source, target = tensors(model, spec)
    batch = batch_range(source, options)
    data = serialize_model(model)
    try:
        step(progress, "OpenVINO: read the model", 0, 3)
        converted = ov.Core().read_model(io.BytesIO(data))
        _bound_batch(converted, source, batch)
        step(progress, "OpenVINO: write the plan", 1, 3)
        plan = pack(converted, compress=options.precision == "fp16")
        step(progress, "OpenVINO: open it and read its layers", 2, 3)
        layers = layer_precisions(_compile(plan, options.threads))
    except (RuntimeError, OSError) as error:  # OpenVINO's own exceptions are RuntimeErrors
        raise BuildError(f"OpenVINO refused the model: {first_line(error)}") from error
    step(progress, "OpenVINO: done", 3, 3)
    info = EngineInfo(
        spec=spec,
        backend="openvino",
        inputs=(source,),
        outputs=(TensorSpec(target.name, output_shape(spec, target), target.dtype),),
        batch=batch,
        precision=judge(options.precision, layers),
        builder_version=version(),
        gpu=None,
        plan_sha256=sha256(plan),
        model_sha256=sha256(data),
    )
    return Engine(plan, info)


def version() -> str:
    """OpenVINO's version as three numbers ("2026.4.1"), without its build number."""
    import openvino as ov

    return str(ov.get_version()).split("-")[0]


def pack(model: Any, *, compress: bool) -> bytes:
    """An openvino.Model as the bytes of a plan: a zip, stored uncompressed, of the IR's two files."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="rtformer-deploy-") as folder, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as plan:
        _save(model, Path(folder) / "model.xml", compress)
        for name in ("model.xml", "model.bin"):
            plan.writestr(zipfile.ZipInfo(name, _EPOCH), (Path(folder) / name).read_bytes())
    return buffer.getvalue()


def layer_precisions(compiled: Any) -> dict[str, int]:
    """A compiled model to the count of its compute layers by precision, read from the kernels OpenVINO chose.

    The kernel's name ends in the precision of its activations ("brgconv_avx512_f32"). `runtimePrecision` would say f16 of a layer
    that merely stores FP16 weights.
    """
    counts: collections.Counter[str] = collections.Counter()
    for layer in compiled.get_runtime_model().get_ops():
        notes = layer.get_rt_info()
        if _note(notes, "layerType") in COMPUTE_LAYERS:
            suffix = _note(notes, "primitiveType").rsplit("_", 1)[-1].lower()
            counts[_PRECISIONS.get(suffix, suffix)] += 1
    return dict(counts)


def _note(notes: Any, key: str) -> str:
    if key not in notes:
        return ""
    value = notes[key]
    return str(getattr(value, "value", value))


def _save(model: Any, path: Path, compress: bool) -> None:
    import openvino as ov

    ov.save_model(model, path, compress_to_fp16=compress)


def _bound_batch(model: Any, source: TensorSpec, batch: tuple[int, int, int]) -> None:
    """Sets a free batch dimension to the range asked for, so that OpenVINO can plan its memory."""
    import openvino as ov

    if not isinstance(source.shape[0], int):
        smallest, _, largest = batch
        first = ov.Dimension(smallest, largest) if smallest < largest else ov.Dimension(smallest)
        model.reshape({source.name: ov.PartialShape([first, *(ov.Dimension(size) for size in source.shape[1:])])})


def _compile(plan: bytes, threads: int | None) -> Any:
    import numpy as np
    import openvino as ov

    with zipfile.ZipFile(io.BytesIO(plan)) as file:
        weights = np.frombuffer(file.read("model.bin"), np.uint8)
        model = ov.Core().read_model(file.read("model.xml"), ov.Tensor(weights))
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return ov.Core().compile_model(model, "CPU", config)
