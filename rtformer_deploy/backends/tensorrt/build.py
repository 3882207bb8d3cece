"""An inlined onnx_ir.Model to a TensorRT plan, in the same way for standard TensorRT 10 and 11 and for TensorRT-RTX.

Networks are strongly typed everywhere: a layer computes in the type that the graph gives it, so the passes before this set the
precision. On a machine without a GPU TensorRT-RTX builds ahead of time; standard TensorRT cannot.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import BuildError
from ...files import sha256
from ...formats.model_file import serialize_model
from ...graph.eight_bits import holds_fp8
from ...image.frames import preprocess
from ...image.samples import sample_frame
from ...nvidia.driver import GpuInfo, gpu_at, gpus, make_current
from ...types import Backend, BuildOptions, Engine, EngineInfo, ModelSpec, Progress
from .. import RTX_CAPABILITIES, check_options, has_fp8
from ..shapes import batch_range, tensors
from .check import check_graph
from .library import TrtLibrary, load_library
from .log import MessageLog, as_details, causes_first
from .messages import BuildMonitor, stopped_by_ctrl_c
from .plugins import register_quick_plugins
from .precision import precision_ahead

_ANOTHER_CACHE = "Choose another file for --timing-cache, or delete this one."


def build(model: ir.Model, spec: ModelSpec, options: BuildOptions, progress: Progress, backend: Backend, model_sha256: str) -> Engine:
    """A model -> an Engine whose plan is TensorRT's own bytes. Its precision is `requested` until the plan is opened on its GPU.

    `progress` is called for each phase that TensorRT reports; an error in it stops the build and is raised here. Raises BuildError with
    TensorRT's own messages, UsageError if there is no GPU `options.device`, MissingPackageError, KeyboardInterrupt after Ctrl-C.
    """
    library = load_library(backend)
    if library.is_rtx:  # even through the bindings of standard TensorRT
        check_options(options, "tensorrt-rtx")
    source, output = tensors(model, spec)
    batch = batch_range(source, options)
    gpu = _take_gpu(options)
    trt, log = library.module, MessageLog(library.module)
    builder = _create_builder(library, log)
    data = serialize_model(model)
    check_graph(model, data, {source.name: _sample(spec, batch[0]).astype(source.dtype)})
    if options.plugins:
        register_quick_plugins(trt)
    network = builder.create_network(_strongly_typed(trt))
    _parse(trt, network, log, data)
    capabilities = _capabilities(library, gpu, holds_fp8(model))
    config = _configure(library, builder, options, capabilities)
    _use_timing_cache(config, options.timing_cache, log)
    if not isinstance(source.shape[0], int):
        profile = builder.create_optimization_profile()
        profile.set_shape(source.name, *((size, *source.shape[1:]) for size in batch))
        config.add_optimization_profile(profile)
    precision = precision_ahead(trt, network, options.precision, options.mixed)
    plan, cache = _serialize(library, builder, network, config, log, progress)
    info = EngineInfo(
        spec=spec,
        backend=backend,
        inputs=(source,),
        outputs=(output,),
        batch=batch,
        precision=precision,
        builder_version=library.version,
        gpu=_target(library, gpu, capabilities),
        plan_sha256=sha256(plan),
        model_sha256=model_sha256,
        options={
            "library": library.name,
            "optimization_level": options.optimization_level,
            "workspace_mib": options.workspace_mib,
            "version_compatible": options.version_compatible,
            "hardware_compatible": options.hardware_compatible,
            "plugins": options.plugins,
            **({"strip": True} if options.strip else {}),
            **({"mixed": True} if options.mixed else {}),
        },
    )
    return Engine(plan, info, cache)


def _create_builder(library: TrtLibrary, log: MessageLog) -> Any:
    """A builder; standard TensorRT cannot make one without a GPU, and then the message says what can."""
    try:
        return library.module.Builder(log.logger)
    except Exception as error:  # pybind11 raises TypeError if the factory returned nothing
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
    told = [line for index in range(parser.num_errors) for line in _told(parser.get_error(index))]
    more = [line for line in log.messages() if not any(line in each for each in told)]
    raise BuildError(
        "TensorRT cannot read the model:", "rtformer-deploy inspect shows what the model holds.", details=as_details([*told, *more])
    )


def _told(problem: Any) -> list[str]:
    """One of the parser's errors as lines: the node, the kind of error and the first cause; then the rest of what TensorRT says."""
    node = f"{problem.node_operator() or 'a node'} {problem.node_name()}".strip()
    first, *rest = causes_first(problem.desc()) or [problem.func()]
    return [f"node {problem.node()} ({node}): {problem.code().name} in {problem.func()}: {first}", *(f"  {line}" for line in rest)]


