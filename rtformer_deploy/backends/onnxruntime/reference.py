"""What every engine is compared with: ONNX Runtime on the model as it is, with graph optimisation off.

Its optimiser computes some graphs wrongly, and an ONNX Runtime engine would be compared with itself.
"""

from __future__ import annotations

import onnx_ir as ir

from ...errors import EngineError, MissingPackageError, first_line
from ...files import sha256
from ...formats.model_file import serialize_model
from ...runtime.cpu_session import CpuSession
from ...runtime.frame_runner import FrameRunner
from ...types import BuildOptions, EngineInfo, ModelSpec, PrecisionFound, TensorSpec
from ..shapes import batch_range, output_shape, tensors
from .run import ONNXRuntimeSession, session_options


def open_reference(model: ir.Model, spec: ModelSpec, options: BuildOptions) -> FrameRunner:
    """A model without functions -> a FrameRunner that computes what the model says, slowly.

    Raises EngineError if ONNX Runtime cannot run the model, MissingPackageError.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingPackageError("onnxruntime", None, "The comparison with ONNX Runtime") from error
    source, target = tensors(model, spec)
    batch = batch_range(source, options)
    data = serialize_model(model)
    settings = session_options(options.threads)
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4  # the error says it
    try:
        opened = ort.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise EngineError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error
    info = EngineInfo(
        spec=spec,
        backend="onnxruntime",
        inputs=(source,),
        outputs=(TensorSpec(target.name, output_shape(spec, target), target.dtype),),
        batch=batch,
        precision=PrecisionFound("fp32", "verified"),
        builder_version=str(ort.__version__),
        gpu=None,
        plan_sha256=sha256(data),
        model_sha256=sha256(data),
    )
    session = CpuSession(ONNXRuntimeSession(opened, info), spec, batch[0], options.threads)
    return FrameRunner([session], spec, batch, options.threads, info)
