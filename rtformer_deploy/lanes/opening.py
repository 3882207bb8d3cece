"""A function that opens an engine on a GPU -> a runner of lanes over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DeployError, EngineError
from ..nvidia.driver import GpuInfo
from ..runtime.frame_runner import FrameRunner
from .buffers import import_cuda
from .engine import CudaEngine
from .health import GpuHealth
from .kernels import FrameKernels
from .lane import Lane
from .shared import LaneShare, on_device

#: After this many seconds, the GPU will not finish a request any more.
PATIENCE_S = 60.0


def share_of(
    engine: CudaEngine, cuda: Any, gpu: GpuInfo, current: Any, capture: bool, on_last_close: Callable[[], object] = lambda: None
) -> LaneShare:
    """What the lanes over an open engine share on a GPU, which is `current` as a cuda.core Device: kernels for its types, its health."""
    info = engine.info
    kernels = FrameKernels(cuda, current, info.spec, info.inputs[0].dtype, info.outputs[0].dtype)
    return LaneShare(engine, cuda, gpu.index, kernels, GpuHealth(str(gpu), PATIENCE_S), capture, on_last_close)


def open_runner(
    open_engine: Callable[[], CudaEngine],
    gpu: GpuInfo,
    lanes: int = 1,
    *,
    graphs: bool = True,
) -> FrameRunner:
    """An engine -> a FrameRunner with `lanes` lanes over it. `open_engine` is called with the GPU's primary context current.

    `graphs`: the lanes capture CUDA graphs. Raises EngineError, MissingPackageError without cuda.core or NVRTC, and what `open_engine`
    raises.
    """
    cuda = import_cuda()
    opened: list[Lane] = []
    try:
        with on_device(cuda, gpu.index) as current:
            share = share_of(open_engine(), cuda, gpu, current, graphs)
            info = share.engine.info
            for _ in range(lanes):
                opened.append(Lane(share))
        return FrameRunner(opened, info.spec, info.batch, None, info)
    except BaseException as error:
        for lane in opened:
            lane.close()
        if isinstance(error, DeployError) or not isinstance(error, Exception):
            raise
        raise EngineError(f"The engine cannot be opened on {gpu}: {error}") from error
