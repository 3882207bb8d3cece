"""A function that opens an engine on a GPU -> a runner of lanes over it."""

from __future__ import annotations

from collections.abc import Callable

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
            engine = open_engine()
            info = engine.info
            kernels = FrameKernels(cuda, current, info.spec, info.inputs[0].dtype, info.outputs[0].dtype)
            share = LaneShare(engine, cuda, gpu.index, kernels, GpuHealth(str(gpu), PATIENCE_S), graphs)
            for _ in range(lanes):
                opened.append(Lane(share))
        return FrameRunner(opened, info.spec, info.batch, None, info)
    except BaseException as error:
        for lane in opened:
            lane.close()
        if isinstance(error, DeployError) or not isinstance(error, Exception):
            raise
        raise EngineError(f"The engine cannot be opened on {gpu}: {error}") from error
