"""A contestant's process: opens it, then measures or checks it whenever it is asked. `processes` starts it and speaks to it.

Requests come in on standard input and answers go out on standard output, one JSON object a line. What libraries print goes to standard
error, so that it never stands between two answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import msgspec

from .. import machine
from ..errors import DeployError
from ..formats.conversion import convert
from ..formats.documents import parse_json
from ..image.samples import sample_frame
from ..opening import open_any, open_network_at
from ..runtime.frame_runner import FrameRunner
from ..timing.bench import bench_turn
from ..timing.report import Timing
from ..types import Frame
from .check import check
from .contestant import Answer, Call, Contestant, Ready, Refusal, Request, Setup, Turn


def main() -> None:
    """Reads a Setup, then Requests, until standard input ends; answers each."""
    answers = _own_output()
    requests = iter(sys.stdin)
    for answer in _answers(requests):
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def _own_output() -> IO[bytes]:
    """Standard output for answers alone: descriptor 1, to which native code prints, becomes standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _answers(requests: Iterator[str]) -> Iterator[Answer]:
    setup = convert(parse_json(next(requests)), Setup)
    frame = sample_frame(setup.frame_size)
    with ExitStack() as stack:
        try:
            before = machine.resident_mb()
            machine.reset_peak()
            runner = stack.enter_context(open_contestant(setup.contestant))
            yield Answer(Ready(runner.spec.size))
            for line in requests:
                yield _answer(convert(parse_json(line), Request), runner, frame, before, setup.contestant.threads)
        except DeployError as error:
            yield Answer(refusal=Refusal.of(error))


def open_contestant(contestant: Contestant) -> FrameRunner:
    """A contestant -> its Runner. Raises what `opening.open_any` and `opening.open_network_at` raise."""
    path, network = Path(contestant.file), contestant.network
    if network is None:
        return open_any(path, device=contestant.device, threads=contestant.threads)
    return open_network_at(
        path, network.size, batch=network.batch, device=contestant.device, threads=contestant.threads, compiled=network.compiled
    )


def _answer(request: Request, runner: FrameRunner, frame: Frame, before: float, threads: int | None) -> Answer:
    if request.check is not None:
        return Answer(checked=check(runner, request.check, threads))
    assert request.call is not None  # one of the two is set
    return Answer(turn=_measure(runner, frame, request.call, before))


def _measure(runner: FrameRunner, frame: Frame, call: Call, before: float) -> Turn:
    batch = runner.batch[0]
    engine, whole = bench_turn(runner, [frame] * batch, call.seconds / 2, call.warmup)
    peak = max(0.0, machine.peak_mb() - before)
    return Turn(_rounded(engine), _rounded(whole), peak, batch)


def _rounded(timing: Timing) -> tuple[float, ...]:
    """Latencies in ms to a ten-thousandth: they go through a pipe and into a journal."""
    return tuple(round(value, 4) for value in timing.latencies_ms)
