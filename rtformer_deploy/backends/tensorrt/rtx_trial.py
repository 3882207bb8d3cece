"""Tries whether TensorRT-RTX runs on a GPU that NVIDIA does not list for it, such as Hopper (9.0), and keeps its error message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import DeployError, EngineError, shorten
from ...nvidia.driver import GpuInfo, gpus, make_current
from ...runtime.session import rebuild_command
from ...types import EngineInfo
from .. import RTX_CAPABILITIES
from .library import load_library
from .log import MessageLog
from .plan import why_invalid


def is_listed(gpu: GpuInfo) -> bool:
    """Whether NVIDIA lists the GPU's compute capability for TensorRT-RTX."""
    return gpu.compute_capability in RTX_CAPABILITIES


def refused(info: EngineInfo, gpu: GpuInfo, error: DeployError) -> EngineError:
    """The error to raise if a plan does not open on a GPU that is not listed: one line, with the backend to use instead."""
    return EngineError(
        f"{_not_listed(gpu)}, and here it refuses: {_one_line(' '.join((error.what, *error.details)))}",
        f"Standard TensorRT runs there: {rebuild_command(replace(info, backend='tensorrt'))}",
    )


def refusal(gpu: GpuInfo) -> str | None:
    """Builds a plan of one convolution for a GPU, opens it and makes a context: None if that works, else TensorRT-RTX's reason in a line.

    Raises MissingPackageError or EngineError if the library is not there or does not load, and what `make_current` raises.
    """
    library = load_library("tensorrt-rtx", "Trying TensorRT-RTX", EngineError)
    make_current(gpu.index)
    trt, log = library.module, MessageLog(library.module)
    what = _trial(trt, log, by_name=not is_listed(gpu))
    return None if what is None else _one_line(f"{what}: {log.text() or 'it gave no reason'}")


def print_trials() -> None:
    """Prints whether TensorRT-RTX works on the GPUs here: "ok", "refused" or "none", then a readable line."""
    lines = {gpu: refusal(gpu) for gpu in gpus()}
    state = "none" if not lines else "ok" if not any(lines.values()) else "refused"
    results = (f"{gpu}: {line or 'a small engine was built and opened'}" for gpu, line in lines.items())
    print(state, "; ".join(results) or "there is no GPU to try it on", sep="\n")


def _trial(trt: Any, log: MessageLog, *, by_name: bool) -> str | None:
    """What TensorRT-RTX fails to do on the current GPU, or None if it works. `by_name`: build for this GPU's own capability."""
    builder = trt.Builder(log.logger)
    network = builder.create_network(0)
    source = network.add_input("x", trt.float32, (1, 8, 16, 16))
    layer = network.add_convolution_nd(source, 8, (3, 3), trt.Weights(np.ones((8, 8, 3, 3), np.float32)), trt.Weights())
    network.mark_output(layer.get_output(0))
    config = builder.create_builder_config()
    if by_name:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return "it builds no engine"
    runtime = trt.Runtime(log.logger)
    if hasattr(runtime, "get_engine_validity"):
        validity, reasons = runtime.get_engine_validity(plan)
        if validity.name == "INVALID":
            return f"it does not open its own engine ({why_invalid(int(reasons))})"
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return "it does not open its own engine"
    return "it makes no execution context" if engine.create_execution_context() is None else None


def _not_listed(gpu: GpuInfo) -> str:
    return f"TensorRT-RTX is for compute capability {', '.join(RTX_CAPABILITIES)}; {gpu} is none of them"


def _one_line(text: str) -> str:
    return shorten(" ".join(text.split()), 300)
