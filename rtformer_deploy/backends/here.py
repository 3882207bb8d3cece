"""What this machine can do with an engine: run it, and read the precision of its layers."""

from __future__ import annotations

from dataclasses import replace

from ..errors import GateError, PrecisionError
from ..types import Backend, Engine, PrecisionFound
from . import backend_row
from .onnxruntime.providers import PROVIDER, provider_row


def complete_precision(engine: Engine, device: int = 0) -> Engine:
    """If an engine's precision is only "requested" and its layers can be read here -> the engine with the precision of its layers."""
    info = engine.info
    if not backend_row(info.backend).on_gpu or info.precision.state != "requested" or not runs_here(info.backend):
        return engine
    from .tensorrt.run import precision_after_open

    precision: PrecisionFound = precision_after_open(engine, device)
    return replace(engine, info=replace(engine.info, precision=precision))


def refuse_mismatch(engine: Engine) -> None:
    """Raises PrecisionError if the engine's layers do not have the precision that was asked for."""
    precision = engine.info.precision
    if precision.state == "mismatch":
        raise PrecisionError(
            f"--strict: {precision.asked} was asked for and is not what the engine has: {precision.detail or dict(precision.layers)}.",
            "Leave --strict out to build it all the same.",
        )


def can_run_here(engine: Engine) -> bool:
    """Whether this machine can open the engine: a CPU one always, one of a GPU that has its weights if there is a GPU."""
    provider = engine.info.options.get(PROVIDER)
    return not engine.info.stripped and runs_here(engine.info.backend if provider is None else provider_row(provider).graphs)


def runs_here(backend: Backend) -> bool:
    """Whether this machine runs a backend's engines."""
    if not backend_row(backend).on_gpu:
        return True
    from ..nvidia.driver import gpus

    return bool(gpus())


def check_can_compare(backend: Backend, max_flips: float | None) -> None:
    """Raises GateError if there is a bound on what changes, and a backend's engines cannot run here. Call it before a long build."""
    if max_flips is not None and not runs_here(backend):
        what = f"--max-flips: an engine of {backend} cannot run on this machine, so it cannot be compared with ONNX Runtime."
        raise GateError(what, "Build it on a machine with an NVIDIA GPU, or leave --max-flips out.")
