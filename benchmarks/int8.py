"""INT8 side by side: mIoU, changed pixels, size, calibration and CPU latency of every observer, FP32, FP16 and NVIDIA ModelOpt.

    python benchmarks/int8.py --root CAMVID [--split SPLIT] [--weights FILE] [--peer VENV/bin/python] [--images N] [--rounds 20]
        [--json FILE]

Accuracy at the recipe's size on frames that the shipped weights were not trained on, each engine against FP32 on ONNX Runtime; calibrated
on the frames of train that are not scored. Latency on val frames at --latency-size, one worker process each, called in turn, the engine
alone and the whole frame. The peer runs in a Python of its own
(`pip install 'nvidia-modelopt[onnx]'`) on the same images; without --peer it is left out, and the report says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import harness
import numpy as np
from harness import Json, Size
from slim_camvid import HELD_OUT, RECIPE

if TYPE_CHECKING:
    import onnx_ir as ir

    from rtformer_deploy.datasets import Dataset
    from rtformer_deploy.pipeline import Exported
    from rtformer_deploy.types import Backend, LabelMap, ModelSpec, PrecisionName, Ranges

METHODS = ("minmax", "entropy", "percentile", "mse")
BACKENDS = ("openvino", "onnxruntime")
REFERENCE = "fp32-onnxruntime"
CALIBRATE = "calibrate "  # a worker's name begins so if it calibrates; what follows is the method
FRAMES = 8
PEER_IMAGES = 4  # are enough where only the placement of its Q/DQ matters, which its speed depends on


# ---------------------------------------------------------------------------------------------------------------- workers


def time_engine(name: str, folder: Path) -> None:
    """Opens one engine and runs the frames that are called for; answers with each stage's milliseconds and this process's memory."""
    from rtformer_deploy import load_engine, open_engine
    from rtformer_deploy.timing.bench import run_stages

    case = json.loads((folder / "case.json").read_text())
    frames = np.load(folder / "frames.npy")
    runner = open_engine(load_engine(folder / f"{name}.plan"), threads=case["threads"])

    def answer(index: int) -> Json:
        _, stages = run_stages(runner, [frames[index]])
        return {"stages": [1000 * seconds for seconds in stages.values()], "peak": harness.memory("VmHWM")}

    harness.answer_calls(answer)


def calibrate(method: str, folder: Path) -> None:
    """Does what `calibrate` does, by one method; prints its seconds, and the memory of this process."""
    from rtformer_deploy.commands.calibrate import CalibrateRequest, calibrate_file
    from rtformer_deploy.types import Feedback

    case = json.loads((folder / "case.json").read_text())
    idle = harness.memory("VmRSS")
    start = time.perf_counter()
    request = CalibrateRequest(folder / "model.onnx", Path(case["images"]), folder / f"{method}.json", method=method, limit=case["limit"])
    ranges = calibrate_file(request, Feedback(lambda line: print(line, file=sys.stderr)))
    seconds = time.perf_counter() - start
    facts = {"images": ranges.images, "tensors": len(ranges.amax)}
    print(json.dumps({"seconds": seconds, "idle_mib": idle, "peak_mib": harness.memory("VmHWM"), **facts}))


# ---------------------------------------------------------------------------------------------------------------- driver


def export(folder: Path, weights: Path | None, size: Size | None) -> Exported:
    """The recipe's network at a size -> model.onnx, and the same without functions as flat.onnx; returns what was exported."""
    from rtformer_deploy import choose_network, export_model, save_model
    from rtformer_deploy.graph.edit import clone
    from rtformer_deploy.graph.functions import inline_functions

    choice = choose_network(recipe=RECIPE, weights=weights)
    spec = choice.spec(size=size)
    made = export_model(choice.network, spec)
    save_model(made.model, folder / "model.onnx")
    save_model(inline_functions(clone(made.model)), folder / "flat.onnx")
    return made


def calibrate_apart(folder: Path, images: Path, limit: int | None) -> tuple[Json, dict[str, Ranges]]:
    """Calibrates model.onnx by every method, each in a process of its own -> what that took, and the ranges.

    `seconds` is by method, `peak_mib` the largest.
    """
    from rtformer_deploy.formats.ranges import load_ranges

    (folder / "case.json").write_text(json.dumps({"images": str(images), "limit": limit}))
    command = [sys.executable, __file__, "--folder", str(folder), "--worker"]
    told = {method: printed_json([*command, CALIBRATE + method], "calibration") for method in METHODS}
    facts = max(told.values(), key=lambda one: float(one["peak_mib"]))
    ranges = {method: load_ranges(folder / f"{method}.json") for method in METHODS}
    return facts | {"seconds": {method: one["seconds"] for method, one in told.items()}}, ranges


def quantise_with_peer(python: str, folder: Path, paths: Sequence[Path], spec: ModelSpec) -> Json:
    """ModelOpt's INT8 model as peer.onnx; its time and memory."""
    from rtformer_deploy.image.frames import load_image, preprocess

    prepare = partial(preprocess, spec_size=spec.size, mean=spec.mean, std=spec.std, resize=spec.resize, corners=spec.resize_corners)
    np.save(folder / "inputs.npy", np.stack([prepare(load_image(path)) for path in paths]))
    script = Path(__file__).with_name("int8_peer.py")
    files = [str(folder / name) for name in ("flat.onnx", "inputs.npy", "peer.onnx")]
    return printed_json([python, str(script), *files], "the peer")


