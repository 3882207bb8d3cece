"""`segment --cluster` on a local Ray cluster of two nodes: what it costs, and what is left after nodes and drivers were killed.

    python benchmarks/scale.py [--frames 200] [--kills 10] [--size 64x128] [--picture 480x640] [--rounds 3] [--cpus 2] [--json FILE]

It needs the extras cluster and export. Three parts, in one run:

    speed    the frames by plain processes of `segment` (as many as Ray has engines, each with its share of the frames), by Ray on one node
             and by Ray on two, in turn. Frames a second are counted from the first finished picture to the last; `whole_s` is the whole
             command, with the start of its processes. `ray_share` is the part of the time that Ray costs on one node.
    kills    --kills runs, in each of which one of the two nodes is killed in the middle: every output is there once and equal to one
             machine's bytes, and the run ends. Every other run leaves the lost node's engine no free place (one CPU a node).
    resume   the driver is killed in the middle and started again: only what is missing is made.

The nodes are processes of this machine, so two nodes are no faster than one here: the figure says what a second node costs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import harness
import numpy as np
from harness import Json, Size
from local_cluster import LocalCluster, finished, outputs, segment, wait_for

STALL_S = 240


class Work:
    """A plan, frames, and what one machine makes of them, in a folder."""

    def __init__(self, folder: Path, frames: int, size: Size, picture: Size) -> None:
        from rtformer_deploy import BuildOptions, build_engine, choose_network, export_model, save_engine
        from rtformer_deploy.image.png import save_png

        self.folder, self.frames = folder, frames
        choice = choose_network(recipe="rtformer-slim-cityscapes", random_seed=0)
        exported = export_model(choice.network, choice.spec(size=size))
        save_engine(build_engine(exported.model, exported.spec, "onnxruntime", BuildOptions(threads=1)), folder / "engine.plan")
        rng = np.random.default_rng(0)
        (folder / "in").mkdir()
        for index in range(frames):
            small = rng.integers(0, 255, (picture[0] // 16, picture[1] // 16, 3), np.uint8)
            save_png(folder / f"in/{index:04}.png", small.repeat(16, 0).repeat(16, 1), mark=False)
        self.end(segment(folder / "engine.plan", folder / "in", "-o", folder / "alone", "--threads", 1, log=folder / "log"))
        self.alone = outputs(folder / "alone")

    def start(self, output: Path, address: str) -> Popen[str]:
        """Starts a run over a cluster."""
        options = ("--threads", 1, "--cluster", address, "--stall", STALL_S)
        return segment(self.folder / "engine.plan", self.folder / "in", "-o", output, *options, log=self.folder / "log")

    def end(self, *processes: Popen[str]) -> None:
        """Waits for runs. Raises SystemExit with what one printed if it failed or hangs."""
        for process in processes:
            try:
                process.wait(20 * STALL_S)
            finally:
                process.kill()
            if process.returncode:
                raise SystemExit(f"a run ended with {process.returncode}:\n{(self.folder / 'log').read_text()[-2000:]}")

    def new(self, name: str) -> Path:
        """An empty place for outputs."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name


# ------------------------------------------------------------------------------------------------------------------- speed


def speed_of(output: Path, began: float) -> Json:
    """The outputs of a run -> its frames a second, from the first finished picture to the last, and the time of the whole command."""
    times = sorted(path.stat().st_mtime for path in finished(output) if path.name.endswith("_overlay.png"))
    seconds = times[-1] - times[0]
    return {"fps": (len(times) - 1) / seconds, "whole_s": time.time() - began}


def plainly(work: Work, processes: int) -> Json:
    """Plain processes of `segment`, each with its share of the frames."""
    output = work.new("plain")
    images = sorted((work.folder / "in").iterdir())
    lists = []
    for index in range(processes):
        lists.append(work.folder / f"part{index}.txt")
        lists[-1].write_text("".join(f"{path}\n" for path in images[index::processes]))
    began = time.time()
    runs = [segment(work.folder / "engine.plan", each, "-o", output, "--threads", 1, log=work.folder / "log") for each in lists]
    work.end(*runs)
    return speed_of(output, began)


def on_ray(work: Work, nodes: int, cpus: int) -> Json:
    with LocalCluster(nodes, cpus) as cluster:
        output, began = work.new("ray"), time.time()
        work.end(work.start(output, cluster.address))
        return speed_of(output, began) | {"equal": outputs(output) == work.alone}


