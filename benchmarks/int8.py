"""INT8 side by side: mIoU, changed pixels, size, calibration and CPU latency of every observer, FP32, FP16 and NVIDIA ModelOpt.

    python benchmarks/int8.py --root CAMVID [--weights FILE] [--peer VENV/bin/python] [--images N] [--rounds 20] [--json FILE]

Accuracy on CamVid val at the recipe's size, each engine against FP32 on ONNX Runtime; latency on val frames at --latency-size, one
worker process each, called in turn, the engine alone and the whole frame. The peer runs in a Python of its own
(`pip install 'nvidia-modelopt[onnx]'`) on the same images; without --peer it is left out, and the report says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from workers import answer_calls, call_in_turn, memory

RECIPE = "rtformer-slim-camvid"
METHODS = ("minmax", "entropy", "percentile", "mse")
BACKENDS = ("openvino", "onnxruntime")
Size = tuple[int, int]


# ---------------------------------------------------------------------------------------------------------------- workers


def time_engine(name: str, folder: Path) -> None:
    """Opens one engine, runs a frame a call; says the milliseconds of pre-processing, engine and post-processing."""
    from rtformer_deploy import load_engine, open_engine

    frames = np.load(folder / "frames.npy")
    threads = int((folder / "threads").read_text())
    session = open_engine(load_engine(folder / f"{name}.plan"), threads=threads).sessions[0]

    def answer(index: int) -> dict[str, Any]:
        times = [time.perf_counter()]
        session.load([frames[index]])
        times.append(time.perf_counter())
        session.begin("labels")
        session.synchronize()
        times.append(time.perf_counter())
        session.take()
        times.append(time.perf_counter())
        return {"stages": [1000 * (end - begin) for begin, end in itertools.pairwise(times)], "peak": memory("VmHWM")}

    answer_calls(answer)


def calibrate(folder: Path) -> None:
    """Shows the images to the collector once and writes the ranges of every method; says its time and memory."""
    from rtformer_deploy.calibrate import OBSERVERS
    from rtformer_deploy.calibrate.collect import Collector, float_tensors
    from rtformer_deploy.formats.model_file import load_model, read_spec
    from rtformer_deploy.formats.ranges import save_ranges
    from rtformer_deploy.graph.functions import inline_functions
    from rtformer_deploy.image.frames import load_image, preprocess
    from rtformer_deploy.types import Ranges

    model = load_model(folder / "model.onnx")
    spec = read_spec(model)
    assert spec is not None
    inlined = inline_functions(model)
    idle = memory("VmRSS")
    start = time.perf_counter()
    collector = Collector(inlined, float_tensors(model, inlined))
    paths = json.loads((folder / "images.json").read_text())
    for path in paths:
        collector.show(preprocess(load_image(Path(path)), spec.size, spec.mean, spec.std)[None], path)
    collected = time.perf_counter() - start
    seconds = {}
    for method in METHODS:
        start = time.perf_counter()
        amax = {name: float(np.float32(OBSERVERS[method](histogram))) for name, histogram in collector.histograms.items()}
        seconds[method] = collected + time.perf_counter() - start
        save_ranges(Ranges(amax, method, len(paths), spec.sha256 or "", spec.name), folder / f"{method}.json")
    peak = memory("VmHWM")
    print(json.dumps({"seconds": seconds, "idle_mib": idle, "peak_mib": peak, "images": len(paths), "tensors": len(collector.histograms)}))


# ---------------------------------------------------------------------------------------------------------------- driver


def export(folder: Path, weights: Path | None, size: Size | None) -> Any:
    """The recipe's network at a size -> model.onnx, and the same without functions as flat.onnx; returns what was exported."""
    from rtformer_deploy import choose_network, export_model, save_model
    from rtformer_deploy.graph.functions import inline_functions

    choice = choose_network(recipe=RECIPE, weights=weights)
    spec = choice.recipe.spec(size=size, labels=choice.labels, weights=choice.origin, sha256=choice.sha256)
    made = export_model(choice.network, spec)
    save_model(made.model, folder / "model.onnx")
    save_model(inline_functions(made.model), folder / "flat.onnx")
    return made