def printed_json(command: Sequence[str], what: str) -> Json:
    """Runs a command and reads the last line that it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{what} failed:\n{done.stderr[-2000:]}")
    printed: Json = json.loads(done.stdout.splitlines()[-1])
    return printed


def build_engines(folder: Path, made: Exported, ranges: Mapping[str, Ranges], threads: int) -> dict[str, Json]:
    """Builds every engine into `folder`; name -> what it is: backend, precision of its layers, bytes."""
    from rtformer_deploy import load_model

    rows: dict[str, Json] = {}

    def add(name: str, backend: Backend, model: ir.Model, precision: PrecisionName, given: Ranges | None = None) -> None:
        rows[f"{name}-{backend}"] = build_one(folder / f"{name}-{backend}.plan", model, made.spec, backend, precision, given, threads)

    for backend in BACKENDS:
        add("fp32", backend, made.model, "fp32")
        add("fp16", backend, made.model, "fp16")
        for method, measured in ranges.items():
            add(f"int8-{method}", backend, made.model, "int8", measured)
        if (folder / "peer.onnx").exists():  # its Q/DQ pairs are in the graph already
            add("modelopt", backend, load_model(folder / "peer.onnx"), "fp32")
    return rows


def build_one(
    path: Path, model: ir.Model, spec: ModelSpec, backend: Backend, precision: PrecisionName, ranges: Ranges | None, threads: int
) -> Json:
    from rtformer_deploy import BuildOptions, build_engine, save_engine

    engine = build_engine(model, spec, backend, BuildOptions(precision=precision, threads=threads), ranges=ranges)
    save_engine(engine, path)
    return {"backend": backend, "layers": dict(engine.info.precision.layers), "plan_bytes": len(engine.plan)}


def link_unscored(train: Dataset, scored: Dataset, images: Path) -> None:
    """Makes a folder of links to the images of train that are not scored: calibration does not see what is scored."""
    images.mkdir()
    for sample in train.subset(train.names - scored.names, train.split).samples:
        (images / sample.image.name).symlink_to(sample.image.resolve())


def score(folder: Path, names: Sequence[str], dataset: Dataset, threads: int) -> dict[str, dict[str, float]]:
    """mIoU of each engine on a dataset, and the share of pixels (at the frames' own size) whose class differs from FP32 on ONNX Runtime."""
    from rtformer_deploy import load_engine, open_engine
    from rtformer_deploy.evaluation.evaluate import evaluate

    reference: list[LabelMap] = []
    rows = {}
    for name in sorted(names, key=lambda name: name != REFERENCE):  # the reference first
        maps: list[LabelMap] = []
        with open_engine(load_engine(folder / f"{name}.plan"), threads=threads) as runner:
            miou = evaluate(runner, dataset, watch=maps.append).scores.miou
        reference = reference or maps
        changed = float(np.mean([np.mean(one != other) for one, other in zip(maps, reference, strict=True)]))
        rows[name] = {"miou": miou, "pixels_unlike_fp32": changed}
        print(f"  {name:24} mIoU {100 * miou:.2f}, {changed:.3%} changed", flush=True)
    return rows


def latency(folder: Path, names: Sequence[str], rounds: int) -> dict[str, Json]:
    """Medians in ms of each engine in `folder` on its frames: the engine alone and the whole frame; peak memory of its process."""
    frames = len(np.load(folder / "frames.npy"))
    answers = harness.call_in_turn(__file__, folder, names, frames, rounds)
    return {name: latency_row(calls) for name, calls in answers.items()}


def latency_row(answers: Sequence[Json]) -> Json:
    stages = np.array([answer["stages"] for answer in answers])
    return {
        "engine_ms": float(np.median(stages[:, 1])),
        "frame_ms": float(np.median(stages.sum(1))),
        "stages_ms": [float(value) for value in np.median(stages, axis=0)],
        "process_peak_mib": answers[-1]["peak"],
    }


def judge(rows: Mapping[str, Json], method: str) -> Json:
    """What the project asks of its INT8, as figures."""
    fp32 = min((f"fp32-{backend}" for backend in BACKENDS), key=lambda name: float(rows[name]["engine_ms"]))
    ours = f"int8-{method}-openvino"
    drop = {name: 100 * (rows[REFERENCE]["miou"] - row["miou"]) for name, row in rows.items()}
    verdict = {
        "best_fp32": fp32,
        "engine_speedup": rows[fp32]["engine_ms"] / rows[ours]["engine_ms"],
        "frame_speedup": rows[fp32]["frame_ms"] / rows[ours]["frame_ms"],
        "miou_drop_points": drop[ours],
    }
    if "modelopt-onnxruntime" in rows:
        verdict["modelopt_miou_drop_points"] = {backend: drop[f"modelopt-{backend}"] for backend in BACKENDS}
        verdict["speedup_over_modelopt"] = {
            backend: rows[f"modelopt-{backend}"]["engine_ms"] / rows[f"int8-{method}-{backend}"]["engine_ms"] for backend in BACKENDS
        }
    return verdict


def report(result: Json) -> None:
    print(f"\n{'':24}{'mIoU':>7}{'changed':>9}{'MiB':>6}{'engine ms':>11}{'frame ms':>10}")
    for name, row in result["engines"].items():
        times = f"{row['engine_ms']:11.1f}{row['frame_ms']:10.1f}" if "engine_ms" in row else ""
        print(f"{name:24}{100 * row['miou']:7.2f}{row['pixels_unlike_fp32']:9.3%}{row['plan_bytes'] / 2**20:6.1f}{times}")
    print(json.dumps({"calibration": result["calibration"], "peer": result["peer"], "verdict": result["verdict"]}, indent=1))


def measure_accuracy(arguments: argparse.Namespace, folder: Path) -> tuple[Json, dict[str, Json], Ranges]:
    """At the recipe's size: what calibration and the peer took, a row for each engine, and the ranges of the default method."""
    from rtformer_deploy.calibrate import DEFAULT_METHOD
    from rtformer_deploy.commands.calibrate import pick_images
    from rtformer_deploy.datasets import open_dataset

    dataset, images = open_dataset("camvid", arguments.root, arguments.split), folder / "images"
    link_unscored(open_dataset("camvid", arguments.root, "train"), dataset, images)
    made = export(folder, arguments.weights, None)
    calibration, ranges = calibrate_apart(folder, images, arguments.images)
    paths = pick_images(images, arguments.images, seed=0)
    peer = quantise_with_peer(arguments.peer, folder, paths, made.spec) if arguments.peer else "not asked for"
    rows = build_engines(folder, made, ranges, arguments.threads)
    for name, scores in score(folder, list(rows), dataset, arguments.threads).items():
        rows[name] |= scores
    scored = {"split": dataset.split, "frames": len(dataset)}
    facts = {"weights": made.spec.weights, "size": list(made.spec.size), "scored": scored, "calibration": calibration, "peer": peer}
    return facts, rows, ranges[DEFAULT_METHOD]


def measure_latency(arguments: argparse.Namespace, folder: Path, method: str, ranges: Ranges) -> dict[str, Json]:
    """At --latency-size: the times of FP32, FP16, INT8 by the default method, and the peer."""
    from rtformer_deploy.image.frames import images_in

    made = export(folder, arguments.weights, arguments.latency_size)
    if arguments.peer:
        quantise_with_peer(arguments.peer, folder, images_in(arguments.root / "images" / "train")[:PEER_IMAGES], made.spec)
    names = list(build_engines(folder, made, {method: ranges}, arguments.threads))
    np.save(folder / "frames.npy", harness.frames_at(arguments.root / "images" / "val", made.spec.size, FRAMES))
    (folder / "case.json").write_text(json.dumps({"threads": arguments.threads}))
    return latency(folder, names, arguments.rounds)


def compare(arguments: argparse.Namespace) -> Json:
    """The whole run."""
    from rtformer_deploy.calibrate import DEFAULT_METHOD

    with tempfile.TemporaryDirectory() as accurate, tempfile.TemporaryDirectory() as fast:
        facts, rows, ranges = measure_accuracy(arguments, Path(accurate))
        for name, times in measure_latency(arguments, Path(fast), DEFAULT_METHOD, ranges).items():
            rows[name] |= times
    figures = {
        "latency_size": list(arguments.latency_size),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "default_method": DEFAULT_METHOD,
        **facts,
        "engines": rows,
        "verdict": judge(rows, DEFAULT_METHOD),
    }
    what = f"CamVid {arguments.split} at the recipe's size for accuracy; medians at latency_size, one worker process each, called in turn"
    result = harness.stamped(what, figures)
    report(result)
    return result


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__, harness.RESULTS / "int8.json")
    harness.add_threads(parser)
    harness.add_worker(parser)
    parser.add_argument("--root", type=Path, help="the CamVid folder")
    parser.add_argument("--split", default=HELD_OUT, help="score these frames [default: %(default)s, never trained on]")
    parser.add_argument("--weights", type=Path, help="weights of Slim for CamVid [default: the shipped ones]")
    parser.add_argument("--peer", help="a Python with nvidia-modelopt[onnx]")
    parser.add_argument("--images", type=harness.positive, help="calibration images [default: all of train that is not scored]")
    parser.add_argument("--latency-size", type=harness.size_of, default=(512, 1024), metavar="HxW")
    parser.add_argument("--rounds", type=harness.positive, default=20)
    arguments = parser.parse_args(words)
    if arguments.root is None and arguments.worker is None:
        parser.error("--root is needed")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    if arguments.worker and arguments.worker.startswith(CALIBRATE):
        calibrate(arguments.worker.removeprefix(CALIBRATE), arguments.folder)
    elif arguments.worker:
        time_engine(arguments.worker, arguments.folder)
    else:
        return 1 if harness.run_script(arguments.json, lambda: compare(arguments)) is None else 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
