"""What the benchmarks share: their command lines, networks and frames, contestants that are called in turn, and the JSON they write.

A contestant is a worker process, so that medians and peak memory are each one's own; they are called in turn, so that noise falls on
all alike. Importing this loads NumPy and the standard library alone: a worker holds no more than what it measures, and a peer's own
Python can use it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rtformer_deploy.export.weights_choice import Choice

RESULTS = Path(__file__).parent / "results"
PAUSE = 0.05  # seconds between two calls, so that one's spinning threads do not run into the other's time

Size = tuple[int, int]  # (H, W)
Json = dict[str, Any]


# ----------------------------------------------------------------------------------------------------------- command line


def command_line(doc: str | None, output: Path | None = None) -> argparse.ArgumentParser:
    """A parser with the script's docstring as its help, and --json, whose default is `output`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=output, help=f"write the figures here [default: {output or 'nowhere'}]")
    return parser


def add_cases(parser: argparse.ArgumentParser, sizes: Sequence[Size]) -> None:
    """The options of a script that measures variants at sizes: --weights, --frames, --variants and --sizes; see `cases`."""
    parser.add_argument("--weights", type=Path, help="weights of Slim for Cityscapes [default: random, seed 0]")
    parser.add_argument("--frames", type=Path, help="folder of pictures [default: the bundled photograph]")
    parser.add_argument("--variants", nargs="+", choices=("slim", "base"), default=["slim", "base"])
    parser.add_argument("--sizes", nargs="+", type=size_of, default=list(sizes), metavar="HxW")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads of the CPU; all that this process may use by default."""
    from rtformer_deploy.machine import usable_cores

    parser.add_argument("--threads", type=positive, default=usable_cores(), help="CPU threads [default: all]")


def add_worker(parser: argparse.ArgumentParser) -> None:
    """--folder and --worker, with which a script calls itself."""
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def size_of(text: str) -> Size:
    """ "1024x2048" -> (1024, 2048)."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, such as 1024x2048")
    return int(height), int(width)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count of 1 or more")
    return int(text)


# ------------------------------------------------------------------------------------------------------ networks and frames


def cases(arguments: argparse.Namespace) -> Iterator[Json]:
    """Every variant at every size: its variant, recipe, size and weights. Slim takes the weights given, Base random ones."""
    for variant in arguments.variants:
        for size in arguments.sizes:
            weights = str(arguments.weights.resolve()) if variant == "slim" and arguments.weights else None
            yield {"variant": variant, "recipe": f"rtformer-{variant}-cityscapes", "size": size, "weights": weights}


def network_of(case: Mapping[str, Any]) -> Choice:
    """The network of a case, with its weights or, without any, random ones."""
    from rtformer_deploy import choose_network

    weights = Path(case["weights"]) if case["weights"] else None
    return choose_network(recipe=case["recipe"], weights=weights, random_seed=None if weights else 0)


def frames_at(folder: Path | None, size: Size, count: int) -> NDArray[np.uint8]:
    """The first `count` pictures of a folder, each cut to the shape of `size` in its middle and resized: (N, H, W, 3) RGB.

    Without a folder it is the bundled photograph alone. Raises ImageError.
    """
    from rtformer_deploy import load_image
    from rtformer_deploy.image.frames import images_in
    from rtformer_deploy.image.samples import sample_frame

    if folder is None:
        return sample_frame(size)[None]
    return np.stack([_fit(load_image(path), size) for path in images_in(folder)[:count]])


def _fit(frame: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    import cv2

    (tall, wide), (height, width) = frame.shape[:2], size
    cut_tall, cut_wide = min(tall, wide * height // width), min(wide, tall * width // height)
    top, left = (tall - cut_tall) // 2, (wide - cut_wide) // 2
    return np.asarray(cv2.resize(frame[top : top + cut_tall, left : left + cut_wide], (width, height)), np.uint8)


# ----------------------------------------------------------------------------------------------------- contestants in turn


def memory(field: str) -> float:
    """A field of /proc/self/status in MiB: VmRSS (now) or VmHWM (the highest so far)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def answer_calls(answer: Callable[[int], Json]) -> None:
    """A worker's life: reads a frame's index from stdin, writes what `answer` gives for it as a JSON line."""
    for line in sys.stdin:
        print(json.dumps(answer(int(line))), flush=True)


class Worker:
    """A process that answers calls: `script --folder FOLDER --worker NAME`."""

    def __init__(self, script: str, folder: Path, name: str) -> None:
        self.name = name
        command = [sys.executable, script, "--folder", str(folder), "--worker", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, index: int) -> Json:
        """Sends a frame's index and waits for the answer."""
        sending, receiving = self._pipes()
        sending.write(f"{index}\n")
        sending.flush()
        line = receiving.readline()
        if not line:
            raise SystemExit(f"the worker {self.name} ended early")
        answer: Json = json.loads(line)
        return answer

    def close(self) -> None:
        sending, receiving = self._pipes()
        sending.close()
        self._process.wait()
        receiving.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def call_in_turn(
    script: str,
    folder: Path,
    names: Sequence[str],
    frames: int,
    rounds: int,
    after: Callable[[], None] = lambda: None,
    warmup: int = 2,
) -> dict[str, list[Json]]:
    """Starts a worker for each name and calls all of them in every round, frame after frame; `after` runs behind each round.

    Returns the answers of each; those of the `warmup` rounds are left out.
    """
    answers: dict[str, list[Json]] = {name: [] for name in names}
    workers = [Worker(script, folder, name) for name in names]
    try:
        for turn in range(-warmup, rounds):
            for worker in workers:
                answer = worker.call(turn % frames)
                if turn >= 0:
                    answers[worker.name].append(answer)
                time.sleep(PAUSE)
            after()
    finally:
        for worker in workers:
            worker.close()
    return answers


# ----------------------------------------------------------------------------------------------------------------- results


def percent(share: float | None) -> float | None:
    """A share, or None for what does not occur -> percent with two places, or None."""
    return None if share is None else round(100 * share, 2)


def stamped(what: str, figures: Mapping[str, Any], environment: Mapping[str, Any] | None = None) -> Json:
    """Figures with what they are, when they were taken, and on which machine with which versions (`machine.environment`)."""
    from rtformer_deploy import machine

    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"what": what, "when": when, **figures, "environment": machine.environment() if environment is None else environment}


def device_facts(device: str) -> Json:
    """What a figure depends on: machine.environment, and the GPU, its driver and the versions of CUDA's libraries."""
    from rtformer_deploy.machine import environment, versions
    from rtformer_deploy.nvidia.driver import gpu_at

    facts = environment()
    facts["packages"] |= versions(("onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "tensorrt_cu13", "tensorrt_cu12", "triton"))
    if device == "cpu":
        return facts | {"device": "cpu"}
    import torch

    gpu = gpu_at(0)
    told = {"device": gpu.name, "compute_capability": gpu.compute_capability, "memory_mib": gpu.memory_mib}
    return facts | told | {"driver_cuda": gpu.driver, "torch_cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def run_script(output: Path | None, measure: Callable[[], Json]) -> Json | None:
    """Checks that `output` can be written, measures, writes the figures there; None after an error, whose message is printed."""
    from rtformer_deploy import DeployError
    from rtformer_deploy.files import check_writable, write_atomic

    try:
        if output is not None:
            check_writable(output)
        result = measure()
        if output is not None:
            write_atomic(output, (json.dumps(result, indent=1) + "\n").encode())
    except DeployError as error:
        print(error, file=sys.stderr)
        return None
    return result
