"""A model, its ranges and a labelled dataset -> the fastest mix of INT8, FP16 and FP32 whose mIoU loses no more than was allowed.

1. Sensitivity: each block alone in INT8, compared with the FP32 engine by its logits on a few frames.
2. The blocks leave INT8 one after the other, the one that errs most for its work first; the mIoU of real engines on the whole split
   finds, by bisection, how many have to. Then blocks go back to INT8 one by one where the bound allows it.
3. Everything that was scored is timed in turns, round after round, and the fastest within the bound is chosen.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..backends import backend_row
from ..datasets import Dataset, open_dataset
from ..errors import DatasetError, EngineError, GateError
from ..files import IMAGE_BYTES, make_folder, read_bytes, sha256, write_atomic
from ..formats.external_model import Foreign
from ..formats.model_file import load_model, serialize_model
from ..formats.ranges import check_ranges, load_ranges, ranges_hash, save_ranges
from ..machine import cpu_name, environment
from ..nvidia.driver import gpus, why_none
from ..pictures.pareto import draw_pareto
from ..pipeline import spec_of
from ..tuning.blocks import find_blocks
from ..tuning.measure import Workshop
from ..tuning.points import Point, front, within
from ..tuning.run import Run, Tuned
from ..tuning.state import State, refuse_overwriting
from ..tuning.written import recipe_text
from ..types import Backend, ModelSpec, Progress, Ranges, Say, no_progress
from .build_engine import pick_backend, pick_ranges

_STATE = "tune.state.jsonl"


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What to tune on what, as the command line says it. `max_drop` is in points of mIoU, `seconds` per engine over all rounds."""

    model: Path
    dataset: str
    root: Path
    output: Path
    max_drop: float
    split: str = "val"
    limit: int = 32
    backend: str = "auto"
    ranges: Path | None = None
    images: Path | None = None
    resume: bool = False
    threads: int | None = None
    seconds: float = 10.0
    device: int = 0
    said: Foreign = field(default_factory=Foreign)


def tune(request: TuneRequest, say: Say = print, progress: Progress = no_progress) -> Tuned:
    """Searches, measures and writes tune.json, tune.svg and, where the gate is met, recipe.toml and ranges.json into `request.output`.

    What was measured is in tune.state.jsonl at once, for `resume`. Raises UsageError, ModelError, CalibrationError, DatasetError,
    BuildError, EngineError, OutputError; KeyboardInterrupt where `progress` says stop.
    """
    if not request.resume:
        refuse_overwriting(request.output / _STATE)
    model = load_model(request.model)
    spec = spec_of(model, request.model.name, request.said)
    model_sha256 = sha256(serialize_model(model))
    dataset = open_dataset(request.dataset, request.root, request.split)
    if len(dataset.labels.names) != len(spec.classes):
        raise DatasetError(f"{spec.name} tells {len(spec.classes)} classes apart and {dataset.name} has {len(dataset.labels.names)}.")
    backend = pick_backend(request.backend, say)
    _refuse_unrunnable(backend, request.device, say)
    folder = make_folder(request.output)
    ranges = _ranges(request, spec, folder, say, progress)
    check_ranges(ranges, spec, model_sha256)
    blocks = find_blocks(model, ranges)
    workshop = Workshop(model, spec, backend, ranges, blocks, dataset, request.threads, request.device)
    state = State(folder / _STATE, _identity(request, dataset, backend, ranges, model_sha256), request.resume)
    if state.records:
        say(f"Going on after {len(state.records)} measurements.")
    run = Run(workshop, state, limit=request.limit, max_drop=request.max_drop, seconds=request.seconds, say=say, progress=progress)
    tuned = run.search()
    _write(request, workshop, tuned, model_sha256)
    return tuned


def check_gate(tuned: Tuned) -> None:
    """Raises GateError where no mix but FP32 itself is within the bound."""
    if tuned.chosen is None:
        nearest = min(tuned.points[1:], key=lambda point: point.drop)
        raise GateError(
            f"No mix is within --max-drop {tuned.max_drop:g}: the nearest, {nearest.name}, loses {nearest.drop:.2f} points of mIoU.",
            "Allow more, calibrate with another --method or more images, or build with --fp32.",
        )


def _refuse_unrunnable(backend: Backend, device: int, say: Say) -> None:
    if backend_row(backend).on_gpu:
        found = gpus()
        if found and device >= len(found):
            raise EngineError(f"There is no GPU {device} here; there are {len(found)}, counted from 0.")
        if not found:
            raise EngineError(
                f"tune runs every engine it builds, and there is no GPU here for {backend} ({why_none()}).",
                "Run it on the machine that the engine is for, or choose --backend openvino.",
            )
    else:
        say("On a CPU FP16 is storage: it halves the plan and is no faster, so the mix is of INT8 and FP32.")


