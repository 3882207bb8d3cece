"""What segmenting very many frames takes: measured on this machine, reckoned for a billion, simulated for 10, 100 and 1,000 nodes.

    python benchmarks/scale_model.py [--sizes 360x480 1024x2048] [--frames 60] [--json benchmarks/results/scale_model.json]

Measured: `segment` as users run it, JPEG files in, PNG files out, on all cores, INT8 on OpenVINO; two runs of different length are
subtracted, so that starting up does not count. Also what the one driver of a run takes for each image (scale_driver.py). Reckoned from
that: hours, cost, storage, network, and what the driver needs (`reckon`). Simulated: nodes that fail, start again and repeat what they
lost, and one driver that counts results (`simulate`; the model is in its docstring). docs/scale.md explains the figures.

It needs the extras export and cluster.
"""

from __future__ import annotations

import argparse
import heapq
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import harness
from harness import Json, Size
from scale_driver import Driver, measure_driver

RECIPE = "rtformer-slim-camvid"
SIZES: tuple[Size, ...] = ((360, 480), (1024, 2048))
NODES = (10, 100, 1000)
BILLION = 1_000_000_000
_HOUR = 3600.0
_MOST_TIMES = 8  # as many pictures, at most, of a smaller size: its runs are to last as long


# ---------------------------------------------------------------------------------------------------------------- measured


@dataclass(frozen=True)
class Measured:
    """Of one size: frames a second of the whole `segment` on this machine, also without overlays, and bytes of a frame's files."""

    size: Size
    fps: float
    fps_labels: float
    bytes_in: float
    bytes_labels: float
    bytes_overlay: float


def build(size: Size, plan: Path) -> None:
    """Writes the plan of the shipped network at a size: INT8 on OpenVINO."""
    from rtformer_deploy import BuildOptions, build_engine, choose_network, export_model, save_engine
    from rtformer_deploy.formats.ranges import shipped_ranges

    choice = choose_network(recipe=RECIPE)
    spec = choice.spec(size=size)
    model = export_model(choice.network, spec).model
    save_engine(build_engine(model, spec, "openvino", BuildOptions(precision="int8"), ranges=shipped_ranges(spec)), plan)


