"""Contestants of one benchmark, a worker process each, called in turn: medians and peak memory are each one's own, noise falls on all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PAUSE = 0.05  # seconds between two calls, so that one's spinning threads do not run into the other's time

Answers = dict[str, list[dict[str, Any]]]


def memory(field: str) -> float:
    """A field of /proc/self/status in MiB: VmRSS (now) or VmHWM (the highest so far)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def answer_calls(answer: Callable[[int], dict[str, Any]]) -> None:
    """A worker's life: reads a frame's index from stdin, writes what `answer` says of it as a JSON line."""
    for line in sys.stdin:
        print(json.dumps(answer(int(line))), flush=True)


def call_in_turn(
    script: str, folder: Path, names: Sequence[str], frames: int, rounds: int, after: Callable[[], None], warmup: int = 2
) -> Answers:
    """Starts `script --folder FOLDER --worker NAME` for each name, calls all of them in every round; `after` runs behind each round."""
    command = [sys.executable, script, "--folder", str(folder), "--worker"]
    workers = {name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in names}
    answers: Answers = {name: [] for name in names}
    try:
        for turn in range(-warmup, rounds):
            for name, process in workers.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{turn % frames}\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"the worker {name} ended early")
                if turn >= 0:
                    answers[name].append(json.loads(line))
                time.sleep(PAUSE)
            after()
    finally:
        for process in workers.values():
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
    return answers
