"""The whole frame on a CPU, side by side: from a decoded frame to a label map, ours against what people write today.

    python benchmarks/cpu.py [--weights slim.pdparams] [--frames DIR] [--rounds 15] [--json benchmarks/results/cpu.json]

One worker process for each contestant, called in turn. Slim takes the weights given (PaddleSeg's form or safetensors), Base seeded
random ones. Contestants:

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
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import numpy as np
from harness import Json, Size
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rtformer_deploy.types import Frame, LabelMap

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SIZES: tuple[Size, ...] = ((512, 1024), (1024, 2048))
FRAMES = 8
STAGES = ("preprocess", "engine", "postprocess")
#: contestant -> what an idle process of it has loaded
IMPORTS = {
    "torch": ("torch",),
    "torch-channels-last": ("torch",),
    "onnxruntime-logits": ("onnxruntime",),
    "openvino-logits": ("openvino",),
    "ours-onnxruntime": ("rtformer_deploy.pipeline", "onnxruntime"),
    "ours-openvino": ("rtformer_deploy.pipeline", "openvino"),
}
NAMES = tuple(IMPORTS)

#: A decoded frame to its label map and, for ours, the seconds of each stage.
Run = Callable[["Frame"], tuple["LabelMap", dict[str, float]]]


# ---------------------------------------------------------------------------------------------------------------- worker


def usual_preprocess(frame: Frame) -> NDArray[np.float32]:
    """What is usually written: floats, normalise, transpose; the frame already has the engine's size."""
    return np.ascontiguousarray(((frame.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None], np.float32)


def usual_labels(logits: NDArray[np.float32]) -> LabelMap:
    return np.asarray(logits.argmax(1)[0], np.uint8)


def make_torch(case: Json, channels_last: bool) -> Run:
    import torch
    import torch.nn.functional as F

    from rtformer_deploy.training.scoring import to_channels_last

    torch.set_num_threads(case["threads"])
    network = harness.network_of(case).network
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = to_channels_last(network) if channels_last else network

    @torch.inference_mode()
    def run(frame: Frame) -> tuple[LabelMap, dict[str, float]]:
        image = torch.from_numpy(usual_preprocess(frame)).contiguous(memory_format=layout)
        logits = F.interpolate(network(image), size=frame.shape[:2], mode="bilinear", align_corners=False)
        return logits.argmax(1)[0].to(torch.uint8).numpy(), {}

    return run


def make_onnxruntime(folder: Path, case: Json) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case["threads"]
    session = onnxruntime.InferenceSession(str(folder / "logits.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda frame: (usual_labels(session.run(None, {"input": usual_preprocess(frame)})[0]), {})


def make_openvino(folder: Path, case: Json) -> Run:
    import openvino

    config = {"INFERENCE_NUM_THREADS": case["threads"], "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(folder / "logits.onnx"), "CPU", config).create_infer_request()
    return lambda frame: (usual_labels(request.infer({"input": usual_preprocess(frame)})[0]), {})


def make_ours(folder: Path, case: Json, backend: str) -> Run:
    from rtformer_deploy import load_engine, open_engine
    from rtformer_deploy.timing.bench import run_stages

    runner = open_engine(load_engine(folder / f"{backend}.plan"), threads=case["threads"])

    def run(frame: Frame) -> tuple[LabelMap, dict[str, float]]:
        labels, stages = run_stages(runner, [frame])
        return labels[0], stages

    return run


def make(name: str, folder: Path, case: Json) -> Run:
    """A contestant, ready to be called."""
    if name.startswith("torch"):
        return make_torch(case, channels_last=name == "torch-channels-last")
    if name.startswith("ours-"):
        return make_ours(folder, case, name.removeprefix("ours-"))
    return make_onnxruntime(folder, case) if name == "onnxruntime-logits" else make_openvino(folder, case)


def worker(name: str, folder: Path) -> None:
    """Runs the frames that are called for; answers with the seconds each took, its stages and this process's memory."""
    case = json.loads((folder / "case.json").read_text())
    for module in IMPORTS[name]:
        importlib.import_module(module)
    frames = np.load(folder / "frames.npy")
    idle = harness.memory("VmRSS")
    run = make(name, folder, case)

    def answer(index: int) -> Json:
        start = time.perf_counter()
        labels, stages = run(frames[index])
        seconds = time.perf_counter() - start
        np.save(folder / f"{name}.npy", labels)
        return {"seconds": seconds, "stages": stages, "idle": idle, "peak": harness.memory("VmHWM")}

    harness.answer_calls(answer)


# ---------------------------------------------------------------------------------------------------------------- driver


def prepare(folder: Path, case: Json, frames: NDArray[np.uint8]) -> float:
    """Frames, both models and our engines into `folder`; returns the mean share of mixed cells."""
    from rtformer_deploy import BuildOptions, build_engine, export_model, open_engine, save_engine, save_model
    from rtformer_deploy.graph.functions import inline_functions
    from rtformer_deploy.image.upsample import mixed_share

    np.save(folder / "frames.npy", frames)
    (folder / "case.json").write_text(json.dumps(case))
    choice = harness.network_of(case)
    full = export_model(choice.network, choice.recipe.spec(size=case["size"], head="logits"))
    save_model(inline_functions(full.model), folder / "logits.onnx")  # OpenVINO reads no ONNX functions
    made = export_model(choice.network, choice.recipe.spec(size=case["size"]))
    for backend in ("openvino", "onnxruntime"):
        engine = build_engine(made.model, made.spec, backend, BuildOptions(threads=case["threads"]))
        save_engine(engine, folder / f"{backend}.plan")
    with open_engine(engine, threads=case["threads"]) as runner:
        return float(np.mean([mixed_share(runner.logits([frame])[0]) for frame in frames]))


def measure(folder: Path, frames: int, rounds: int) -> Json:
    """Calls the contestants in turn -> a row each."""
    changed: dict[str, list[float]] = {name: [] for name in NAMES}

    def compare() -> None:
        reference = np.load(folder / "torch.npy")
        for name in NAMES:
            changed[name].append(float(np.mean(np.load(folder / f"{name}.npy") != reference)))

    answers = harness.call_in_turn(__file__, folder, NAMES, frames, rounds, compare)
    return {name: row_of(answers[name], max(changed[name])) for name in NAMES}


def row_of(answers: Sequence[Json], changed: float) -> Json:
    """A contestant's answers -> its row; `changed` is the largest share of pixels unlike eager torch's in any frame."""
    times = sorted(answer["seconds"] * 1000 for answer in answers)
    row = {
        "p50_ms": statistics.median(times),
        "min_ms": times[0],
        "max_ms": times[-1],
        "idle_mib": answers[-1]["idle"],
        "peak_mib_above_idle": answers[-1]["peak"] - answers[-1]["idle"],
        "pixels_unlike_torch": changed,
    }
    if not answers[0]["stages"]:
        return row
    stages = {stage: statistics.median(answer["stages"][stage] for answer in answers) * 1000 for stage in STAGES}
    return row | {"stages_ms": stages, "pre_and_post_share": 1 - stages["engine"] / sum(stages.values())}


def run_case(case: Json, arguments: argparse.Namespace) -> Json:
    """A variant at a size: every contestant."""
    frames = harness.frames_at(arguments.frames, case["size"], FRAMES)
    with tempfile.TemporaryDirectory() as name:
        mixed = prepare(Path(name), case | {"threads": arguments.threads}, frames)
        contestants = measure(Path(name), len(frames), arguments.rounds)
    weights = Path(case["weights"]).name if case["weights"] else "random, seed 0"
    return case | {"weights": weights, "frames": len(frames), "mixed_cells": mixed, "contestants": contestants}


def report(case: Json) -> None:
    ours = case["contestants"]["ours-openvino"]
    print(f"\n{case['variant']} {case['size'][0]}x{case['size'][1]}, {case['mixed_cells']:.0%} mixed cells")
    print(f"  {'':22}{'p50 ms':>9}{'ours is':>9}{'peak MiB':>10}{'pre+post':>10}{'unlike':>9}")
    for name, row in case["contestants"].items():
        share = f"{row['pre_and_post_share']:.1%}" if "pre_and_post_share" in row else ""
        print(
            f"  {name:22}{row['p50_ms']:9.1f}{row['p50_ms'] / ours['p50_ms']:8.2f}x{row['peak_mib_above_idle']:10.0f}{share:>10}"
            f"{row['pixels_unlike_torch']:9.4%}"
        )


def compare(arguments: argparse.Namespace) -> Json:
    """The whole run."""
    from rtformer_deploy.image import native

    measured = []
    for case in harness.cases(arguments):
        measured.append(run_case(case, arguments))
        report(measured[-1])
    figures: dict[str, Any] = {"rounds": arguments.rounds, "threads": arguments.threads}
    figures |= {"native_postprocessing": native.available(), "cases": measured}
    return harness.stamped("end to end, decoded frame to label map, milliseconds; one worker process each, called in turn", figures)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__, harness.RESULTS / "cpu.json")
    harness.add_cases(parser, SIZES)
    harness.add_threads(parser)
    harness.add_worker(parser)
    parser.add_argument("--rounds", type=harness.positive, default=15)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    if arguments.worker:
        worker(arguments.worker, arguments.folder)
        return 0
    return 1 if harness.run_script(arguments.json, lambda: compare(arguments)) is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
