"""Everything that a GPU machine should run, in one go and under one time limit: the probe, tests/gpu, the benchmarks.

    python benchmarks/gpu_session.py OUT [--limit 540] [--only probe tests ...]

Each part is a process of its own, whose output goes to OUT/PART.txt while it runs and whose figures to OUT/PART.json. A part that
fails or takes too long does not stop the next; what is left of the limit is shared among the parts that follow. OUT/session.json tells
after every part what came of it, so nothing is lost if the machine is taken away. Ends with 1 if a part failed. Never run on a GPU so far.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import Json

ROOT = Path(__file__).resolve().parents[1]
_TAIL = 15  # lines of a part's output that are printed


class Part(NamedTuple):
    """`share`: what it may take of the time, in proportion to the parts that follow. `writes`: the option that names its JSON, if any."""

    share: float
    command: Sequence[str]
    writes: str | None = "--json"


_ENGINES = "benchmarks/gpu.py --parts engines frames --engine torch tensorrt-rtx tensorrt --seconds 3 --rounds 5"

#: What is quick and needed by the others comes first.
PARTS: dict[str, Part] = {
    "probe": Part(1, ["benchmarks/gpu_probe.py"]),
    "tests": Part(5, ["-m", "pytest", "tests/gpu", "-v", "-p", "no:cacheprovider", "--durations=15"], "--junit-xml"),
    "frames": Part(3, ["benchmarks/gpu.py", "--parts", "frames", "--engine", "standin", "--seconds", "3"]),
    "kernels": Part(1, ["benchmarks/gpu_kernels.py"]),
    "engines": Part(6, _ENGINES.split()),
}


def run_part(name: str, part: Part, out: Path, seconds: float) -> Json:
    """Runs a part for at most so many seconds; gives its exit code (None: it took too long), how long it took, and what it wrote."""
    figures = out / f"{name}{'.xml' if part.writes == '--junit-xml' else '.json'}"
    figures.unlink(missing_ok=True)  # an earlier run's
    command = [sys.executable, *part.command, *([f"{part.writes}={figures}"] if part.writes else [])]
    begin = time.monotonic()
    with (out / f"{name}.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | None = process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
    took = round(time.monotonic() - begin, 1)
    return {"code": code, "seconds": took, "limit": round(seconds, 1), "command": command[1:], "figures": figures.name * figures.exists()}


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a part that still runs, with its own processes. One that the GPU holds may not end; it is left."""
    if process.poll() is not None:
        return
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return


def environment() -> dict[str, str]:
    """This process's, with the checkout to import from, whether or not the project is installed."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


def allowance(left: float, name: str, names: Sequence[str], parts: Mapping[str, Part]) -> float:
    """How many of the `left` seconds a part gets: its share among itself and those that follow."""
    following = names[names.index(name) :]
    return left * parts[name].share / sum(parts[other].share for other in following)


def run_session(out: Path, limit: float, names: Sequence[str], parts: Mapping[str, Part] | None = None) -> dict[str, Json]:
    """Runs the parts one after another -> what came of each; OUT/session.json has it after every part."""
    parts = PARTS if parts is None else parts
    begin, results = time.monotonic(), {}
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        seconds = allowance(limit - (time.monotonic() - begin), name, names, parts)
        print(f"== {name}: at most {seconds:.0f} s", flush=True)
        results[name] = run_part(name, parts[name], out.resolve(), seconds)
        (out / "session.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print("\n".join((out / f"{name}.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]))
        code = results[name]["code"]
        said = "took too long" if code is None else "done" if code == 0 else f"ended with {code}"
        print(f"== {name}: {said} after {results[name]['seconds']:g} s", flush=True)
    return results


def seconds_of(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for what the parts write; made if it is not there")
    parser.add_argument("--limit", type=seconds_of, default=540, help="seconds for all parts together [default: 540]")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), help="run these parts only [default: all]")
    arguments = parser.parse_args(words)
    names = [name for name in PARTS if arguments.only is None or name in arguments.only]
    try:
        results = run_session(arguments.out, arguments.limit, names)
    except OSError as error:
        print(f"Cannot write into {arguments.out}: {error.strerror}.", file=sys.stderr)
        return 1
    return int(any(result["code"] != 0 for result in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
