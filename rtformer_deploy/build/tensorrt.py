"""An inlined onnx_ir.Model to a TensorRT plan: one way for standard TensorRT 10 and 11 and for TensorRT-RTX.

Networks are strongly typed everywhere: a layer computes in the type that the graph gives it, so precision is a matter of the passes
before this. On a machine without a GPU TensorRT-RTX builds ahead of time; standard TensorRT cannot.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx_ir as ir

from ..errors import BuildError
from ..files import sha256
from ..gpu import gpus
from ..onnx_file import serialize_model
from ..trt_library import TrtLibrary, load_library
from ..trt_log import MessageLog
from ..types import Backend, BuildOptions, Engine, EngineInfo, ModelSpec, PrecisionFound, Progress
from .shapes import batch_range, tensors
from .trt_messages import BuildMonitor, stopped_by_ctrl_c

#: What an RTX plan runs on when nothing else is asked for (TensorRT-RTX's support matrix).
RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
_COMPUTE = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM")
_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "INT8": "int8", "BF16": "bf16", "FP8": "fp8"}


def build(model: ir.Model, spec: ModelSpec, options: BuildOptions, progress: Progress | None, backend: Backend) -> Engine:
    """A model -> an Engine whose plan is TensorRT's own bytes. Its precision is `requested` until the plan is opened on its GPU.

    Raises BuildError with TensorRT's own words, MissingPackageError, KeyboardInterrupt after Ctrl-C.
    """
    library = load_library(backend)
    _refuse_what_means_nothing(options, library)
    source, output = tensors(model, spec)
    batch = batch_range(source, options)
    trt, log = library.module, MessageLog(library.module)
    builder = _create_builder(library, log)
    network = builder.create_network(_strongly_typed(trt))
    _parse(trt, network, log, serialize_model(model))
    config = _configure(library, builder, options)
    if not isinstance(source.shape[0], int):
        profile = builder.create_optimization_profile()
        profile.set_shape(source.name, *((size, *source.shape[1:]) for size in batch))
        config.add_optimization_profile(profile)
    precision = _precision_ahead(trt, network, options)
    plan, cache = _serialize(library, builder, network, config, log, progress)
    info = EngineInfo(
        spec=spec,
        backend=backend,
        inputs=(source,),
        outputs=(output,),
        batch=batch,
        precision=precision,
        builder_version=library.version,
        gpu=_target(library, options),
        plan_sha256=sha256(plan),
        model_sha256=sha256(serialize_model(model)),
        options={
            "library": library.name,
            "optimization_level": options.optimization_level,
            "workspace_mib": options.workspace_mib,
            "version_compatible": options.version_compatible,
            "hardware_compatible": options.hardware_compatible,
        },
    )
    return Engine(plan, info, cache)


def _create_builder(library: TrtLibrary, log: MessageLog) -> Any:
    """A builder; standard TensorRT refuses to make one without a GPU, and then the message says who can."""
    try:
        return library.module.Builder(log.logger)
    except Exception as error:  # pybind11 raises TypeError where the factory returned nothing
        hint = None if gpus() else "Build on the machine with the GPU, or with --backend tensorrt-rtx, which builds without one."
        raise BuildError(f"{library.version} cannot make a builder here: {log.text() or error}", hint) from error


def _strongly_typed(trt: Any) -> int:
    """The creation flag of 10.x; later versions accept it, and are strongly typed without it."""
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def _parse(trt: Any, network: Any, log: MessageLog, data: bytes) -> None:
    parser = trt.OnnxParser(network, log.logger)
    if parser.parse(data):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [f"  {error.node_name() or error.node_operator() or 'the model'}: {error.desc().strip().splitlines()[-1]}" for error in errors]
    raise BuildError(
        "TensorRT cannot read the model:\n" + "\n".join(lines or [log.text()]), "rtformer-deploy inspect shows what the model holds."
    )


def _configure(library: TrtLibrary, builder: Any, options: BuildOptions) -> Any:
    trt = library.module
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector tells a layer's types only then
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.timing_cache is not None:
        config.set_timing_cache(config.create_timing_cache(options.timing_cache), False)
    if _needs_current_capability(library, options):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    return config


def _needs_current_capability(library: TrtLibrary, options: BuildOptions) -> bool:
    """An RTX plan is for the listed capabilities; a GPU here that is none of them is asked for by name."""
    found = gpus()
    return (
        library.name == "tensorrt-rtx" and options.device < len(found) and found[options.device].compute_capability not in RTX_CAPABILITIES
    )


def _serialize(
    library: TrtLibrary, builder: Any, network: Any, config: Any, log: MessageLog, progress: Progress | None
) -> tuple[bytes, bytes | None]:
    """The plan, and the timing cache where the library keeps one."""
    monitor = BuildMonitor(library.module, progress)
    config.progress_monitor = monitor.monitor
    with stopped_by_ctrl_c(monitor):
        blob = builder.build_serialized_network(network, config)
    if monitor.stopped:
        raise BuildError("The build was stopped.")
    if blob is None:
        raise BuildError(f"{library.version} could not build the engine:\n{log.text() or '  it gave no reason'}")
    cache = None if library.is_rtx else config.get_timing_cache()
    return bytes(blob), None if cache is None else bytes(cache.serialize())


def _precision_ahead(trt: Any, network: Any, options: BuildOptions) -> PrecisionFound:
    """The types that the network's layers were given, before any kernel is chosen: enough to see that an FP16 build would be FP32."""
    compute = {getattr(trt.LayerType, name) for name in _COMPUTE if hasattr(trt.LayerType, name)}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantized = {layer.get_output(0).name for layer in layers if layer.type == getattr(trt.LayerType, "DEQUANTIZE", None)}
    counts = Counter(_layer_precision(layer, dequantized) for layer in layers if layer.type in compute)
    text = ", ".join(f"{count} compute layers in {name}" for name, count in sorted(counts.items())) or "no compute layers"
    if options.precision not in counts or (options.precision == "fp32" and set(counts) != {"fp32"}):
        return PrecisionFound(options.precision, "mismatch", dict(counts), f"the network has {text}")
    detail = f"the network has {text}; the plan's own layers are read when it is opened on its GPU"
    return PrecisionFound(options.precision, "requested", dict(counts), detail)


