"""A frame's whole way over the stub: the real lanes, the real cuda.core, kernels that run, and an engine that runs when the stream does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import stub
from helpers import frames, tiny_spec
from null_engines import make_info
from null_tensorrt import network
from numpy.typing import NDArray
from stub import StubDriver
from stub_lab import Told, bytes_at

from rtformer_deploy.backends.tensorrt.plan import OpenPlan
from rtformer_deploy.errors import EngineError
from rtformer_deploy.image import frames as image
from rtformer_deploy.lanes import kernels as kernels_module
from rtformer_deploy.lanes.health import GpuHealth
from rtformer_deploy.lanes.kernels import FrameKernels
from rtformer_deploy.lanes.lane import Lane
from rtformer_deploy.lanes.shared import LaneShare, on_device
from rtformer_deploy.runtime.frame_runner import FrameRunner

SIZES = ((64, 96), (50, 70), (131, 200))
Open = Callable[..., FrameRunner]


class Context:
    """An execution context; what it enqueues reads the input and writes the output when the stream comes to it."""

    def __init__(self, driver: StubDriver) -> None:
        self._driver = driver
        self._shape: tuple[int, ...] = ()
        self._at: dict[str, int] = {}
        self._kept: list[Told] = []  # graphs hold their callbacks

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._at[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        spec, shape = tiny_spec("batch"), self._shape
        source, target = self._at[spec.input.name], self._at[spec.output.name]
        output = (shape[0], *map(int, spec.output.shape[1:]))

        def run() -> None:
            given = bytes_at(source, 4 * int(np.prod(shape))).view(np.float32).reshape(shape)
            bytes_at(target, 4 * int(np.prod(output)))[:] = network(given).astype(np.float32).reshape(-1).view(np.uint8)

        told = Told(run)
        self._kept.append(told)
        return self._driver.enqueue_host(stream, told.callback) == 0


class Engine:
    def __init__(self, driver: StubDriver) -> None:
        self._driver = driver

    def create_execution_context(self, config: Any = None) -> Context:
        return Context(self._driver)


class Silent:
    def text(self) -> str:
        return ""


@pytest.fixture
def open_lanes(driver: StubDriver, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens lanes whose waits, which ask again and again, let the GPU go on; what they left is closed."""
    monkeypatch.setattr(kernels_module, "compile_kernel_file", stub.compile_kernel_file)
    driver.mode("stepping")
    opened: list[FrameRunner] = []

    def open_them(lanes: int = 1, *, graphs: bool = True) -> FrameRunner:
        info = make_info()
        plan = OpenPlan(info, Any, Silent(), None, Engine(driver))  # type: ignore[arg-type]
        with on_device(cuda, 0) as device:
            kernels = FrameKernels(cuda, device, info.spec, info.inputs[0].dtype, info.outputs[0].dtype)
            health = GpuHealth("the stub", 30)
            share = LaneShare(plan=plan, cuda=cuda, device=0, kernels=kernels, health=health, capture=graphs)
            runner = FrameRunner([Lane(share) for _ in range(lanes)], info.spec, info.batch, None, info)
        opened.append(runner)
        return runner

    yield open_them
    driver.reset()
    driver.mode("stepping")
    for runner in opened:
        runner.close()


def reference(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the CPU code makes of a frame with this engine."""
    spec = tiny_spec()
    logits = network(image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None])[0]
    return image.upsample_argmax(logits, frame.shape[:2], spec.size, spec.resize)


@pytest.mark.parametrize("mode", ["stepping", "worker"])
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("lanes", [1, 3])
def test_label_maps_are_those_of_the_cpu_bit_for_bit(open_lanes: Open, driver: StubDriver, lanes: int, graphs: bool, mode: Any) -> None:
    driver.mode(mode)
    runner = open_lanes(lanes, graphs=graphs)
    for _ in range(4):
        given = frames(*SIZES)
        for labels, frame in zip(runner.run(given), given, strict=True):
            np.testing.assert_array_equal(labels, reference(frame))
    assert (driver.calls().get("cuGraphLaunch", 0) > 0) == graphs
    assert runner.notes == ()


def test_threads_share_lanes(open_lanes: Open) -> None:
    runner = open_lanes(2)
    right: list[bool] = []

    def work(size: tuple[int, int]) -> None:
        for frame in frames(size, size, size):
            right.append(np.array_equal(runner.run([frame])[0], reference(frame)))

    threads = [threading.Thread(target=work, args=(size,)) for size in (*SIZES, SIZES[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert right == [True] * 12


def test_an_error_that_breaks_the_context_fails_the_runner(open_lanes: Open, driver: StubDriver) -> None:
    runner = open_lanes()
    frame = frames(SIZES[0])[0]
    runner.run([frame])
    driver.break_context(700, after=3)
    with pytest.raises(EngineError, match="has failed"):
        runner.run([frame])
