"""Opens TensorRT and TensorRT-RTX plans as lanes over one engine, and reads the precision of their layers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ...errors import DeployError, EngineError
from ...lanes.buffers import import_cuda
from ...lanes.lane import Lane
from ...lanes.opening import share_of
from ...lanes.shared import on_device
from ...lanes.supported import ON_A_CPU, lane_fault
from ...runtime.session import Session, rebuild_hint, refuse_stripped
from ...types import Engine, EngineInfo, PrecisionFound
from ..verdict import judge
from .found_precision import layer_precisions
from .plan import choose_gpu, open_plan, refuse_what_cannot_open
from .rtx_start import RtxStart
from .rtx_trial import is_listed, refused

_NO_LAYER_TYPES = "; the opened plan's layers tell no types"


def check(info: EngineInfo) -> None:
    """Raises EngineError or MissingPackageError, with the command that fixes it, if a plan of this kind cannot be opened here."""
    _refuse_for_lanes(info)
    _check_plan(info)


def _refuse_for_lanes(info: EngineInfo) -> None:
    refuse_stripped(info)
    fault = lane_fault(info.spec)
    if fault is not None:
        raise EngineError(fault, ON_A_CPU)


def _check_plan(info: EngineInfo) -> None:
    refuse_what_cannot_open(info)
    import_cuda()


def open_sessions(engine: Engine, device: int, threads: int | None, lanes: int, graphs: bool = True) -> Sequence[Session]:
    """A TensorRT plan to `lanes` sessions; see `open_lanes`. `threads` is ignored on a GPU."""
    return open_lanes(engine, device, lanes, graphs=graphs)


def open_lanes(engine: Engine, device: int, lanes: int, *, graphs: bool) -> list[Lane]:
    """A TensorRT plan to `lanes` Lanes over one engine on GPU `device`, in its primary context.

    `graphs`: use CUDA graphs if they can be captured. With TensorRT-RTX each lane runs once here, one after the other. Raises EngineError
    with TensorRT's own messages, UsageError if there is no such GPU, MissingPackageError without cuda.core or NVRTC.
    """
    _refuse_for_lanes(engine.info)
    gpu = choose_gpu(engine.info, device)
    cuda = import_cuda()
    sessions: list[Lane] = []
    try:
        begin = time.perf_counter()
        with on_device(cuda, device) as current:
            plan = open_plan(engine)
            start = RtxStart(plan, engine, gpu, graphs)
            plan.runtime_config = start.runtime_config
            share = share_of(plan, cuda, gpu, current, graphs and not start.own_graphs, start.save)
            for _ in range(lanes):
                sessions.append(Lane(share))
                run_once(sessions[-1], plan.batches)
        start_ms = 1000 * (time.perf_counter() - begin)
        share.say(start.note(start_ms))
        share.say(start.save(start_ms))
        return sessions
    except BaseException as error:
        for session in sessions:
            session.close()
        if isinstance(error, EngineError) and engine.info.backend == "tensorrt-rtx" and not is_listed(gpu):
            raise refused(engine.info, gpu, error) from error
        if isinstance(error, DeployError) or not isinstance(error, Exception):
            raise
        raise EngineError(f"The plan cannot be opened on {gpu}: {error}", rebuild_hint(engine.info)) from error


def run_once(lane: Lane, batches: Sequence[int]) -> None:
    """Runs a lane's engine once at each batch, so that its kernels are compiled before the first frame. Raises EngineError."""
    for batch in batches:
        lane.start(batch)
        lane.wait()


def precision_after_open(engine: Engine, device: int) -> PrecisionFound:
    """Opens a plan on GPU `device`, one without weights too, and reads the precision of its layers.

    If the layers do not report it, the network's precision is kept and `detail` says so. Raises the same errors as opening.
    """
    _check_plan(engine.info)
    choose_gpu(engine.info, device)
    with on_device(import_cuda(), device):
        plan = open_plan(engine)
        trt = plan.library.module
        inspector = plan.engine.create_engine_inspector()
        layers = layer_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        if not layers and not engine.info.stripped:  # some builders choose the kernels when a context is made
            made = plan.create_context()
            made.set_batch(engine.info.batch[1])
            inspector.execution_context = made.context
            layers = layer_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    before = engine.info.precision
    if layers:
        return judge(before.asked, layers, "gpu", bool(engine.info.options.get("mixed")))
    return replace(before, detail=f"{before.detail.removesuffix(_NO_LAYER_TYPES)}{_NO_LAYER_TYPES}")  # a second call gives the same text
