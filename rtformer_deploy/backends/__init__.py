"""The backends, one folder and one row each: a model to an engine (`build`), an engine to a runner (`open_engine`).

A folder holds `build.py` (`build`), `run.py` (`check`, `open_sessions`) and `layers.py` (`layer_times`). A backend is imported only
when it is used. The PyTorch network (`torch/`) has no engine and therefore no row.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BuildError, EngineError, UsageError
from ..nvidia.driver import gpus, why_none
from ..types import Backend, BuildOptions, Engine, EngineInfo, ModelSpec, Progress, StoredWeight, no_progress

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from ..runtime.frame_runner import FrameRunner
    from ..runtime.layer_times import LayerTime
    from ..runtime.session import Session

#: Where Q/DQ pairs are placed in an INT8 graph; see `graph.qdq`.
Placement = Literal["tensorrt", "openvino", "onnxruntime"]


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One backend: its usual `title`, the `package` whose version counts, its `folder` here, the `placement` of its Q/DQ pairs.

    `on_gpu`: its engines run on an NVIDIA GPU, and the graph itself carries the precision (networks are strongly typed).
    `module` is what Python imports. `options` are the BuildOptions fields that its builder supports; `without` says why it lacks
    the others.
    """

    name: Backend
    title: str
    package: str
    module: str
    folder: str
    on_gpu: bool
    placement: Placement
    options: frozenset[str] = frozenset()
    without: str = "these are options of a GPU builder"

    @property
    def plugins(self) -> bool:
        """Whether it takes our kernels as plugins."""
        return "plugins" in self.options


#: The compute capabilities that an RTX plan runs on by default (from TensorRT-RTX's support matrix).
RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
#: The first one whose GPUs multiply FP8.
FP8_CAPABILITY = "8.9"

_RTX_OPTIONS = frozenset({"workspace_mib", "optimization_level", "io", "strip"})
_TENSORRT_OPTIONS = _RTX_OPTIONS | {"timing_cache", "version_compatible", "hardware_compatible", "plugins"}
_NOT_RTX = (
    f"it keeps no timings, its plans open under its own version and run on every GPU of compute capability {', '.join(RTX_CAPABILITIES)} "
    "as they are, and it has no plugins in Python"
)

_ROWS = (
    BackendRow("tensorrt", "TensorRT", "tensorrt", "tensorrt", "tensorrt", True, "tensorrt", _TENSORRT_OPTIONS),
    BackendRow("tensorrt-rtx", "TensorRT-RTX", "tensorrt-rtx-cu13", "tensorrt_rtx", "tensorrt", True, "tensorrt", _RTX_OPTIONS, _NOT_RTX),
    BackendRow("openvino", "OpenVINO", "openvino", "openvino", "openvino", False, "openvino"),
    BackendRow("onnxruntime", "ONNX Runtime", "onnxruntime-gpu", "onnxruntime", "onnxruntime", False, "onnxruntime"),
)

#: name -> row, in the order in which `auto` prefers them.
BACKENDS: dict[Backend, BackendRow] = {row.name: row for row in _ROWS}

#: The backend that all others are compared with.
REFERENCE: Backend = "onnxruntime"


def backend_row(name: Backend) -> BackendRow:
    """The row of a backend. Raises EngineError if this version does not know the name, for example from a newer version's plan."""
    if name not in BACKENDS:
        raise EngineError(
            f"The plan is for the backend {name!r}, which this version does not know.",
            f"There are: {', '.join(BACKENDS)}. Build it again: rtformer-deploy build-engine MODEL.onnx.",
        )
    return BACKENDS[name]


