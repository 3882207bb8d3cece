"""The whole frame on a CPU, side by side: from a decoded frame to a label map, ours against what people write today.

    python benchmarks/cpu.py --weights slim.pdparams --frames DIR [--rounds 15] [--json benchmarks/results/cpu.json]

One worker process for each contestant, called in turn, so that medians and peak memory are each one's own and noise falls on all
alike. Slim takes the weights given (PaddleSeg's form or safetensors), Base seeded random ones. Contestants:

    torch                eager PyTorch, NCHW, interpolate and argmax
    torch-channels-last  the same in channels-last
    onnxruntime-logits   ONNX Runtime with full-size logits, NumPy argmax
    openvino-logits      OpenVINO with full-size logits, NumPy argmax
    ours-onnxruntime     this project's ONNX Runtime engine
    ours-openvino        this project's OpenVINO engine, the one that `--backend auto` takes
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from workers import answer_calls, call_in_turn, memory

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SIZES = ((512, 1024), (1024, 2048))
NAMES = ("torch", "torch-channels-last", "onnxruntime-logits", "openvino-logits", "ours-onnxruntime", "ours-openvino")


# ---------------------------------------------------------------------------------------------------------------- worker


def usual_preprocess(frame: np.ndarray) -> np.ndarray:
    """What is usually written: floats, normalise, transpose; the frame already has the engine's size."""
    return np.ascontiguousarray(((frame.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None])


def make_torch(channels_last: bool) -> Callable[[Path, dict[str, Any]], Callable[[np.ndarray], np.ndarray]]:
    def make(folder: Path, case: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
        import torch
        import torch.nn.functional as F

        from rtformer_deploy.export.weights_choice import choose_network

        torch.set_num_threads(case["threads"])
        weights = Path(case["weights"]) if case["weights"] else None
        network = choose_network(recipe=case["recipe"], weights=weights, random_seed=None if weights else 0).network
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network = network.to(memory_format=layout)

        @torch.inference_mode()
        def run(frame: np.ndarray) -> np.ndarray:
            image = torch.from_numpy(usual_preprocess(frame)).contiguous(memory_format=layout)
            logits = F.interpolate(network(image), size=frame.shape[:2], mode="bilinear", align_corners=False)
            return logits.argmax(1)[0].to(torch.uint8).numpy()

        return run

    return make


def make_onnxruntime_logits(folder: Path, case: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    session = onnxruntime.InferenceSession(str(folder / "logits.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda frame: session.run(None, {"input": usual_preprocess(frame)})[0].argmax(1)[0].astype(np.uint8)


def make_openvino_logits(folder: Path, case: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    config = {"INFERENCE_NUM_THREADS": case["threads"], "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(folder / "logits.onnx"), "CPU", config)
    request = compiled.create_infer_request()
    return lambda frame: request.infer({"input": usual_preprocess(frame)})[0].argmax(1)[0].astype(np.uint8)


def make_ours(backend: str) -> Callable[[Path, dict[str, Any]], Callable[[np.ndarray], np.ndarray]]:
    def make(folder: Path, case: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
        from rtformer_deploy import load_engine, open_engine

        session = open_engine(load_engine(folder / f"{backend}.plan"), threads=case["threads"]).sessions[0]

        def run(frame: np.ndarray) -> np.ndarray:
            start = time.perf_counter()
            session.load([frame])
            ready = time.perf_counter()
            session.begin("labels")
            session.synchronize()
            inferred = time.perf_counter()
            labels = session.take()[0]
            run.stages = (ready - start, inferred - ready, time.perf_counter() - inferred)  # type: ignore[attr-defined]
            return labels

        return run

    return make


MAKERS: dict[str, Callable[[Path, dict[str, Any]], Callable[[np.ndarray], np.ndarray]]] = {
    "torch": make_torch(False),
    "torch-channels-last": make_torch(True),
    "onnxruntime-logits": make_onnxruntime_logits,
    "openvino-logits": make_openvino_logits,
    "ours-onnxruntime": make_ours("onnxruntime"),
    "ours-openvino": make_ours("openvino"),
}
#: what an idle process of each contestant has loaded
IMPORTS = {
    "torch": ("torch",),
    "torch-channels-last": ("torch",),
    "onnxruntime-logits": ("onnxruntime",),
    "openvino-logits": ("openvino",),
    "ours-onnxruntime": ("rtformer_deploy.pipeline", "onnxruntime"),
    "ours-openvino": ("rtformer_deploy.pipeline", "openvino"),
}


def worker(name: str, folder: Path) -> None:
    """Reads a frame's index from stdin, runs it, writes a JSON line with its time; at the end the memory."""
    case = json.loads((folder / "case.json").read_text())
    for module in IMPORTS[name]:
        importlib.import_module(module)
    frames = np.load(folder / "frames.npy")
    idle = memory("VmRSS")
    run = MAKERS[name](folder, case)

    def answer(index: int) -> dict[str, Any]:
        start = time.perf_counter()
        labels = run(frames[index])
        seconds = time.perf_counter() - start
        np.save(folder / f"{name}.npy", labels)
        return {"seconds": seconds, "stages": getattr(run, "stages", None), "idle": idle, "peak": memory("VmHWM")}

    answer_calls(answer)


# ---------------------------------------------------------------------------------------------------------------- driver


def load_frames(folder: Path, size: tuple[int, int], count: int) -> np.ndarray:
    """The pictures of a folder, each cut to the engine's shape in the middle and brought to its size: (N, H, W, 3) RGB."""
    import cv2

    from rtformer_deploy import load_image

    height, width = size
    frames = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".png"})[:count]:
        frame = load_image(path)
        tall, wide = frame.shape[:2]
        cut_tall, cut_wide = min(tall, wide * height // width), min(wide, tall * width // height)
        top, left = (tall - cut_tall) // 2, (wide - cut_wide) // 2
        frames.append(cv2.resize(frame[top : top + cut_tall, left : left + cut_wide], (width, height)))
    return np.stack(frames)


def prepare(folder: Path, case: dict[str, Any], size: tuple[int, int]) -> float:
    """Exports both models and builds our engines into `folder`; returns the mean share of mixed cells."""
    from rtformer_deploy import BuildOptions, build_engine, choose_network, export_model, save_engine, save_model
    from rtformer_deploy.backends import open_engine
    from rtformer_deploy.graph.functions import inline_functions
    from rtformer_deploy.image.upsample import mixed_share

    weights = Path(case["weights"]) if case["weights"] else None
    choice = choose_network(recipe=case["recipe"], weights=weights, random_seed=None if weights else 0)
    for head in ("logits", "lowres"):
        made = export_model(choice.network, choice.recipe.spec(size=size, head=head))  # type: ignore[arg-type]
        save_model(inline_functions(made.model), folder / f"{head}.onnx")  # OpenVINO reads no ONNX functions
    for backend in ("openvino", "onnxruntime"):
        engine = build_engine(made.model, made.spec, backend, BuildOptions(threads=case["threads"]))  # type: ignore[arg-type]
        save_engine(engine, folder / f"{backend}.plan")
    (folder / "case.json").write_text(json.dumps(case))
    with open_engine(engine, threads=case["threads"]) as runner:
        return float(np.mean([mixed_share(runner.logits([frame])[0]) for frame in np.load(folder / "frames.npy")]))


def measure(folder: Path, frames: int, rounds: int) -> dict[str, Any]:
    changed: dict[str, list[float]] = {name: [] for name in NAMES}

    def compare() -> None:
        reference = np.load(folder / "torch.npy")
        for name in NAMES:
            changed[name].append(float(np.mean(np.load(folder / f"{name}.npy") != reference)))

    answers = call_in_turn(__file__, folder, NAMES, frames, rounds, compare)
    return {name: summary(answers[name], max(changed[name])) for name in NAMES}


def summary(answers: list[dict[str, Any]], changed: float) -> dict[str, Any]:
    times = sorted(answer["seconds"] * 1000 for answer in answers)
    result = {
        "p50_ms": statistics.median(times),
        "min_ms": times[0],
        "max_ms": times[-1],
        "idle_mib": answers[-1]["idle"],
        "peak_mib_above_idle": answers[-1]["peak"] - answers[-1]["idle"],
        "pixels_unlike_torch": changed,
    }
    if answers[0]["stages"]:
        stages = [statistics.median(answer["stages"][index] for answer in answers) * 1000 for index in range(3)]
        result["stages_ms"] = dict(zip(("preprocess", "engine", "postprocess"), stages, strict=True))
        result["pre_and_post_share"] = (stages[0] + stages[2]) / sum(stages)
    return result


def report(case: dict[str, Any]) -> None:
    ours = case["contestants"]["ours-openvino"]
    print(f"\n{case['variant']} {case['size'][0]}x{case['size'][1]}, {case['mixed_cells']:.0%} mixed cells")
    print(f"  {'':22}{'p50 ms':>9}{'ours is':>9}{'peak MiB':>10}{'pre+post':>10}{'unlike':>9}")
    for name, row in case["contestants"].items():
        share = f"{row['pre_and_post_share']:.1%}" if "pre_and_post_share" in row else ""
        print(
            f"  {name:22}{row['p50_ms']:9.1f}{row['p50_ms'] / ours['p50_ms']:8.2f}x{row['peak_mib_above_idle']:10.0f}{share:>10}"
            f"{row['pixels_unlike_torch']:9.4%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="weights of Slim")
    parser.add_argument("--frames", type=Path, help="folder of pictures")
    parser.add_argument("--variants", nargs="+", default=["slim", "base"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "cpu.json")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.folder)
        return
    if arguments.weights is None or arguments.frames is None:
        parser.error("--weights and --frames are needed")

    from rtformer_deploy.image import native
    from rtformer_deploy.machine import environment

    cases = []
    for variant in arguments.variants:
        for size in SIZES:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                weights = str(arguments.weights.resolve()) if variant == "slim" else None
                case = {"variant": variant, "recipe": f"rtformer-{variant}-cityscapes", "size": size, "weights": weights}
                frames = load_frames(arguments.frames, size, 8)
                np.save(folder / "frames.npy", frames)
                mixed = prepare(folder, case | {"threads": arguments.threads}, size)
                contestants = measure(folder, len(frames), arguments.rounds)
                case |= {"weights": arguments.weights.name if weights else "random, seed 0", "frames": len(frames), "mixed_cells": mixed}
                cases.append(case | {"contestants": contestants})
                report(cases[-1])
    result = {
        "what": "end to end, decoded frame to label map, milliseconds; one worker process each, called in turn",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "native_postprocessing": native.available(),
        "environment": environment(),
        "cases": cases,
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
