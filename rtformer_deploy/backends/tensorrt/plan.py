"""A TensorRT plan, before and while it is open: whether it can run here, and the engine and contexts that lanes run."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from ...errors import EngineError
from ...nvidia.driver import GpuInfo, gpu_at, gpus, why_none
from ...runtime.session import rebuild_command, rebuild_hint
from ...types import Engine, EngineInfo
from .. import backend_row
from .library import TrtLibrary, load_library
from .log import MessageLog

_DTYPES = {"FLOAT": "float32", "UINT8": "uint8", "HALF": "float16"}
#: The bits of TensorRT-RTX's EngineInvalidityDiagnostics.
INVALID_BECAUSE = {
    1: "it was built by another version of TensorRT-RTX",
    2: "it holds no code for this GPU's compute capability",
    4: "the NVIDIA driver is too old",
    8: "the CUDA runtime is too old",
    16: "the GPU has too little memory",
    32: "its bytes are not a plan",
    64: "CUDA does not work here (nvidia-smi shows whether the driver does)",
}


class OpenPlan:
    """Implements `lanes.engine.CudaEngine`: a deserialized plan with its library, log, runtime and engine, which live as long as this.

    `runtime_config` configures new contexts; None if there is nothing to configure. `batches` are the only batch sizes that run, smallest
    first; a batch between two of them runs as the larger one. If it is empty, every batch size runs as it is. TensorRT-RTX compiles
    kernels for each new batch size, so there `batches` are the plan's min, opt and max.
    """

    def __init__(self, info: EngineInfo, library: TrtLibrary, log: MessageLog, runtime: Any, engine: Any) -> None:
        self.info, self.library, self.log = info, library, log
        self.runtime, self.engine = runtime, engine
        self.runtime_config: Any = None
        self.batches = tuple(sorted(set(info.batch))) if library.is_rtx else ()

    def create_context(self) -> PlanContext:
        """A new execution context with its own device memory; TensorRT-RTX compiles its kernels here. Raises EngineError."""
        config = self.runtime_config
        context = self.engine.create_execution_context() if config is None else self.engine.create_execution_context(config)
        if context is None:
            raise self.failure("TensorRT could not make an execution context; the GPU's memory may be full")
        return PlanContext(self, context)

    def failure(self, what: str) -> EngineError:
        """An error with TensorRT's own messages."""
        return EngineError(f"{what}:", details=self.log.lines()) if self.log.text() else EngineError(f"{what}; it gave no reason.")


class PlanContext:
    """Implements `lanes.engine.ExecutionContext` over `context`, TensorRT's IExecutionContext of an open plan."""

    def __init__(self, plan: OpenPlan, context: Any) -> None:
        self.plan, self.context = plan, context

    def set_batch(self, batch: int) -> None:
        """See `ExecutionContext`. Bound memory must have room for the engine's largest batch, since more than `batch` images may run."""
        source = self.plan.info.inputs[0]
        size = next((size for size in self.plan.batches if size >= batch), batch)
        if not self.context.set_input_shape(source.name, (size, *map(int, source.shape[1:]))):
            raise self.plan.failure(f"The engine does not take a batch of {batch}")

    def bind(self, name: str, address: int) -> None:
        if not self.context.set_tensor_address(name, address):
            raise self.plan.failure(f"TensorRT does not take the memory for {name}")

    def execute(self, stream: int) -> None:
        if not self.context.execute_async_v3(stream):
            raise self.plan.failure("TensorRT could not start the engine")


def refuse_what_cannot_open(info: EngineInfo) -> None:
    """Raises EngineError or MissingPackageError if a plan cannot open on this machine, version or GPU, with the rebuild command."""
    found = gpus()
    if not found:
        raise EngineError(
            f"This {backend_row(info.backend).title} plan{_built_for(info)} needs an NVIDIA GPU, and there is none here: {why_none()}.",
            f"The plan itself is fine where such a GPU is. For this machine's CPU: {rebuild_command(_on_a_cpu(info))}",
        )
    _refuse_another_version(info, _load(info).version)
    if not any(runs_on(info, gpu) for gpu in found):
        raise _another_gpu(info, found)


def _on_a_cpu(info: EngineInfo) -> EngineInfo:
    """What comes nearest to an engine on a CPU, which has no FP8, no FP16 input and no plans without weights."""
    asked = "int8" if info.precision.asked == "fp8" else info.precision.asked
    return replace(info, backend="openvino", inputs=(info.spec.input,), precision=replace(info.precision, asked=asked), refit=None)