def _ranges(request: TuneRequest, spec: ModelSpec, folder: Path, say: Say, progress: Progress) -> Ranges:
    """The ranges as build-engine finds them; what was measured on images for this run is kept beside its state."""
    kept = folder / "ranges.json"
    if request.images and not request.ranges and request.resume and kept.is_file() and (folder / _STATE).is_file():
        return load_ranges(kept)
    return pick_ranges(
        request.model, spec, request.ranges, request.images,
        output=kept, threads=request.threads, said=request.said, say=say, progress=progress,
    )  # fmt: skip


def _identity(request: TuneRequest, dataset: Dataset, backend: Backend, ranges: Ranges, model_sha256: str) -> dict[str, Any]:
    """What measurements depend on. The bound is not among it: what was measured holds for any."""
    try:
        builder = version(backend_row(backend).package)
    except PackageNotFoundError:
        builder = "unknown"
    frames = json.dumps(
        [[sample.name, sha256(read_bytes(sample.label, DatasetError, "a label map", IMAGE_BYTES))] for sample in dataset.samples]
    )
    return {
        "model": model_sha256,
        "ranges": ranges_hash(ranges),
        "images": None if request.images is None else str(request.images),
        "backend": f"{backend} {builder}",
        "machine": str(gpus()[request.device]) if backend_row(backend).on_gpu else cpu_name(),
        "dataset": dataset.name,
        "split": dataset.split,
        "labelled_frames": sha256(frames.encode()),
        "limit": request.limit,
        "threads": request.threads,
        "seconds": request.seconds,
    }


def build_command(request: TuneRequest, backend: str) -> str:
    """The command that builds what a finished run chose."""
    said, more = request.said, []
    for flag, value in (("--classes", said.classes), ("--mean", said.mean), ("--std", said.std), ("--input", said.input)):
        if value is not None:
            more += [flag, value if isinstance(value, str) else ",".join(map(str, value))]
    words = [str(request.model), "--recipe", str(request.output / "recipe.toml"), "--backend", backend, *more]
    return "rtformer-deploy build-engine " + shlex.join(words)


def _write(request: TuneRequest, workshop: Workshop, tuned: Tuned, model_sha256: str) -> None:
    """The files of a finished run; a recipe of an earlier bound that is not met now is removed."""
    folder, best = request.output, front(tuned.points)
    save_ranges(workshop.ranges, folder / "ranges.json")
    data = {
        "model": workshop.spec.name,
        "model_sha256": model_sha256,
        "ranges_sha256": ranges_hash(workshop.ranges),
        "backend": workshop.backend,
        "dataset": workshop.dataset.name,
        "split": workshop.dataset.split,
        "frames": len(workshop.dataset),
        "max_drop": request.max_drop,
        "baseline": tuned.points[0].to_json(),
        "chosen": None if tuned.chosen is None else tuned.chosen.to_json(),
        "command": None if tuned.chosen is None else build_command(request, workshop.backend),
        "blocks": [
            {
                "name": block.name,
                "work": round(block.work, 4),
                "error": each["error"],
                "flips": each["flips"],
                "convolutions": block.convolutions,
            }
            for block, each in tuned.blocks
        ],
        "points": [point.to_json() | {"pareto": point in best, "within": within(point.drop, request.max_drop)} for point in tuned.points],
        "environment": environment(),
    }
    title = f"{workshop.spec.name}, {workshop.backend}, {workshop.dataset.name} {workshop.dataset.split}"
    write_atomic(folder / "tune.json", json.dumps(data, indent=1, ensure_ascii=False).encode() + b"\n")
    write_atomic(folder / "tune.svg", draw_pareto(tuned.points, tuned.chosen, request.max_drop, title).encode())
    if tuned.chosen is None:
        (folder / "recipe.toml").unlink(missing_ok=True)
    else:
        write_atomic(folder / "recipe.toml", _recipe(request, workshop, tuned.chosen, tuned.points[0], model_sha256).encode())


def _recipe(request: TuneRequest, workshop: Workshop, chosen: Point, baseline: Point, model_sha256: str) -> str:
    spec, mix = workshop.spec, workshop.mix(chosen.levels)
    dataset = request.dataset
    if dataset.endswith(".toml"):
        dataset = os.path.relpath(dataset, request.output)
    build = {"backend": workshop.backend, "model_sha256": spec.sha256 or model_sha256}
    if mix.precision == "int8":
        build |= {"ranges": "ranges.json", "ranges_sha256": ranges_hash(workshop.ranges)}
    comment = (
        f"Written by rtformer-deploy tune: {chosen.name} ({chosen.in_int8} blocks in INT8), tuned on {workshop.backend}.",
        f"mIoU {100 * chosen.miou:.2f} % (FP32 {100 * baseline.miou:.2f} %) on {workshop.dataset.name} {workshop.dataset.split};"
        f" {chosen.ratio:.2f} of FP32's latency.",
    )
    return recipe_text(spec, dataset, mix, build, workshop.blocks, chosen.levels, comment)


__all__ = ["TuneRequest", "Tuned", "build_command", "check_gate", "tune"]