def build(
    model: ir.Model,
    spec: ModelSpec,
    backend: Backend,
    options: BuildOptions,
    progress: Progress = no_progress,
    *,
    model_sha256: str | None = None,
) -> Engine:
    """Builds an engine of `spec` from a model without functions, with one backend.

    For TensorRT the precision is the graph's own (networks are strongly typed). `model_sha256` is the hash of the user's file, which a
    builder cannot compute once passes have changed the model; None if `model` is unchanged. Raises BuildError,
    MissingPackageError, KeyboardInterrupt if the build was stopped with Ctrl-C.
    """
    check_options(options, backend)
    if model_sha256 is None:
        from ..formats.model_file import file_sha256

        model_sha256 = file_sha256(model)
    engine: Engine = _part(backend_row(backend), "build").build(model, spec, options, progress, backend, model_sha256)
    return engine


def build_on_provider(model: ir.Model, spec: ModelSpec, provider: str, options: BuildOptions, model_sha256: str) -> Engine:
    """Builds an engine of ONNX Runtime that runs on one of its plug-in execution providers: see `onnxruntime.providers`.

    Its precision is only requested: the provider tells nothing about its layers. Raises BuildError, MissingPackageError.
    """
    engine: Engine = _part(backend_row(REFERENCE), "providers").build(model, spec, provider, options, model_sha256)
    return engine


def check_options(options: BuildOptions, backend: Backend) -> None:
    """Raises BuildError that names every option that is set but not supported by the backend, or not on this machine."""
    row = backend_row(backend)
    if options.precision == "fp8":
        _check_fp8(row, options)
    default = BuildOptions()
    unknown = {
        name: flag.name
        for name, flag in options.flags().items()
        if name not in row.options and getattr(options, name) != getattr(default, name)
    }
    if not unknown:
        _check_io(options)
        return _check_strip(row, options)
    flags = ", ".join(unknown.values())
    others = [other.name for other in BACKENDS.values() if other.options >= unknown.keys()]
    elsewhere = f", or choose --backend {' or '.join(others)}" if others else ""
    raise BuildError(f"{row.title} has no {flags}: {row.without}.", f"Leave out {flags}{elsewhere}.")


def has_fp8(compute_capability: str) -> bool:
    """Whether GPUs of a compute capability, such as "8.6", multiply FP8."""
    return _numbers(compute_capability) >= _numbers(FP8_CAPABILITY)


def _check_fp8(row: BackendRow, options: BuildOptions) -> None:
    if not row.on_gpu:
        others = " or ".join(other.name for other in BACKENDS.values() if other.on_gpu)
        what = f"{row.title} has no FP8: that needs an NVIDIA GPU of compute capability {FP8_CAPABILITY} or later."
        raise BuildError(what, f"Build with --int8, or choose --backend {others}.")
    present = gpus()
    if options.device < len(present) and not has_fp8(present[options.device].compute_capability):
        what = f"FP8 needs a GPU of compute capability {FP8_CAPABILITY} or later; GPU {options.device} is {present[options.device]}."
        raise BuildError(what, "Build with --int8.")


def _check_io(options: BuildOptions) -> None:
    if options.io == "fp16" and options.precision == "fp32":
        what = "--io fp16 and --fp32 cannot be combined: what an FP32 engine reads and writes would be rounded to FP16."
        raise BuildError(what, "Add --fp16, --int8 or --fp8, or leave --io out.")


def _check_strip(row: BackendRow, options: BuildOptions) -> None:
    """TensorRT-RTX compiles how weights will be exchanged while it builds, with CUDA; standard TensorRT builds on a GPU anyway."""
    if options.strip and not gpus():
        what = f"--strip: {row.title} leaves weights out only on a machine with an NVIDIA GPU, and there is none here: {why_none()}."
        raise BuildError(what, "Build it where such a GPU is, or leave --strip out.")


def _numbers(compute_capability: str) -> tuple[int, ...]:
    return tuple(map(int, compute_capability.split(".")))


