"""What a frame on a GPU costs the calling thread: submit and result at 1024x2048, four lanes, CUDA graphs, a driver that does nothing.

    python benchmarks/lane_overhead.py [--lanes 4] [--size 1024x2048] [--steps 1000] [--rounds 5] [--json FILE]

No GPU is needed: the driver is the stub of tests/stub_driver, under the real cuda.core, in its mode "no work". Every call returns at
once, so what is left is Python, cuda.core and copies on the host; a real driver's calls take longer. Graphs are captured and launched, and
taken for right without the test that needs work.

A step submits a frame and takes the label map of the frame that was submitted `--lanes` - 1 steps before. `host`: the frame is any array,
which is copied. `pinned`: the frame is what `runner.frame` gives; asking for it is part of the step, and writing to it is not. The kinds
take turns, `--rounds` times. `median_ms` and `p99_ms` are by the wall clock, `cpu_median_ms` and `cpu_p99_ms` by the CPU time of the
calling thread (time.thread_time), all in ms.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import numpy as np
from harness import Json, Size
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stub import StubDriver

    from rtformer_deploy.runtime.frame_runner import FrameRunner
    from rtformer_deploy.types import Frame

RESULT = harness.RESULTS / "lane_overhead.json"
TESTS = Path(__file__).parent.parent / "tests"
#: For each kind: which figure may be at most how many ms.
GOALS = {"host": ("median_ms", 0.35), "pinned": ("cpu_median_ms", 0.15)}
_FIRST_STEPS = 3  # a lane captures its graph at the second submission of a shape

#: Gives the next frame to submit.
Source = Callable[[], "Frame"]


def load_stub() -> StubDriver:
    """The stub as this process's driver. Nothing may have imported cuda.core before."""
    sys.path[:0] = [str(TESTS), str(TESTS / "stub_driver")]
    import stub

    return stub.load()


def open_runner(driver: StubDriver, size: Size, lanes: int) -> FrameRunner:
    """Lanes with graphs over the stub, which does no work, with an engine that is captured as one callback."""
    import cuda.core
    import stub
    from helpers import tiny_spec
    from lane_lab import StrictEngine
    from tensorrt_plans import make_info

    from rtformer_deploy.lanes import graphs, kernels
    from rtformer_deploy.lanes.health import GpuHealth
    from rtformer_deploy.lanes.lane import Lane
    from rtformer_deploy.lanes.shared import LaneShare, on_device
    from rtformer_deploy.runtime.frame_runner import FrameRunner

    driver.mode("no work")
    setattr(kernels, "compile_kernel_file", stub.compile_kernel_file)  # noqa: B010 - NVRTC crashes under the stub
    setattr(graphs.LaneGraphs, "_doubt", lambda *_: None)  # noqa: B010 - nothing runs, so there is nothing to compare
    spec = tiny_spec("batch", size=size)
    info = make_info(spec=spec, inputs=(spec.input,), outputs=(spec.output,), batch=(1, 1, 1))
    with on_device(cuda.core, 0) as device:
        on_frames = kernels.FrameKernels(cuda.core, device, spec, info.inputs[0].dtype, info.outputs[0].dtype)
        share = LaneShare(StrictEngine(driver, info), cuda.core, 0, on_frames, GpuHealth("the stub", 60), True)
        return FrameRunner([Lane(share) for _ in range(lanes)], spec, info.batch, None, info)


def sources(runner: FrameRunner, size: Size) -> dict[str, Source]:
    """The kinds, and where their frames come from."""
    frame = harness.frames_at(None, size, 1)[0]
    return {"host": lambda: frame, "pinned": lambda: runner.frame(size)}


def warm_up(driver: StubDriver, runner: FrameRunner, size: Size) -> None:
    """Captures every lane's graph for both kinds. Raises SystemExit if they are not used from then on."""
    for make in sources(runner, size).values():
        measure(runner, make, _FIRST_STEPS * len(runner.sessions))
        driver.forget()
        measure(runner, make, 1)
        launched = driver.calls().get("cuGraphLaunch", 0)
        if launched != len(runner.sessions):
            raise SystemExit(f"{launched} graphs were launched for {len(runner.sessions)} frames: {runner.notes}")


