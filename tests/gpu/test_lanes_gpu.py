"""Lanes on a real GPU: the CPU's label maps bit by bit, graphs, threads, device frames, no growth, and failure without a hang."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_engines import Batch, built
from helpers import frames
from numpy.typing import NDArray

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import UsageError
from rtformer_deploy.formats.engine_file import load_engine, save_engine
from rtformer_deploy.image import frames as image
from rtformer_deploy.lanes.device_arrays import DeviceLabels
from rtformer_deploy.nvidia.driver import gpus, why_none
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Backend, Engine, PrecisionName

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]

SIZES = ((256, 512), (200, 333), (512, 1024), (97, 131))
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8")
MIB = 2**20


def expected(runner: FrameRunner, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The CPU's label map of a frame: preprocessed and upsampled there, with the engine's own logits in between."""
    spec, session = runner.spec, runner.sessions[0].engine
    image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, out=session.input[0])
    session.start(runner.batch[0])
    return image.upsample_argmax(session.wait()[0].astype(np.float32), frame.shape[:2], spec.size, spec.resize)


def graph_notes(runner: FrameRunner) -> list[str]:
    return [note for note in runner.notes if note.startswith("CUDA graphs")]


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_kernels_around_the_engine_give_the_cpus_bits(backend: Backend, precision: PrecisionName, graphs: bool) -> None:
    with open_engine(built(backend, precision), graphs=graphs) as runner:
        for seed in range(4):
            for frame in frames(*SIZES, seed=seed):
                np.testing.assert_array_equal(runner.run([frame])[0], expected(runner, frame))
        print(f"{backend} {precision} graphs {graphs}: {runner.notes}")
        assert graph_notes(runner) == []
        lane: Any = runner.sessions[0]
        captured = lane._graphs is not None and any(entry.graph is not None for entry in lane._graphs._entries.values())
        assert captured == (graphs and backend == "tensorrt")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_gpus_preprocessing_feeds_the_engine_what_the_cpus_does(backend: Backend, precision: PrecisionName) -> None:
    with open_engine(built(backend, precision)) as runner:
        session, spec = runner.sessions[0].engine, runner.spec
        for frame in frames(*SIZES):
            given = runner.logits([frame])[0]
            image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, out=session.input[0])
            session.start(1)
            np.testing.assert_array_equal(given, session.wait()[0].astype(np.float32))


def test_an_engine_that_gives_labels(backend: Backend) -> None:
    with open_engine(built(backend, "fp16", head="labels")) as runner:
        session, spec = runner.sessions[0].engine, runner.spec
        for seed in range(3):
            for frame in frames(*SIZES, seed=seed):
                given = runner.run([frame])[0]
                image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, out=session.input[0])
                session.start(1)
                wanted = image.resize_labels(session.wait()[0], frame.shape[:2], spec.size, spec.resize)
                np.testing.assert_array_equal(given, wanted)


def test_batches_of_frames_of_several_sizes(backend: Backend) -> None:
    batch: Batch = (1, 2, 4)
    with open_engine(built(backend, "fp32", batch), lanes=2) as runner:
        given = frames(*SIZES, *SIZES, SIZES[0])
        alone = [runner.run([frame])[0] for frame in given]
        for _ in range(3):
            together = runner.run(given)
            for labels, single in zip(together, alone, strict=True):
                assert np.mean(labels != single) < 1e-3  # a larger batch may be computed by other kernels
        assert graph_notes(runner) == []


def free_memory() -> int:
    from cuda.bindings import driver

    _, free, _ = driver.cuMemGetInfo()
    return int(free)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def pool_of(runner: FrameRunner) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """64 frames of several sizes, with their label maps computed beforehand."""
    pool = [frames(SIZES[index % len(SIZES)], seed=index)[0] for index in range(64)]
    return pool, [expected(runner, frame) for frame in pool]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ten_thousand_frames_through_four_lanes_and_four_threads(backend: Backend, precision: PrecisionName) -> None:
    engine = built(backend, precision)
    with open_engine(engine, graphs=False) as single:
        pool, wanted = pool_of(single)
    with open_engine(engine, lanes=4) as runner:

        def work(seed: int, count: int) -> int:
            rng = random.Random(seed)
            flying: list[tuple[int, Any]] = []
            done = 0
            for left in range(count, 0, -1):
                index = rng.randrange(64)
                flying.append((index, runner.submit([pool[index]])))
                while len(flying) > 2 or (left == 1 and flying):
                    index, ticket = flying.pop(rng.randrange(len(flying)))
                    np.testing.assert_array_equal(runner.result(ticket)[0], wanted[index])
                    done += 1
            return done

        def all_threads(count: int) -> int:
            with ThreadPoolExecutor(4) as threads:
                return sum(threads.map(work, range(4), [count] * 4))

        all_threads(100)  # every shape captured in every lane
        lane: Any = runner.sessions[0]
        with lane._share.current():
            before = free_memory(), resident()
            begin = time.perf_counter()
            assert all_threads(2500) == 10_000
            seconds = time.perf_counter() - begin
            after = free_memory(), resident()
        print(f"{backend} {precision}: {10_000 / seconds:.0f} frames a second, checks included; {runner.notes}")
        assert before[0] - after[0] < 16 * MIB
        assert after[1] - before[1] < 64 * MIB
        assert graph_notes(runner) == []