def measure(size: Size, frames: int, plan: Path, folder: Path) -> Measured:
    """Runs `segment` on `frames` pictures and on a third of them, three times in turn, with and without overlays -> what a frame takes."""
    few, many = _pictures(size, frames // 3, folder / "few"), _pictures(size, frames, folder / "many")
    outputs = many.with_name("many_out")
    rates: dict[str, list[float]] = {"": [], "--no-overlay": []}
    for _ in range(3):
        for option, each in reversed(rates.items()):  # overlays last: their files are looked at
            each.append(rate(frames - frames // 3, _seconds(plan, many, option), _seconds(plan, few, option)))
    return Measured(
        size,
        statistics.median(rates[""]),
        statistics.median(rates["--no-overlay"]),
        _mean_bytes(many, "*.jpg"),
        _mean_bytes(outputs, "*_labels.png"),
        _mean_bytes(outputs, "*_overlay.png"),
    )


def rate(more: int, longer: float, shorter: float) -> float:
    """Frames a second of `more` frames, from the seconds of two runs with and without them. Ends the script if noise hides them."""
    if longer < 1.2 * shorter:
        raise SystemExit(f"{more} more frames took {longer - shorter:.2f} s above {shorter:.2f}: too little to tell. Give more --frames.")
    return more / (longer - shorter)


def _pictures(size: Size, count: int, folder: Path) -> Path:
    from PIL import Image

    folder.mkdir(parents=True)
    picture = Image.fromarray(harness.frames_at(None, size, 1)[0])
    for number in range(count):
        picture.save(folder / f"{number:06}.jpg", quality=90)
    return folder


def _seconds(plan: Path, pictures: Path, option: str) -> float:
    output = pictures.with_name(f"{pictures.name}_out")
    shutil.rmtree(output, ignore_errors=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "rtformer_deploy", "segment", str(plan), str(pictures), "--output", str(output)]
    subprocess.run([*command, *filter(None, [option])], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _mean_bytes(folder: Path, pattern: str) -> float:
    sizes = [path.stat().st_size for path in folder.glob(pattern)]
    return sum(sizes) / len(sizes)


# ---------------------------------------------------------------------------------------------------------------- reckoned


def reckon(measured: Measured, driver: Driver, frames: int = BILLION, nodes: int = 100, price: float = 0.1) -> Json:
    """What `frames` frames take at the measured rates: hours in all and on `nodes`, cost, storage, network, and the driver's share.

    `price` is that of a node-hour, in any currency. `nodes_a_driver` are as many as one driver can count results for.
    """
    node_hours = frames / measured.fps / _HOUR
    out = measured.bytes_labels + measured.bytes_overlay
    return {
        "frames": frames,
        "node_hours": node_hours,
        "node_hours_without_overlays": frames / measured.fps_labels / _HOUR,
        "days_on_nodes": node_hours / nodes / 24,
        "cost": node_hours * price,
        "terabytes_in": frames * measured.bytes_in / 1e12,
        "terabytes_labels": frames * measured.bytes_labels / 1e12,
        "terabytes_overlays": frames * measured.bytes_overlay / 1e12,
        "node_megabits_in": 8 * measured.fps * measured.bytes_in / 1e6,
        "node_megabits_out": 8 * measured.fps * out / 1e6,
        "driver_hours_of_planning": frames * driver.plan_us / 1e6 / _HOUR,
        "driver_gigabytes_of_memory": frames * driver.memory_bytes / 1e9,
        "gigabytes_of_manifest": frames * driver.manifest_bytes / 1e9,
        "nodes_a_driver": 1e6 / driver.count_us / measured.fps,
    }


# --------------------------------------------------------------------------------------------------------------- simulated


@dataclass(frozen=True)
class Plan:
    """A simulated run. Times are in seconds; `task` is how many frames are given out and counted together.

    `fps` of a node; `jitter` is the deviation of a task's duration over its mean; `start` from a node's order to its first frame; a node
    lives `lifetime` on average (memoryless) and is replaced `replace` after its end; the driver takes `driver` for each frame's result.
    """

    frames: int
    nodes: int
    fps: float
    task: int = 1000
    jitter: float = 0.1
    start: float = 120.0
    lifetime: float = 24 * _HOUR
    replace: float = 180.0
    driver: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a Plan: its length, the share of node time that gave results, failures, frames done twice, the driver's load."""

    hours: float
    efficiency: float
    failures: int
    repeated: int
    driver_busy: float


def simulate(plan: Plan) -> Outcome:
    """Runs a Plan event by event, the same for the same seed.

    A node takes a task as soon as it is free. If it fails first, the task goes back to the others from its beginning: outputs that were
    there already are made again (worst case: on a restart of the driver they are found and kept). A finished task waits for the driver,
    which counts one task after the other; a node does not wait for that. The run is over when the driver has counted every task. Storage
    and network are not in the model: `reckon` says what they must give.
    """
    draw = random.Random(plan.seed)
    tasks = -(-plan.frames // plan.task)
    waiting, running = tasks, 0
    events: list[tuple[float, int, str, float]] = []  # (when, number, what, when the node fails)
    number = failures = repeated = 0
    for _ in range(plan.nodes):
        ready = plan.start * draw.uniform(0.5, 1.5)
        heapq.heappush(events, (ready, number, "free", ready + draw.expovariate(1 / plan.lifetime)))
        number += 1
    counted_until = busy = now = 0.0
    idle: list[float] = []  # nodes without a task: when they fail
    while waiting or running:
        now, _, what, fails = heapq.heappop(events)
        if what == "done":
            running -= 1
            counted_until = max(counted_until, now) + plan.driver * plan.task
            busy += plan.driver * plan.task
        elif what == "failed":
            running -= 1
            waiting += 1
            failures += 1
            repeated += plan.task // 2  # it fails anywhere in the task
            ready = now + plan.replace + plan.start
            heapq.heappush(events, (ready, number, "free", ready + draw.expovariate(1 / plan.lifetime)))
            number += 1
            if idle and waiting:  # one of those that had nothing left to do takes it over
                heapq.heappush(events, (now, number, "free", max(idle.pop(), now)))
                number += 1
            continue
        if not waiting:
            idle.append(fails)
            continue
        waiting -= 1
        running += 1
        end = now + plan.task / plan.fps * max(0.1, draw.gauss(1, plan.jitter))
        heapq.heappush(events, (end, number, "done", fails) if end <= fails else (fails, number, "failed", fails))
        number += 1
    length = max(now, counted_until)
    useful = plan.frames / plan.fps
    return Outcome(length / _HOUR, useful / (plan.nodes * length), failures, repeated, busy / length)


def simulations(fps: float, driver: float) -> list[Json]:
    """A million frames for each node, so that runs are equally long: as planned, with short lives, and with a driver ten times slower."""
    rows = []
    for nodes in NODES:
        plain = Plan(frames=1_000_000 * nodes, nodes=nodes, fps=fps, driver=driver)
        short, slow = replace(plain, lifetime=2 * _HOUR), replace(plain, driver=10 * driver)
        for name, plan in (("24 h lives", plain), ("2 h lives", short), ("slow driver", slow)):
            rows.append({"case": name, **asdict(plan), "outcome": asdict(simulate(plan))})
    return rows


# ------------------------------------------------------------------------------------------------------------------- script


def compare(asked: argparse.Namespace) -> Json:
    """The whole run."""
    most = max(height * width for height, width in asked.sizes)
    with tempfile.TemporaryDirectory() as name:
        plans = {size: Path(name, f"{size[0]}x{size[1]}.plan") for size in asked.sizes}
        for size, plan in plans.items():
            build(size, plan)
        driver = measure_driver(plans[asked.sizes[0]], asked.images, Path(name, "driver"))
        measured = []
        for size, plan in plans.items():
            frames = asked.frames * min(_MOST_TIMES, most // (size[0] * size[1]))
            measured.append(measure(size, frames, plan, plan.with_suffix("")))
    reckoned = [{"measured": asdict(each), "reckoned": reckon(each, driver, nodes=asked.nodes, price=asked.price)} for each in measured]
    runs = simulations(asked.node_fps or measured[0].fps, driver.count_us / 1e6)
    figures: Json = {"nodes": asked.nodes, "price": asked.price, "driver": asdict(driver), "sizes": reckoned, "simulated": runs}
    return harness.stamped("very many frames: measured, reckoned, simulated", figures)


def report(result: Json) -> None:
    print("the driver, for each image:", ", ".join(f"{name} {value:.1f}" for name, value in result["driver"].items()))
    for row in result["sizes"]:
        measured, reckoned = row["measured"], row["reckoned"]
        height, width = measured["size"]
        print(f"\n{height}x{width}: {measured['fps']:.1f} frames a second here, {measured['fps_labels']:.1f} without overlays")
        for name, value in reckoned.items():
            print(f"  {name.replace('_', ' '):28}{value:16,.1f}")
    print(f"\n{'nodes':>6}  {'case':12}{'hours':>8}{'efficiency':>12}{'failures':>10}{'repeated':>12}{'driver':>8}")
    for run in result["simulated"]:
        outcome = run["outcome"]
        print(
            f"{run['nodes']:6}  {run['case']:12}{outcome['hours']:8.1f}{outcome['efficiency']:12.1%}{outcome['failures']:10,}"
            f"{outcome['repeated']:12,}{outcome['driver_busy']:8.1%}"
        )


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__, harness.RESULTS / "scale_model.json")
    parser.add_argument("--sizes", nargs="+", type=harness.size_of, default=list(SIZES), metavar="HxW")
    parser.add_argument("--frames", type=harness.positive, default=60, help="pictures of the longer run, of the largest size")
    parser.add_argument("--nodes", type=harness.positive, default=100, help="nodes that the days are reckoned for")
    parser.add_argument("--node-fps", type=float, help="frames a second of a simulated node [default: as measured, first size]")
    parser.add_argument("--price", type=float, default=0.1, help="of a node-hour, in any currency")
    parser.add_argument("--images", type=harness.positive, default=100_000, help="as many the driver plans and counts")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    asked = parse(words)
    result = harness.run_script(asked.json, lambda: compare(asked))
    if result is None:
        return 1
    report(result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