def _sample(spec: ModelSpec, batch: int) -> NDArray[np.float32]:
    """The sample frame as the model takes it, (batch, 3, H, W)."""
    image = preprocess(sample_frame(spec.frame_size), spec.size, spec.mean, spec.std, spec.resize, corners=spec.resize_corners)
    return np.repeat(image[None], batch, 0)


def _configure(library: TrtLibrary, builder: Any, options: BuildOptions, capabilities: tuple[str, ...]) -> Any:
    trt = library.module
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # without it the inspector does not report a layer's types
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, but not FP32: it rounds the inputs of products to 10 bits
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.strip:
        config.set_flag(trt.BuilderFlag.REFIT)  # without it TensorRT counts on getting the same weights again
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    if library.name == "tensorrt-rtx" and capabilities != RTX_CAPABILITIES:  # these by default
        names = [f"SM{each.replace('.', '')}" for each in capabilities] or ["CURRENT"]
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    return config


def _use_timing_cache(config: Any, data: bytes | None, log: MessageLog) -> None:
    """Gives the builder the timings of earlier builds. Raises BuildError if TensorRT would silently ignore them."""
    if data is None:
        return
    cache = config.create_timing_cache(data)
    if cache is None or any("timing cache" in line.lower() for line in (*log.errors, *log.warnings)):
        raise BuildError("The timing cache cannot be read:", _ANOTHER_CACHE, details=log.lines())
    if not config.set_timing_cache(cache, False):
        raise BuildError("The timing cache is of another GPU or another version of TensorRT.", _ANOTHER_CACHE)


def _take_gpu(options: BuildOptions) -> GpuInfo | None:
    """The GPU to build on, current in this thread; None if there is none, as TensorRT-RTX does not need one."""
    if not gpus() and options.device == 0:
        return None
    make_current(options.device)
    return gpu_at(options.device)


def _capabilities(library: TrtLibrary, gpu: GpuInfo | None, fp8: bool) -> tuple[str, ...]:
    """The compute capabilities that an RTX plan is to hold code for; empty: that of this GPU alone, because it is in no list."""
    if library.name == "tensorrt-rtx" and gpu is not None and gpu.compute_capability not in RTX_CAPABILITIES:
        return ()
    return tuple(each for each in RTX_CAPABILITIES if has_fp8(each) or not fp8)


def _serialize(
    library: TrtLibrary, builder: Any, network: Any, config: Any, log: MessageLog, progress: Progress
) -> tuple[bytes, bytes | None]:
    """The plan, and the timing cache if the library keeps one."""
    monitor = BuildMonitor(library.module, progress)
    config.progress_monitor = monitor.monitor
    with stopped_by_ctrl_c(monitor):
        blob = builder.build_serialized_network(network, config)
    if monitor.failure is not None:
        raise monitor.failure
    if blob is None:
        raise BuildError(f"{library.version} could not build the engine:", details=log.lines())
    cache = None if library.is_rtx else config.get_timing_cache()
    return bytes(blob), None if cache is None else bytes(cache.serialize())


def _target(library: TrtLibrary, gpu: GpuInfo | None, capabilities: tuple[str, ...]) -> str:
    """What the plan runs on: this GPU, or for an RTX plan the compute capabilities it holds code for."""
    if library.is_rtx and capabilities:
        return f"compute capability {', '.join(capabilities)}"
    return "unknown" if gpu is None else str(gpu)