def _layer_precision(layer: Any, dequantized: set[str]) -> str:
    """A layer between Q and DQ computes in int8, whatever type its output is declared with."""
    if layer.num_inputs > 0 and layer.get_input(0).name in dequantized:
        return "int8"
    return _precision_name(layer.get_output(0).dtype)


def _precision_name(dtype: Any) -> str:
    name = str(dtype.name)
    return _PRECISIONS.get(name, name.lower())


def _target(library: TrtLibrary, options: BuildOptions) -> str:
    """What the plan runs on: this GPU, or for an RTX plan the compute capabilities it holds code for."""
    found = gpus()
    if library.is_rtx and not _needs_current_capability(library, options):
        return f"compute capability {', '.join(RTX_CAPABILITIES)}"
    return str(found[options.device]) if options.device < len(found) else "unknown"


def _refuse_what_means_nothing(options: BuildOptions, library: TrtLibrary) -> None:
    if not library.is_rtx:
        return
    asked = {
        "--timing-cache": options.timing_cache is not None,
        "--version-compatible": options.version_compatible,
        "--hardware-compatible": options.hardware_compatible,
    }
    given = [flag for flag, value in asked.items() if value]
    if given:
        raise BuildError(
            f"TensorRT-RTX has no {', '.join(given)}: it keeps no timings, its plans open under its own version, and run on every GPU of "
            f"compute capability {', '.join(RTX_CAPABILITIES)} as they are.",
            f"Leave out {', '.join(given)}, or choose --backend tensorrt.",
        )
