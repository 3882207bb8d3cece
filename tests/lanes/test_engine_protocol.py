"""Lanes over a stand-in engine that knows nothing of TensorRT: the engine protocol is all that a lane needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import frames
from lane_checks import SIZES, check
from null_engines import install, make_info
from null_tensorrt import NullTensorRT, network

from rtformer_deploy.errors import EngineError
from rtformer_deploy.lanes.engine import ExecutionContext
from rtformer_deploy.lanes.health import GpuHealth
from rtformer_deploy.lanes.kernels import FrameKernels
from rtformer_deploy.lanes.lane import Lane
from rtformer_deploy.lanes.shared import LaneShare, on_device
from rtformer_deploy.runtime.frame_runner import FrameRunner


class StandInContext:
    """Reads and writes the fake GPU's memory in NumPy. It holds the lane to the protocol: batch, then both tensors, then runs."""

    def __init__(self, gpu: NullTensorRT, largest: int) -> None:
        self.gpu, self.largest, self.batch = gpu, largest, 0
        self.addresses: dict[str, int] = {}

    def set_batch(self, batch: int) -> None:
        if batch > self.largest:
            raise EngineError(f"The stand-in takes {self.largest} images, not {batch}.")
        self.batch = batch
        self.addresses.clear()

    def bind(self, name: str, address: int) -> None:
        assert self.batch > 0
        self.addresses[name] = address

    def execute(self, stream: int) -> None:
        shape, addresses = (self.batch, 3, 64, 96), dict(self.addresses)
        assert addresses.keys() == {"input", "logits"}

        def run() -> None:
            images = self.gpu.view(addresses["input"], 4 * math.prod(shape)).view(np.float32).reshape(shape)
            logits = network(images)
            self.gpu.view(addresses["logits"], logits.nbytes)[:] = logits.reshape(-1).view(np.uint8)

        self.gpu.streams[stream].enqueue(run)


class StandInEngine:
    def __init__(self, gpu: NullTensorRT, largest: int = 3) -> None:
        self.info = make_info()
        self.gpu, self.largest, self.contexts = gpu, largest, 0

    def create_context(self) -> ExecutionContext:
        self.contexts += 1
        return StandInContext(self.gpu, self.largest)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> NullTensorRT:
    return install(monkeypatch)


def open_lanes(gpu: NullTensorRT, engine: StandInEngine, lanes: int) -> FrameRunner:
    info = engine.info
    with on_device(gpu.cuda, 0) as current:
        kernels, health = FrameKernels(gpu.cuda, current, info.spec), GpuHealth("the stand-in's GPU", 30.0)
        share = LaneShare(engine=engine, cuda=gpu.cuda, device=0, kernels=kernels, health=health, capture=True)
        return FrameRunner([Lane(share) for _ in range(lanes)], info.spec, info.batch)


def test_frames_go_through_a_stand_in_and_its_graphs(gpu: NullTensorRT) -> None:
    engine = StandInEngine(gpu)
    with open_lanes(gpu, engine, lanes=2) as runner:
        for seed in range(6):
            check(runner, frames(*SIZES, seed=seed))
        assert runner.notes == ()
    assert engine.contexts == 2
    assert gpu.count("replay") > 0
    assert gpu.count("execute") == 0, "TensorRT has no part in it"
    assert gpu.live() == 0


def test_what_an_engine_refuses_is_that_requests_error(gpu: NullTensorRT) -> None:
    with open_lanes(gpu, StandInEngine(gpu, largest=2), lanes=1) as runner:
        with pytest.raises(EngineError, match="The stand-in takes 2 images, not 3"):
            runner.run(frames(*[SIZES[0]] * 3))
        check(runner, frames(SIZES[0]))
