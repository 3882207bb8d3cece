"""The contestants of gpu.py, a worker process each: a frame's network input to low-resolution logits, batch 1.

    torch             eager PyTorch, FP16, channels-last
    torch-compile     the same under torch.compile(mode="max-autotune"), which captures CUDA graphs
    onnxruntime-cuda  ONNX Runtime's CUDA provider on the FP16 model, input and output bound on the device
    tensorrt-rtx      this project's TensorRT-RTX engine
    tensorrt          this project's TensorRT engine

Torch's times are CUDA events between calls that are queued back to back, so that Python's launches are hidden where the GPU is the
slower of the two; ours are CUDA events around the engine; ONNX Runtime's are the wall clock around a call that waits.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import numpy as np
from harness import Json
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

#: Runs a burst of so many steps and gives each one's ms.
Burst = Callable[[int], list[float]]
#: A contestant: its burst, and the logits (1, classes, h, w) of the input.
Made = tuple[Burst, NDArray[np.float32]]
#: Makes one from the case's folder and the case.
Maker = Callable[[Path, Json], Made]
OURS = ("tensorrt-rtx", "tensorrt")
NAMES = ("torch", "torch-compile", "onnxruntime-cuda", *OURS)
_MODULES = {
    "torch": "torch",
    "torch-compile": "torch",
    "onnxruntime-cuda": "onnxruntime",
    "tensorrt-rtx": "tensorrt_rtx",
    "tensorrt": "tensorrt",
}
FIRST_RUNS = 5


def why_not(name: str, device: str) -> str:
    """Why a contestant cannot take part on this machine; empty if it can."""
    from rtformer_deploy.nvidia.driver import gpus, why_none

    if importlib.util.find_spec(_MODULES[name]) is None:
        return f"{_MODULES[name]} is not installed"
    if device == "cpu":
        return "" if name == "torch" else "needs a GPU, and --device is cpu"
    if not gpus():
        return f"no GPU: {why_none()}"
    if name.startswith("torch"):
        import torch

        return "" if torch.cuda.is_available() else f"this torch ({torch.__version__}) has no CUDA"
    if name == "onnxruntime-cuda":
        import onnxruntime

        providers = onnxruntime.get_available_providers()
        return "" if "CUDAExecutionProvider" in providers else f"no CUDA provider: there are {', '.join(providers)}"
    return ""


def queued_cuda(step: Callable[[], Any], count: int) -> list[float]:
    """CUDA events between `count` steps that are enqueued back to back -> ms of each."""
    import torch

    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in itertools.pairwise(events)]


def by_clock(step: Callable[[], Any], count: int) -> list[float]:
    """The wall clock around each of `count` steps that wait for their result -> ms of each."""
    times = [time.perf_counter()]
    for _ in range(count):
        step()
        times.append(time.perf_counter())
    return [1000 * (end - begin) for begin, end in itertools.pairwise(times)]


def make_torch(folder: Path, case: Json, compiled: bool = False) -> Made:
    import torch

    from rtformer_deploy.training.scoring import to_channels_last

    network: Callable[[Tensor], Tensor] = to_channels_last(harness.network_of(case).network.to(case["device"], torch.float16))
    image = torch.from_numpy(np.load(folder / "input.npy")).to(case["device"], torch.float16, memory_format=torch.channels_last)
    if compiled:
        import torch._dynamo

        torch._dynamo.mark_static_address(image)  # else each call copies it into the graph's own memory
        network = torch.compile(network, mode="max-autotune")

    @torch.no_grad()
    def step() -> Tensor:
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()
        return network(image)

    for _ in range(FIRST_RUNS):
        logits = step()
    output = logits.float().cpu().numpy()
    timed = queued_cuda if case["device"] == "cuda" else by_clock
    return lambda count: timed(step, count), output


def make_compiled(folder: Path, case: Json) -> Made:
    return make_torch(folder, case, compiled=True)


def make_onnxruntime(folder: Path, case: Json) -> Made:
    import onnxruntime

    onnxruntime.preload_dlls()  # CUDA's libraries where pip put them
    session = onnxruntime.InferenceSession(str(folder / "fp16.onnx"), providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise SystemExit("ONNX Runtime lists its CUDA provider and does not open it")
    binding = session.io_binding()
    image = onnxruntime.OrtValue.ortvalue_from_numpy(np.load(folder / "input.npy"), "cuda", 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, image)
    binding.bind_output(session.get_outputs()[0].name, "cuda")

    def step() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    by_clock(step, FIRST_RUNS)
    return lambda count: by_clock(step, count), binding.copy_outputs_to_cpu()[0].astype(np.float32)


def make_ours(backend: str) -> Maker:
    def make(folder: Path, case: Json) -> Made:
        from rtformer_deploy import load_engine, open_engine
        from rtformer_deploy.runtime.cpu_session import preprocess_frames

        runner = open_engine(load_engine(folder / f"{backend}.plan"))
        lane: Any = runner.sessions[0].engine
        frame = np.load(folder / "frame.npy")
        logits = runner.logits([frame])
        preprocess_frames([frame], runner.spec, lane.input)

        def step() -> float:
            lane.start(runner.engine_batch(1))
            lane.wait()
            return float(lane.device_ms())

        for _ in range(FIRST_RUNS):
            step()
        return lambda count: [step() for _ in range(count)], logits

    return make


MAKERS: dict[str, Maker] = {
    "torch": make_torch,
    "torch-compile": make_compiled,
    "onnxruntime-cuda": make_onnxruntime,
    **{name: make_ours(name) for name in OURS},
}


class Contestant:
    """Answers a call with a burst's times; is made at the first call, so that no two tune or compile at once.

    One that fails answers with its error from then on, and the others go on. Its logits are kept as NAME.npy.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._case = json.loads((folder / "case.json").read_text())
        self._burst: Burst | None = None
        self._error = ""

    def answer(self, index: int) -> Json:
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries answers and nothing else
            if not self._error:
                try:
                    return {"ms": self._run()}
                except (Exception, SystemExit) as error:
                    self._error = f"{type(error).__name__}: {error}"
        return {"error": self._error}

    def _run(self) -> list[float]:
        if self._burst is None:
            self._burst, logits = MAKERS[self._name](self._folder, self._case)
            np.save(self._folder / f"{self._name}.npy", logits)
        return self._burst(self._case["steps"])


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker of gpu.py.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--worker", choices=NAMES, required=True)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries in C write to stdout
    sys.stdout = answers
    harness.answer_calls(Contestant(arguments.worker, arguments.folder).answer)


if __name__ == "__main__":
    main()
