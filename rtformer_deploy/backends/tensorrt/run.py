"""TensorRT and TensorRT-RTX plans to lanes over one engine, and to the precision that their layers have."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ...errors import DeployError, EngineError
from ...lanes.buffers import import_cuda
from ...lanes.health import GpuHealth
from ...lanes.kernels import FrameKernels
from ...lanes.lane import Lane
from ...lanes.shared import LaneShare, on_device
from ...runtime.session import Session, rebuild_hint
from ...types import Engine, EngineInfo, PrecisionFound
from ..verdict import judge
from .found_precision import layer_precisions
from .plan import choose_gpu, open_plan, refuse_what_cannot_open
from .rtx_start import RtxStart
from .rtx_trial import is_listed, refused

#: A request that a GPU has not finished after so many seconds will not be finished.
PATIENCE_S = 60.0
_UNTOLD = "; the opened plan's layers tell no types"


def check(info: EngineInfo) -> None:
    """Raises EngineError or MissingPackageError, with the command that fixes it, if a plan of this kind cannot be opened here."""
    refuse_what_cannot_open(info)
    import_cuda()


def open_sessions(engine: Engine, device: int, threads: int | None, lanes: int, graphs: bool = True) -> Sequence[Session]:
    """A TensorRT plan to `lanes` sessions; see `open_lanes`. `threads` means nothing on a GPU."""
    return open_lanes(engine, device, lanes, graphs=graphs)


def open_lanes(engine: Engine, device: int, lanes: int, *, graphs: bool) -> list[Lane]:
    """A TensorRT plan to `lanes` Lanes over one engine on GPU `device`, in its primary context.

    `graphs`: with CUDA graphs if they can be captured. With TensorRT-RTX each lane is run here, one after the other. Raises EngineError
    with TensorRT's own words, UsageError if there is no such GPU, MissingPackageError without cuda.core or NVRTC.
    """
    gpu = choose_gpu(engine.info, device)
    cuda = import_cuda()
    sessions: list[Lane] = []
    try:
        begin = time.perf_counter()
        with on_device(cuda, device) as current:
            plan = open_plan(engine)
            start = RtxStart(plan, engine, gpu, graphs)
            plan.runtime_config = start.runtime_config
            info = engine.info
            share = LaneShare(
                engine=plan,
                cuda=cuda,
                device=device,
                kernels=FrameKernels(cuda, current, info.spec, info.inputs[0].dtype, info.outputs[0].dtype),
                health=GpuHealth(str(gpu), PATIENCE_S),
                capture=graphs and not start.own_graphs,
                on_last_close=start.save,
            )
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
    """Runs a lane's engine once at each batch, so that what a first run compiles is compiled before any frame. Raises EngineError."""
    for batch in batches:
        lane.start(batch)
        lane.wait()


def precision_after_open(engine: Engine, device: int) -> PrecisionFound:
    """Opens a plan on GPU `device` and reads the precision that its layers have.

    Where they do not tell, what was known of the network stays, and `detail` says so. Raises what opening raises.
    """
    check(engine.info)
    choose_gpu(engine.info, device)
    with on_device(import_cuda(), device):
        plan = open_plan(engine)
        trt = plan.library.module
        inspector = plan.engine.create_engine_inspector()
        layers = layer_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        if not layers:  # some builders settle the kernels with the context
            settled = plan.create_context()
            settled.set_batch(engine.info.batch[1])
            inspector.execution_context = settled.context
            layers = layer_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    before = engine.info.precision
    if layers:
        return judge(before.asked, layers, "gpu", bool(engine.info.options.get("mixed")))
    return replace(before, detail=f"{before.detail.removesuffix(_UNTOLD)}{_UNTOLD}")  # the same, however often it is asked
