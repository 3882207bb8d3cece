"""Puts a model's weights into a plan that was built with --strip. NEVER RUN on a GPU so far: the tests have a TensorRT of their own.

TensorRT opens the plan for this, so it needs the GPU and the version that the plan was built for.
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/refitting-engines.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from ...errors import EngineError, shorten
from ...lanes.buffers import import_cuda
from ...lanes.shared import on_device
from ...nvidia.driver import gpus, why_none
from ...runtime.session import rebuild_command
from ...types import Engine, EngineInfo
from .log import as_details
from .plan import OpenPlan, choose_gpu, open_plan, refuse_what_cannot_open


def refit(engine: Engine, data: bytes, weights: Collection[str], changed: Collection[str], device: int) -> bytes:
    """A plan that can be refitted, and ONNX bytes of the graph that it was built from with other weights -> the plan with these.

    `weights` are the names of all weights of the graph, `changed` of those whose values are not those of the build. Raises EngineError if
    there is no GPU for the plan, if TensorRT does not take the weights, or if the plan lacks a weight that the model has.
    """
    info = engine.info
    if not gpus():
        what = f"The model fits the plan. To put its weights in, TensorRT needs an NVIDIA GPU, and there is none here: {why_none()}."
        raise EngineError(what, f"Run the same command where there is one{_for(info)}.")
    refuse_what_cannot_open(info)
    choose_gpu(info, device)
    with on_device(import_cuda(), device):
        plan = open_plan(engine)
        _set_weights(plan, data, weights, changed)
        return _serialize(plan)


def _for(info: EngineInfo) -> str:
    return f", for this plan {info.gpu}" if info.gpu and info.gpu != "unknown" else ""


def _set_weights(plan: OpenPlan, data: bytes, weights: Collection[str], changed: Collection[str]) -> None:
    """Gives TensorRT the weights. It reports no weights that nobody set in parts of an engine that are independent, so we look too."""
    trt, log = plan.library.module, plan.log
    if not plan.engine.refittable:
        raise EngineError("TensorRT says that this plan's weights cannot be exchanged.", _again(plan.info))
    refitter = trt.Refitter(plan.engine, log.logger)
    parser_refitter = trt.OnnxParserRefitter(refitter, log.logger)
    if not parser_refitter.refit_from_bytes(data):
        told = [parser_refitter.get_error(index).desc() for index in range(parser_refitter.num_errors)]
        raise EngineError("TensorRT does not take the model's weights:", _again(plan.info), details=as_details([*told, *log.messages()]))
    held = set(refitter.get_all_weights())
    _refuse(plan, "The plan needs weights that the model does not give:", set(refitter.get_missing_weights()) | (held - set(weights)))
    _refuse(plan, "The plan keeps values of its build for weights that are others in the model:", set(changed) - held)
    if not refitter.refit_cuda_engine():
        raise plan.failure("TensorRT could not put the weights in")


def _refuse(plan: OpenPlan, what: str, names: Iterable[str]) -> None:
    lines = [shorten(name) for name in sorted(names)]
    if lines:
        raise EngineError(what, _again(plan.info), details=as_details(lines))


def _serialize(plan: OpenPlan) -> bytes:
    """The plan with its weights, which can be refitted again."""
    flags = plan.library.module.SerializationFlag
    serialization = plan.engine.create_serialization_config()
    serialization.clear_flag(flags.EXCLUDE_WEIGHTS)  # a stripped engine leaves them out otherwise
    if hasattr(flags, "INCLUDE_REFIT"):
        serialization.set_flag(flags.INCLUDE_REFIT)
    blob: Any = plan.engine.serialize_with_config(serialization)
    if blob is None:
        raise plan.failure("TensorRT could not write the plan with its weights")
    return bytes(blob)


def _again(info: EngineInfo) -> str:
    return f"Build an engine of this model instead: {rebuild_command(replace(info, refit=None))}"