def put_weights(engine: Engine, model: ir.Model, weights: Mapping[str, StoredWeight], changed: Collection[str], device: int = 0) -> bytes:
    """A plan built with --strip, and the graph that it was built from with other weights -> the plan with these; see `tensorrt.refit`.

    `weights` are all weights of the graph, `changed` the names of those that the build had not. Raises EngineError, MissingPackageError.
    """
    from ..formats.model_file import serialize_model

    plan: bytes = _part(backend_row(engine.info.backend), "refit").refit(engine, serialize_model(model), weights, changed, device)
    return plan


def open_engine(engine: Engine, *, device: int = 0, threads: int | None = None, lanes: int = 1, graphs: bool = True) -> FrameRunner:
    """An engine to a FrameRunner with `lanes` sessions, each with one request in flight.

    All memory is allocated here, except a GPU's memory for frames, which grows with the largest submission. `device` is the GPU, and
    with `graphs` a TensorRT engine runs in CUDA graphs if they can be captured; a CPU engine ignores both. `threads` limits the CPU
    threads of the engine and of pre- and post-processing (None: all). The plan's backend and builder version are checked before it is
    opened. Raises EngineError with the command that rebuilds the plan, MissingPackageError, UsageError.
    """
    from ..runtime.frame_runner import FrameRunner

    info = engine.info
    if lanes < 1 or (threads is not None and threads < 1):
        raise UsageError(f"{lanes} lanes and {threads} threads: both start at 1.")
    check_engine(info)
    row = backend_row(info.backend)
    options: dict[str, Any] = {"graphs": graphs} if row.on_gpu else {}
    begin = time.perf_counter()
    sessions: Sequence[Session] = _part(row, "run").open_sessions(engine, device, threads, lanes, **options)
    runner = FrameRunner(sessions, info.spec, info.batch, threads, info)
    runner.start_ms = 1000 * (time.perf_counter() - begin)
    return runner


def open_reference(model: ir.Model, spec: ModelSpec, options: BuildOptions) -> FrameRunner:
    """A model without functions -> a FrameRunner on REFERENCE, with graph optimisation off: what every engine is compared with.

    `batch` and `threads` of the options count. Raises EngineError if REFERENCE cannot run the model, MissingPackageError.
    """
    runner: FrameRunner = _part(backend_row(REFERENCE), "reference").open_reference(model, spec, options)
    return runner


def check_engine(info: EngineInfo) -> None:
    """Raises EngineError or MissingPackageError, with the command that fixes it, if the plan cannot be opened here. Does not open it."""
    _part(backend_row(info.backend), "run").check(info)


def choose_backend() -> tuple[Backend, str]:
    """The backend that `auto` means on this machine, and the reason in one sentence."""
    present = gpus()
    if present:
        if _installed("tensorrt"):
            return "tensorrt", f"there is a GPU, {present[0]}, and TensorRT is installed."
        if _installed("tensorrt_rtx"):
            return "tensorrt-rtx", f"there is a GPU, {present[0]}, and TensorRT-RTX is installed (standard TensorRT is not)."
        reason = f"there is a GPU, {present[0]}, but no TensorRT is installed (pip install 'rtformer-deploy[tensorrt,gpu]')"
    else:
        reason = f"there is no GPU here ({why_none()})"
    if _installed("openvino"):
        return "openvino", f"{reason}; OpenVINO is the fastest engine on a CPU."
    return "onnxruntime", f"{reason}, and OpenVINO is not installed."


def layer_times(
    engine: Engine, images: NDArray[np.floating], rounds: int, *, device: int = 0, threads: int | None = None
) -> tuple[LayerTime, ...]:
    """The layers that ran on the input (N, 3, H, W), in the library's order, each with its time in `rounds` runs.

    Layers that were fused into others do not appear. Opens the engine again, with profiling. Raises EngineError, MissingPackageError.
    """
    reader = _part(backend_row(engine.info.backend), "layers")
    layers: list[LayerTime] = reader.layer_times(engine, images, rounds, device, threads)
    return tuple(layers)


def _part(row: BackendRow, part: str) -> ModuleType:
    return importlib.import_module(f".{row.folder}.{part}", __package__)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
