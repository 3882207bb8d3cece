"""An OpenVINO engine to the time of its layers: the model compiled with PERF_COUNT, its counters read after every run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.layer_times import WARM_UP, LayerTime, run_once
from ...types import Engine
from .plan import compile_plan
from .run import OpenVINOSession

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8", "i32": "int32", "i64": "int64"}
_EXECUTED = "EXECUTED"
_FUSED_BIAS = "/WithoutBiases"


def layer_times(engine: Engine, images: NDArray[np.float32], rounds: int, device: int, threads: int | None) -> list[LayerTime]:
    """See `backends.layer_times`; OpenVINO counts in whole microseconds. `device` is ignored on a CPU."""
    session = OpenVINOSession(compile_plan(engine.plan, threads, profiling=True), engine.info)
    session.input[: len(images)] = images
    runs: list[list[Any]] = []
    for number in range(WARM_UP + rounds):
        run_once(session, len(images))
        if number >= WARM_UP:
            runs.append(session.profiling_info())
    session.close()
    return [_layer(infos) for infos in zip(*runs, strict=True) if any(info.status.name == _EXECUTED for info in infos)]


def _layer(infos: tuple[Any, ...]) -> LayerTime:
    """The LayerTime of one layer, from its ProfilingInfo in every run."""
    first = infos[0]
    kernel, precision = split_kernel(str(first.exec_type))
    times = tuple(1000 * info.real_time.total_seconds() for info in infos)
    return LayerTime(str(first.node_name).removesuffix(_FUSED_BIAS), str(first.node_type), kernel, precision, times)


def split_kernel(exec_type: str) -> tuple[str, str]:
    """Splits OpenVINO's kernel name, such as "jit_avx512_f32", into the name without its last part and that part as a precision."""
    kernel, _, suffix = exec_type.rpartition("_")
    return "" if kernel in ("unknown", "undef") else kernel, _PRECISIONS.get(suffix.lower(), suffix.lower())