def quantise_with_peer(python: str, folder: Path, paths: list[str], spec: Any) -> dict[str, Any]:
    """ModelOpt's INT8 model as peer.onnx; its time and memory."""
    from rtformer_deploy.image.frames import load_image, preprocess

    inputs = np.stack([preprocess(load_image(Path(path)), spec.size, spec.mean, spec.std) for path in paths])
    np.save(folder / "inputs.npy", inputs)
    script = Path(__file__).with_name("int8_peer.py")
    command = [python, str(script), str(folder / "flat.onnx"), str(folder / "inputs.npy"), str(folder / "peer.onnx")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the peer failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def engines(folder: Path, made: Any, ranges: dict[str, Any], threads: int) -> dict[str, Any]:
    """Builds every engine into `folder`; name -> what it is: backend, precision found, bytes."""
    from rtformer_deploy import BuildOptions, build_engine, load_model, save_engine

    cases = [("fp32", made.model, "fp32", None), ("fp16", made.model, "fp16", None)]
    cases += [(f"int8-{method}", made.model, "int8", found) for method, found in ranges.items()]
    built = {}
    for backend in BACKENDS:
        for name, model, precision, found in cases:
            options = BuildOptions(precision=precision, threads=threads)  # type: ignore[arg-type]
            engine = build_engine(model, made.spec, backend, options, ranges=found)  # type: ignore[arg-type]
            built[f"{name}-{backend}"] = save_and_tell(engine, folder / f"{name}-{backend}.plan", save_engine)
        if (folder / "peer.onnx").exists():  # its Q/DQ stands in the graph already
            engine = build_engine(load_model(folder / "peer.onnx"), made.spec, backend, BuildOptions(threads=threads))  # type: ignore[arg-type]
            built[f"modelopt-{backend}"] = save_and_tell(engine, folder / f"modelopt-{backend}.plan", save_engine)
    return built


def save_and_tell(engine: Any, path: Path, save: Any) -> dict[str, Any]:
    save(engine, path)
    return {"backend": engine.info.backend, "layers": dict(engine.info.precision.layers), "plan_bytes": len(engine.plan)}


def score(folder: Path, names: list[str], root: Path, threads: int) -> dict[str, dict[str, float]]:
    """mIoU of each engine on val, and the share of pixels (at the frames' own size) whose class differs from FP32 on ONNX Runtime."""
    from rtformer_deploy import load_engine, open_engine
    from rtformer_deploy.datasets import open_dataset
    from rtformer_deploy.evaluation.metrics import confusion, scores

    dataset = open_dataset("camvid", root, "val")
    classes = dataset.labels.names
    reference: list[np.ndarray] = []
    found = {}
    for name in ["fp32-onnxruntime", *(name for name in names if name != "fp32-onnxruntime")]:
        matrix, changed = np.zeros((len(classes), len(classes)), np.int64), []
        with open_engine(load_engine(folder / f"{name}.plan"), threads=threads) as runner:
            for index in range(len(dataset)):
                frame, label = dataset.load(index)
                labels = runner.run([frame])[0]
                matrix += confusion(label, labels, len(classes), dataset.labels.ignore_index)
                if name == "fp32-onnxruntime":
                    reference.append(labels)
                changed.append(float(np.mean(labels != reference[index])))
        found[name] = {"miou": scores(matrix, classes).miou, "pixels_unlike_fp32": statistics.mean(changed)}
        print(f"  {name:24} mIoU {100 * found[name]['miou']:.2f}, {found[name]['pixels_unlike_fp32']:.3%} changed", flush=True)
    return found


def latency(folder: Path, names: list[str], root: Path, size: Size, rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """Medians in ms of each engine on val frames brought to `size`: the engine alone and the whole frame; peak memory of its process."""
    import cv2

    from rtformer_deploy import load_image

    paths = sorted((root / "images" / "val").iterdir())[:8]
    np.save(folder / "frames.npy", np.stack([cv2.resize(load_image(path), size[::-1]) for path in paths]))
    (folder / "threads").write_text(str(threads))
    answers = call_in_turn(__file__, folder, names, len(paths), rounds, lambda: None)
    found = {}
    for name, given in answers.items():
        stages = np.array([answer["stages"] for answer in given])
        found[name] = {
            "engine_ms": float(np.median(stages[:, 1])),
            "frame_ms": float(np.median(stages.sum(1))),
            "stages_ms": [float(value) for value in np.median(stages, axis=0)],
            "process_peak_mib": given[-1]["peak"],
        }
    return found


def judge(rows: dict[str, dict[str, Any]], method: str) -> dict[str, Any]:
    """What the project asks of its INT8, as figures."""
    fp32 = min((f"fp32-{backend}" for backend in BACKENDS), key=lambda name: float(rows[name]["engine_ms"]))
    ours = f"int8-{method}-openvino"
    drop = {name: 100 * (rows["fp32-onnxruntime"]["miou"] - row["miou"]) for name, row in rows.items()}
    found = {
        "best_fp32": fp32,
        "engine_speedup": rows[fp32]["engine_ms"] / rows[ours]["engine_ms"],
        "frame_speedup": rows[fp32]["frame_ms"] / rows[ours]["frame_ms"],
        "miou_drop_points": drop[ours],
    }
    if "modelopt-onnxruntime" in rows:
        found["modelopt_miou_drop_points"] = {backend: drop[f"modelopt-{backend}"] for backend in BACKENDS}
        found["speedup_over_modelopt"] = {
            backend: rows[f"modelopt-{backend}"]["engine_ms"] / rows[f"int8-{method}-{backend}"]["engine_ms"] for backend in BACKENDS
        }
    return found


def report(result: dict[str, Any]) -> None:
    print(f"\n{'':24}{'mIoU':>7}{'changed':>9}{'MiB':>6}{'engine ms':>11}{'frame ms':>10}")
    for name, row in result["engines"].items():
        times = f"{row['engine_ms']:11.1f}{row['frame_ms']:10.1f}" if "engine_ms" in row else ""
        print(f"{name:24}{100 * row['miou']:7.2f}{row['pixels_unlike_fp32']:9.3%}{row['plan_bytes'] / 2**20:6.1f}{times}")
    print(json.dumps({"calibration": result["calibration"], "peer": result["peer"], "verdict": result["verdict"]}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="the CamVid folder")
    parser.add_argument("--weights", type=Path, help="weights of Slim for CamVid [default: the shipped ones]")
    parser.add_argument("--peer", help="a Python with nvidia-modelopt[onnx]")
    parser.add_argument("--images", type=int, help="calibration images [default: all of train]")
    parser.add_argument("--latency-size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "int8.json")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "calibrate":
        calibrate(arguments.folder)
    elif arguments.worker:
        time_engine(arguments.worker, arguments.folder)
    elif arguments.root is None:
        parser.error("--root is needed")
    else:
        with tempfile.TemporaryDirectory() as name:
            result = compare(arguments, Path(name))
        report(result)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole run."""
    from rtformer_deploy.calibrate import DEFAULT_METHOD
    from rtformer_deploy.formats.ranges import load_ranges
    from rtformer_deploy.machine import environment

    paths = [str(path) for path in sorted((arguments.root / "images" / "train").iterdir())]
    if arguments.images:
        chosen = np.random.default_rng(0).choice(len(paths), min(arguments.images, len(paths)), replace=False)
        paths = [paths[index] for index in sorted(chosen)]
    made = export(folder, arguments.weights, None)
    (folder / "images.json").write_text(json.dumps(paths))
    command = [sys.executable, __file__, "--folder", str(folder), "--worker", "calibrate"]
    calibration = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ranges = {method: load_ranges(folder / f"{method}.json") for method in METHODS}
    peer = quantise_with_peer(arguments.peer, folder, paths, made.spec) if arguments.peer else "not asked for"
    rows = engines(folder, made, ranges, arguments.threads)
    for name, scores in score(folder, list(rows), arguments.root, arguments.threads).items():
        rows[name] |= scores

    fast = folder / "latency"
    fast.mkdir()
    large = export(fast, arguments.weights, tuple(arguments.latency_size))
    if arguments.peer:
        quantise_with_peer(arguments.peer, fast, paths[:4], large.spec)  # how it places Q/DQ is what its speed depends on
    engines(fast, large, {DEFAULT_METHOD: ranges[DEFAULT_METHOD]}, arguments.threads)
    timed = [name for name in rows if (fast / f"{name}.plan").exists()]
    for name, times in latency(fast, timed, arguments.root, tuple(arguments.latency_size), arguments.rounds, arguments.threads).items():
        rows[name] |= times
    return {
        "what": "CamVid val at the recipe's size for accuracy; medians at latency_size for speed, one worker process each, called in turn",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights": made.spec.weights,
        "size": list(made.spec.size),
        "latency_size": list(arguments.latency_size),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "default_method": DEFAULT_METHOD,
        "calibration": calibration,
        "peer": peer,
        "engines": rows,
        "verdict": judge(rows, DEFAULT_METHOD),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
