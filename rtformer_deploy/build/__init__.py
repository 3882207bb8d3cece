"""Builders, one file per backend: an inlined onnx_ir.Model in, an Engine out."""

from __future__ import annotations

import importlib.util

import onnx_ir as ir

from ..gpu import gpus, why_none
from ..types import Backend, BuildOptions, Engine, ModelSpec, Progress


def build(model: ir.Model, spec: ModelSpec, backend: Backend, options: BuildOptions, progress: Progress | None = None) -> Engine:
    """Builds an engine of `spec` from a model without functions, with one backend.

    For TensorRT the precision is the graph's own (networks are strongly typed). Raises BuildError, MissingPackageError,
    KeyboardInterrupt where the build was stopped with Ctrl-C.
    """
    if backend in ("tensorrt", "tensorrt-rtx"):
        from . import tensorrt

        return tensorrt.build(model, spec, options, progress, backend)
    module = importlib.import_module(f".{backend}", __package__)
    engine: Engine = module.build(model, spec, options, progress)
    return engine


def choose_backend() -> tuple[Backend, str]:
    """The backend that `auto` means on this machine, and the reason in one sentence."""
    found = gpus()
    if found:
        if _installed("tensorrt"):
            return "tensorrt", f"there is a GPU, {found[0]}, and TensorRT is installed."
        if _installed("tensorrt_rtx"):
            return "tensorrt-rtx", f"there is a GPU, {found[0]}, and TensorRT-RTX is installed (standard TensorRT is not)."
        reason = f"there is a GPU, {found[0]}, but no TensorRT is installed (pip install 'rtformer-deploy[tensorrt,gpu]')"
    else:
        reason = f"there is no GPU here ({why_none()})"
    if _installed("openvino"):
        return "openvino", f"{reason}; OpenVINO is the fastest engine on a CPU."
    return "onnxruntime", f"{reason}, and OpenVINO is not installed."


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