def measure_speed(work: Work, rounds: int, cpus: int) -> Json:
    """Every contestant in turn, `rounds` times; medians."""
    contestants: dict[str, Callable[[], Json]] = {
        "plain_1": lambda: plainly(work, 1),
        "plain_2": lambda: plainly(work, 2),
        "ray_1_node": lambda: on_ray(work, 1, cpus),
        "ray_2_nodes": lambda: on_ray(work, 2, cpus),
    }
    runs: dict[str, list[Json]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name, run in contestants.items():
            runs[name].append(run())
            print(f"round {turn + 1}, {name}: {runs[name][-1]}", file=sys.stderr)
    figures: Json = {
        name: {key: round(statistics.median(run[key] for run in each), 3) for key in ("fps", "whole_s")} | {"runs": each}
        for name, each in runs.items()
    }
    figures["ray_share"] = round(1 - figures["ray_1_node"]["fps"] / figures["plain_1"]["fps"], 3)
    figures["equal"] = all(run.get("equal", True) for each in runs.values() for run in each)
    return figures


# ------------------------------------------------------------------------------------------------------- nodes and drivers


def kill_a_node(work: Work, cpus: int) -> Json:
    """One run in which one of two nodes is killed in the middle."""
    with LocalCluster(2, cpus) as cluster:
        output, began = work.new("killed"), time.time()
        run = work.start(output, cluster.address)
        wait_for(lambda: _count(output) >= work.frames, run)  # half of the pictures: two of each frame
        at, killed = _count(output), time.time()
        cluster.kill_node()
        work.end(run)
        found = outputs(output)
    once = found.keys() == work.alone.keys()
    result = {"killed_at": at, "rest_s": round(time.time() - killed, 1), "whole_s": round(time.time() - began, 1)}
    return result | {"every_output_once": once, "equal": found == work.alone}


def kill_the_driver(work: Work, cpus: int) -> Json:
    """A run whose driver is killed in the middle, and its second start."""
    with LocalCluster(2, cpus) as cluster:
        output = work.new("resumed")
        run = work.start(output, cluster.address)
        wait_for(lambda: _count(output) >= work.frames, run)
        run.send_signal(signal.SIGKILL)
        run.wait()
        time.sleep(10)  # until Ray has ended what the driver had started
        before = {path: path.stat().st_mtime_ns for path in finished(output)}
        work.end(work.start(output, cluster.address))
        again = sum(path.stat().st_mtime_ns != made for path, made in before.items())
    lone = sum(1 for path in before if _other(path) not in before)  # the run was killed between a frame's two pictures
    return {"there_before": len(before), "half_made": lone, "made_again": again, "equal": outputs(output) == work.alone}


def _other(path: Path) -> Path:
    one, two = ("_labels", "_overlay") if "_labels" in path.name else ("_overlay", "_labels")
    return path.with_name(path.name.replace(one, two))


def _count(folder: Path) -> int:
    return sum(1 for _ in finished(folder))


def measure(arguments: argparse.Namespace) -> Json:
    with tempfile.TemporaryDirectory() as name:
        work = Work(Path(name), arguments.frames, arguments.size, arguments.picture)
        speed = measure_speed(work, arguments.rounds, arguments.cpus) if arguments.rounds else None
        kills = []
        for turn in range(arguments.kills):
            kills.append(kill_a_node(work, 1 + turn % 2))  # in turn without and with a free place for the lost node's engine
            print(f"kill {turn + 1}: {kills[-1]}", file=sys.stderr)
        resumed = kill_the_driver(work, arguments.cpus)
    how: Json = {name: getattr(arguments, name) for name in ("frames", "rounds", "size", "picture", "cpus")}
    how["load"] = os.getloadavg()  # of the machine, at the end: 2 cores that nobody else uses give about 2
    figures = {"how": how, "speed": speed, "kills": kills, "driver_killed": resumed}
    return harness.stamped("segment --cluster on a local Ray cluster", figures)


def main() -> int:
    parser = harness.command_line(__doc__, harness.RESULTS / "scale.json")
    parser.add_argument("--frames", type=harness.positive, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=harness.size_of, default=(64, 128), metavar="HxW", help="the engine's input")
    parser.add_argument("--picture", type=harness.size_of, default=(480, 640), metavar="HxW")
    parser.add_argument("--cpus", type=harness.positive, default=2, help="logical CPUs of a node, in the parts speed and resume")
    arguments = parser.parse_args()
    result = harness.run_script(arguments.json, lambda: measure(arguments))
    if result is None:
        return 1
    whole = [*result["kills"], result["driver_killed"], *([result["speed"]] if result["speed"] else [])]
    return 0 if all(each["equal"] for each in whole) else 1


if __name__ == "__main__":
    sys.exit(main())