def measure(runner: FrameRunner, make: Source, steps: int) -> NDArray[np.float64]:
    """Steps with one frame less in flight than there are lanes -> ms by the wall clock and by the thread's CPU time (steps, 2)."""
    waiting = deque(runner.submit([make()]) for _ in range(len(runner.sessions) - 1))
    times = np.empty((steps, 2))
    for step in range(steps):
        wall, cpu = time.perf_counter(), time.thread_time()
        waiting.append(runner.submit([make()]))
        runner.result(waiting.popleft())
        times[step] = time.perf_counter() - wall, time.thread_time() - cpu
    while waiting:
        runner.result(waiting.popleft())
    return 1000 * times


def row_of(times: NDArray[np.float64]) -> Json:
    wall, cpu = ([round(float(value), 4) for value in np.percentile(column, [50, 99])] for column in times.T)
    return {"median_ms": wall[0], "p99_ms": wall[1], "cpu_median_ms": cpu[0], "cpu_p99_ms": cpu[1], "steps": len(times)}


def run(arguments: argparse.Namespace) -> Json:
    driver = load_stub()
    with open_runner(driver, arguments.size, arguments.lanes) as runner:
        warm_up(driver, runner, arguments.size)
        made: dict[str, list[NDArray[np.float64]]] = {kind: [] for kind in GOALS}
        for _ in range(arguments.rounds):
            for kind, make in sources(runner, arguments.size).items():
                made[kind].append(measure(runner, make, arguments.steps))
        driver.mode("stepping")  # closing waits
    rows = {kind: row_of(np.concatenate(times)) for kind, times in made.items()}
    goals = {kind: {"figure": figure, "at_most_ms": bound, "met": rows[kind][figure] <= bound} for kind, (figure, bound) in GOALS.items()}
    what = "submit and result of one frame, over the stub driver without work, in ms: wall clock, and CPU time of the calling thread"
    figures = {"size": arguments.size, "lanes": arguments.lanes, "rounds": arguments.rounds, **rows, "goals": goals}
    return harness.stamped(what, figures, facts())


def facts() -> Json:
    """machine.environment, where the stub is no GPU, with the versions of CUDA's Python packages and what the native code runs on."""
    from rtformer_deploy.image import native
    from rtformer_deploy.machine import environment, versions

    found = environment()
    found["packages"] |= versions(("cuda-core", "cuda-bindings"))
    return found | {"gpus": None, "driver": "tests/stub_driver, no work", "native": native.description()}


def report(result: Json) -> str:
    """The figures as text."""
    lines = [f"{result['size'][0]}x{result['size'][1]}, {result['lanes']} lanes, submit + result in ms"]
    lines.append(f"  {'':8}{'median':>9}{'p99':>9}{'CPU median':>12}{'CPU p99':>10}")
    for kind, goal in result["goals"].items():
        row: dict[str, Any] = result[kind]
        figures = f"{row['median_ms']:9.3f}{row['p99_ms']:9.3f}{row['cpu_median_ms']:12.3f}{row['cpu_p99_ms']:10.3f}"
        lines.append(f"  {kind:8}{figures}  {goal['figure']} at most {goal['at_most_ms']}: {'met' if goal['met'] else 'MISSED'}")
    return "\n".join(lines)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__, RESULT)
    parser.add_argument("--lanes", type=harness.positive, default=4)
    parser.add_argument("--size", type=harness.size_of, default=(1024, 2048), metavar="HxW")
    parser.add_argument("--steps", type=harness.positive, default=1000, help="steps of one kind in a round")
    parser.add_argument("--rounds", type=harness.positive, default=5)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """0: measured; 1: a goal was missed, or nothing could be measured or written."""
    arguments = parse(words)
    result = harness.run_script(arguments.json, lambda: run(arguments))
    if result is None:
        return 1
    print(report(result))
    return 0 if all(goal["met"] for goal in result["goals"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