def choose_gpu(info: EngineInfo, device: int) -> GpuInfo:
    """GPU `device`, if the plan runs on it. Raises UsageError if there is no such GPU, EngineError if the plan does not run on it."""
    gpu = gpu_at(device)
    if not runs_on(info, gpu):
        raise _another_gpu(info, (gpu,))
    return gpu


def runs_on(info: EngineInfo, gpu: GpuInfo) -> bool:
    """Whether a plan was built for such a GPU.

    A standard plan holds kernels that were timed on one model of GPU (with --hardware-compatible: for Ampere and later); an RTX plan
    holds code for some compute capabilities, and later ones with the same major number run it too.
    """
    target = info.gpu or ""
    ((major, minor),) = _numbers(gpu.compute_capability)
    if info.options.get("hardware_compatible"):
        return major >= 8
    if info.backend == "tensorrt" and target.endswith(")"):
        return str(gpu) == target
    targets = _numbers(target.rpartition("(")[2])  # only the part in brackets of "NVIDIA X 1.5 (9.0)"
    return not targets or any(major == built and minor >= least for built, least in targets)  # no target: only TensorRT itself knows


def open_plan(engine: Engine) -> OpenPlan:
    """Deserializes a plan in the current CUDA context. Raises EngineError with TensorRT's messages."""
    info = engine.info
    library = _load(info)
    trt, log = library.module, MessageLog(library.module)
    runtime = trt.Runtime(log.logger)
    if info.options.get("version_compatible"):
        runtime.engine_host_code_allowed = True  # such a plan contains the runtime of its own version
    if hasattr(runtime, "get_engine_validity"):
        validity, reasons = runtime.get_engine_validity(engine.plan)
        if validity.name == "INVALID":
            raise EngineError(f"TensorRT-RTX does not open this plan here: {why_invalid(int(reasons))}.", rebuild_hint(info))
    trt_engine = runtime.deserialize_cuda_engine(engine.plan)
    if trt_engine is None:
        raise EngineError(f"{library.version} cannot open this plan:", rebuild_hint(info), details=log.lines())
    plan = OpenPlan(info, library, log, runtime, trt_engine)
    _check_tensors(plan)
    return plan


def _check_tensors(plan: OpenPlan) -> None:
    """Checks that the plan's inputs and outputs match its EngineInfo, since buffers are allocated from that."""
    engine = plan.engine
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    actual = {name: _DTYPES.get(engine.get_tensor_dtype(name).name, engine.get_tensor_dtype(name).name) for name in names}
    expected = {spec.name: spec.dtype for spec in (*plan.info.inputs, *plan.info.outputs)}
    if actual != expected:
        raise EngineError(f"The plan has the inputs and outputs {actual}; its engine.plan.json says {expected}.", rebuild_hint(plan.info))


def _load(info: EngineInfo) -> TrtLibrary:
    return load_library(info.backend, f"A {backend_row(info.backend).title} plan", EngineError)


def _refuse_another_version(info: EngineInfo, here: str) -> None:
    """Raises EngineError unless this version built the plan. For a version-compatible plan only the major number has to match."""
    built = info.builder_version
    if built == here or (info.options.get("version_compatible") and _without_minor(built) == _without_minor(here)):
        return
    raise EngineError(
        f"The plan was built by {built}; here is {here}, and a plan opens only under the version that built it.",
        f"Install that version, or build it again here: {rebuild_command(info)}",
    )


def _another_gpu(info: EngineInfo, found: tuple[GpuInfo, ...]) -> EngineError:
    here = ", ".join(str(gpu) for gpu in found)
    return EngineError(f"The plan was built for {info.gpu}; here is {here}, on which it does not run.", rebuild_hint(info))


def _built_for(info: EngineInfo) -> str:
    return f", built for {info.gpu}," if info.gpu and info.gpu != "unknown" else ""


def why_invalid(reasons: int) -> str:
    """TensorRT-RTX's EngineInvalidityDiagnostics in words; several bits may be set."""
    return ", and ".join(text for bit, text in INVALID_BECAUSE.items() if reasons & bit) or f"it gave the reason {reasons}"


def _without_minor(version: str) -> str:
    """ "tensorrt 10.3.0 (x)" -> "tensorrt 10 (x)"."""
    return re.sub(r"(\d+)(\.\d+)+", r"\1", version, count=1)


def _numbers(text: str) -> list[tuple[int, int]]:
    """The compute capabilities in a text: "8.0, 8.6" -> [(8, 0), (8, 6)]."""
    return [(int(major), int(minor)) for major, minor in re.findall(r"\b(\d+)\.(\d+)\b", text)]
