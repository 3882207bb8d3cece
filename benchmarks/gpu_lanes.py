"""Frames through lanes on a GPU, from a decoded frame to a label map, with any engine; never run on a GPU yet.

standin           the tests' network in whole numbers (tests/standin.cu): what the lanes cost, and nothing of ours to install
torch             the PyTorch network under torch.compile, in the lanes' CUDA graphs
tensorrt-rtx      this project's TensorRT-RTX engine
tensorrt          this project's TensorRT engine
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from gpu_contestants import OURS, why_not
from harness import Json

if TYPE_CHECKING:
    from rtformer_deploy.runtime.frame_runner import FrameRunner
    from rtformer_deploy.types import Frame

ENGINES = ("standin", "torch", *OURS)
#: Layers of the stand-in, each a launch. Unmeasured: meant to take the half millisecond or so of a fast engine at 1024x2048.
STANDIN_LAYERS = 48
TESTS = Path(__file__).resolve().parents[1] / "tests"


def why_no_frames(name: str, device: str) -> str:
    """Why an engine's frames cannot be measured on this machine; empty if they can."""
    if device == "cpu":
        return "needs a GPU, and --device is cpu"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        return "cuda.core is not installed"
    return why_not("torch-compile" if name in ("standin", "torch") else name, device)


def measure_frames(name: str, folder: Path, case: Mapping[str, Any], frame: Frame, lanes: int, seconds: float) -> Json:
    """An engine's frames, alone: the bench reports of one lane ("latency") and of several ("throughput"), or {"error": why}."""
    from rtformer_deploy import DeployError

    try:
        if name in OURS:
            return bench_plan(folder / f"{name}.plan", folder / "frame.png", lanes, seconds)
        return bench_lanes(opener(name, case), frame, lanes, seconds)
    except DeployError as error:  # the others go on
        return {"error": str(error)}


def bench_plan(plan: Path, image: Path, lanes: int, seconds: float) -> Json:
    """One of our engines, as the command `bench` measures it."""
    from rtformer_deploy.commands.bench import BenchRequest, bench_path

    return {
        mode: bench_path(BenchRequest(plan, lanes=count, seconds=seconds, image=image)).to_json() for mode, count in _modes(lanes).items()
    }


def bench_lanes(open_lanes: Callable[[int], FrameRunner], frame: Frame, lanes: int, seconds: float) -> Json:
    """An engine that came from no plan; `open_lanes` makes a runner with so many lanes."""
    from rtformer_deploy.nvidia.nvml import watch_over
    from rtformer_deploy.timing.bench import bench, on_gpu

    reports = {}
    for mode, count in _modes(lanes).items():
        with open_lanes(count) as runner, watch_over(0 if on_gpu(runner) else None) as gpu:
            report = bench(runner, [frame], seconds=seconds)
        reports[mode] = dataclasses.replace(report, gpu=None if gpu is None else gpu.to_json()).to_json()
    return reports


def _modes(lanes: int) -> dict[str, int]:
    return {"latency": 1, "throughput": lanes}


def opener(name: str, case: Mapping[str, Any]) -> Callable[[int], FrameRunner]:
    """The stand-in or the PyTorch network of a case -> what makes a runner with so many lanes."""
    if name == "standin":
        return lambda lanes: open_standin(case["size"], lanes)
    return lambda lanes: open_torch(case, lanes)


def open_standin(size: harness.Size, lanes: int, layers: int = STANDIN_LAYERS) -> FrameRunner:
    """The tests' stand-in: a benchmark runs from a checkout, so they are beside it."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from standin_engine import standin_runner
    from standin_network import standin_info

    return standin_runner(standin_info(size), lanes, layers=layers)


def open_torch(case: Mapping[str, Any], lanes: int) -> FrameRunner:
    from rtformer_deploy.backends.torch.lanes import open_network_in_lanes

    choice = harness.network_of(case)
    spec = choice.spec(size=case["size"])
    return open_network_in_lanes(choice.network.eval(), spec, half=True, mode="max-autotune-no-cudagraphs", lanes=lanes)


def frame_lines(name: str, bench: Mapping[str, Any]) -> list[str]:
    """What was measured of an engine's frames, as text."""
    if "error" in bench:
        return [f"  {name:12} frames FAILED: {bench['error']}"]
    one, many = bench["latency"]["end_to_end"], bench["throughput"]
    ways = f"{many['lanes']} lanes {many['end_to_end']['fps']:.1f} FPS, engine {many['engine']['fps']:.1f}"
    return [f"  {name:12} frames{one['p50_ms']:8.3f}{one['p99_ms']:9.3f} ms; {ways}"]
