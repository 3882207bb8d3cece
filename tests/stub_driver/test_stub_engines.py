"""The stand-in and PyTorch's network as engines: what they refuse, in whose words, and whose memory they give back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_engine
import stub
import torch
from helpers import load_file
from smooth_frames import frames
from standin_engine import open_standin, standin_runner
from standin_network import standin_info
from stub import StubDriver
from stub_torch import HostMemory

from rtformer_deploy.backends.torch.lanes import TorchEngine, network_info, open_network_in_lanes
from rtformer_deploy.errors import EngineError, ModelError
from rtformer_deploy.lanes.opening import open_runner
from rtformer_deploy.nvidia.driver import gpu_at
from rtformer_deploy.timing.bench import on_gpu

SIZE = (16, 24)


@pytest.fixture(autouse=True)
def over_the_stub(driver: StubDriver, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("rtformer_deploy.lanes.kernels.compile_kernel_file", stub.compile_kernel_file)
    monkeypatch.setattr(standin_engine, "compile_kernel_file", stub.compile_kernel_file)
    driver.mode("stepping")
    yield
    gc.collect()


def test_the_stand_in_says_why_it_refuses(gpu: Any) -> None:
    context = open_standin(standin_info(SIZE, batch=(1, 2, 3))).create_context()
    with pytest.raises(EngineError, match=r"does not take a batch of 4:\n  input \(4, 3, 16, 24\) is outside the profile \(1, 2, 3\)"):
        context.set_batch(4)
    context.set_batch(3)
    with pytest.raises(EngineError, match="a run needs a shape, then the address of every tensor"):
        context.execute(1)
    with pytest.raises(EngineError, match="there is no tensor output"):
        context.bind("output", 256)


def test_a_closed_runner_has_given_all_memory_back(driver: StubDriver) -> None:
    gc.collect()
    before = driver.used()
    runner = standin_runner(standin_info(SIZE, batch=(1, 1, 2)), 3)
    for given in (frames(SIZE), frames(SIZE, SIZE)) * 9:
        runner.result(runner.submit(given))
    assert driver.used() > before
    assert driver.calls()["cuGraphLaunch"] > 0
    runner.close()
    del runner
    gc.collect()
    assert driver.used() == before


def test_no_memory_for_the_second_lane_gives_up_the_first(driver: StubDriver) -> None:
    gc.collect()
    before = driver.used()
    driver.memory_limit(before + 100_000)
    with pytest.raises(EngineError, match=r"cannot be opened on NVIDIA Stub H100 \(9.0\): CUDA_ERROR_OUT_OF_MEMORY"):
        standin_runner(standin_info((64, 96), batch=(1, 1, 1)), 8)
    gc.collect()
    assert driver.used() == before


def open_torch(driver: StubDriver, network: torch.nn.Module, classes: int = 4) -> Any:
    info = network_info(network, standin_info(SIZE, classes).spec, (1, 1, 1), "the stub")
    return open_runner(lambda: TorchEngine(network, info, lambda: HostMemory(driver)), gpu_at(0))


def test_a_network_is_compiled_for_each_batch_before_there_are_lanes(driver: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []

    def compiled(network: Any, **options: Any) -> Any:
        runs.append(options)

        def run(images: torch.Tensor) -> torch.Tensor:
            runs.append(len(images))
            logits: torch.Tensor = network(images)
            return logits

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    network = torch.nn.Conv2d(3, 4, 3, 8, 1).eval()
    info = network_info(network, standin_info(SIZE, 4).spec, (1, 2, 2), "the stub")
    engine = TorchEngine(network, info, lambda: HostMemory(driver))
    engine.compile("max-autotune-no-cudagraphs")
    assert runs == [{"mode": "max-autotune-no-cudagraphs", "dynamic": False}, 1, 2]
    with open_runner(lambda: engine, gpu_at(0), 2) as runner:
        assert on_gpu(runner)
        runner.run(frames(SIZE))
        assert runs[3:] == [1]
    monkeypatch.setattr(torch, "compile", lambda network, **options: lambda images: 1 / 0)
    with pytest.raises(EngineError, match=r"torch\.compile cannot compile the network: division by zero"):
        engine.compile("default")


def test_a_network_that_gives_something_else_is_told(driver: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the shape is known when the work is enqueued; here it is, too, so the network is asked without a stream."""

    class AtOnce(HostMemory):
        def enqueue(self, stream: int, work: Any) -> None:
            work()

    network = torch.nn.Conv2d(3, 5, 3, 8, 1).eval()
    info = network_info(network, standin_info(SIZE, 4).spec, (1, 1, 1), "the stub")
    with open_runner(lambda: TorchEngine(network, info, lambda: AtOnce(driver)), gpu_at(0)) as runner:
        with pytest.raises(ModelError, match=r"gives \(1, 5, 2, 3\); its description says \(1, 4, 2, 3\)"):
            runner.run(frames(SIZE))
        monkeypatch.setattr(network, "forward", lambda images: 1 / 0)
        with pytest.raises(EngineError, match="PyTorch cannot run the network: division by zero"):
            runner.run(frames(SIZE))


def test_a_pytorch_without_cuda_is_refused_by_name() -> None:
    network = torch.nn.Conv2d(3, 4, 3, 8, 1)
    with pytest.raises(ModelError, match="training mode"):
        open_network_in_lanes(network.train(), standin_info(SIZE, 4).spec)
    if torch.cuda.is_available():
        pytest.skip("this PyTorch has CUDA")
    with pytest.raises(EngineError, match="has no CUDA"):
        open_network_in_lanes(network.eval(), standin_info(SIZE, 4).spec)


def test_the_network_runs_in_the_type_of_its_weights(driver: StubDriver) -> None:
    network = torch.nn.Conv2d(3, 4, 3, 8, 1).eval().half()
    with open_torch(driver, network) as runner:
        assert runner.info.precision.asked == "fp16"
        assert runner.info.precision.layers == {"fp16": 1}
        assert runner.logits(frames(SIZE)).dtype == np.float32


def test_the_frames_of_the_benchmark(root: Path, monkeypatch: pytest.MonkeyPatch, driver: StubDriver) -> None:
    monkeypatch.syspath_prepend(root / "benchmarks")
    monkeypatch.setattr("rtformer_deploy.timing.bench.on_gpu", lambda runner: False)  # no clocks to sample
    bench = load_file(root / "benchmarks" / "gpu_lanes.py", "benchmark_gpu_lanes")
    (frame,) = frames((32, 64))
    found = bench.measure_frames("standin", root, {"size": (32, 64)}, frame, 2, 0.01)
    assert [(report["mode"], report["lanes"]) for report in found.values()] == [("latency", 1), ("throughput", 2)]
    assert found["latency"]["engine_without_copies"]["p50_ms"] > 0
    assert found["latency"]["model"]["backend"] == "standin"
    (line,) = bench.frame_lines("standin", found)
    assert "ms; 2 lanes" in line
    driver.memory_limit(driver.used())
    assert "OUT_OF_MEMORY" in bench.measure_frames("standin", root, {"size": (32, 64)}, frame, 2, 0.01)["error"]