# A caller's frames and streams.


def test_torch_frames_and_streams_are_taken_as_they_are(backend: Backend) -> None:
    torch = pytest.importorskip("torch")
    with open_engine(built(backend, "fp16"), lanes=2) as runner:
        stream = torch.cuda.Stream()
        for seed in range(4):
            for frame, other in zip(frames(*SIZES, seed=seed), frames(*SIZES, seed=99), strict=True):
                wanted = expected(runner, frame)
                with torch.cuda.stream(stream):
                    array = torch.from_numpy(other).cuda()
                    torch.cuda._sleep(10_000_000)  # what comes next is late
                    array.copy_(torch.from_numpy(frame).pin_memory(), non_blocking=True)
                    ticket = runner.submit([array], stream=stream, on_device=seed % 2 == 1)
                    array.zero_()  # waits until the runner has read the frame
                labels = runner.result(ticket)[0]
                if isinstance(labels, DeviceLabels):
                    labels = torch.as_tensor(labels, device="cuda").cpu().numpy()
                np.testing.assert_array_equal(labels, wanted)
        fake = dataclasses.make_dataclass("Fake", [("__cuda_array_interface__", dict)])
        with pytest.raises(UsageError, match="CUDA knows no device memory"):
            runner.submit([fake({"shape": (8, 8, 3), "typestr": "|u1", "data": (4096, False), "version": 3})])


@contextlib.contextmanager
def saved(engine: Engine, folder: Path) -> Iterator[Path]:
    path = folder / "engine.plan"
    save_engine(engine, path)
    yield path


def run_python(code: str, *arguments: str, timeout: float = 300) -> str:
    """A script in a process of its own, since what it does to CUDA cannot be undone."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


START = """
import sys
from pathlib import Path
from rtformer_deploy import load_engine, open_engine
with open_engine(load_engine(Path(sys.argv[1]))) as runner:
    print([note for note in runner.notes if note.startswith("Start")][0])
"""


@pytest.mark.usefixtures("rtx_runs_here")
def test_a_second_start_does_not_compile_again(tmp_path: Path) -> None:
    with saved(built("tensorrt-rtx", "fp16"), tmp_path) as path:
        first, second = (run_python(START, str(path)) for _ in range(2))
        print(first, second)
        assert (tmp_path / "engine.plan.cache").stat().st_size > 0
    assert "compiling for this GPU" in first
    took = re.search(r"Start: (\d+) ms with engine.plan.cache; the first one, which compiled, took (\d+) ms", second)
    assert took is not None
    assert int(took[1]) < int(took[2])


BREAK = """
import sys, threading, time
from pathlib import Path
import numpy as np
import cuda.core as cuda
from rtformer_deploy import load_engine, open_engine
from rtformer_deploy.errors import EngineError
runner = open_engine(load_engine(Path(sys.argv[1])), lanes=4)
frame = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
said = {}
def work(index):
    try:
        while True:
            runner.result(runner.submit([frame]))
    except EngineError as error:
        said[index] = (time.monotonic(), error.what)
threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(4)]
for thread in threads: thread.start()
time.sleep(2)
gpu = cuda.Device(0); gpu.set_current()
arch = gpu.compute_capability
source = 'extern "C" __global__ void wild(long long at) { *reinterpret_cast<volatile int*>(at) = 1; }'
wild = cuda.Program(source, "c++", cuda.ProgramOptions(arch=f"sm_{arch.major}{arch.minor}")).compile("cubin").get_kernel("wild")
begin = time.monotonic()
cuda.launch(gpu.create_stream(), cuda.LaunchConfig(grid=1, block=1), wild, 64)
for thread in threads: thread.join(20)
assert len(said) == 4, said
assert max(when for when, _ in said.values()) - begin < 10
assert all("has failed, and with it every request on it" in what for _, what in said.values()), said
runner.close()
print(said[0][1])
import os; sys.stdout.flush(); os._exit(0)
"""


def test_a_cuda_error_in_the_middle_fails_every_lane_promptly(backend: Backend, tmp_path: Path) -> None:
    with saved(built(backend, "fp16"), tmp_path) as path:
        print(run_python(BREAK, str(path), timeout=120))


def test_what_was_loaded_knows_where_it_lies(tmp_path: Path, backend: Backend) -> None:
    with saved(built(backend, "fp16"), tmp_path) as path:
        assert load_engine(path).path == path
