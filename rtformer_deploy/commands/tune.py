"""A model, its ranges and a labelled dataset -> the fastest mix of INT8, FP16 and FP32 that loses no more mIoU than allowed.

1. Sensitivity: each block alone in INT8, compared with the FP32 engine by its logits on a few frames.
2. The blocks leave INT8 one after the other, the one that errs most for its work first; the mIoU of real engines on the whole split
   finds, by bisection, how many have to. Then blocks go back to INT8 one by one where the bound allows it.
3. Everything that was scored is timed in turns, round after round, and the fastest within the bound is chosen.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..backends import backend_row
from ..calibrate.checkpoint import checkpoint_path
from ..datasets import Dataset, open_dataset
from ..errors import DatasetError
from ..files import json_bytes, make_folder, remove, sha256, write_atomic
from ..formats.external_model import ExternalModel
from ..formats.journal import refuse_overwriting
from ..formats.model_file import file_sha256, serialize_model, weights_sha256
from ..formats.preprocessing import preprocessing
from ..formats.ranges import check_ranges, load_ranges, ranges_hash, save_ranges
from ..image.odd_files import OddFiles
from ..image.reader import ImageReader, silent
from ..machine import environment, processor
from ..pictures import why_not_drawn
from ..pipeline import read_model
from ..tuning.blocks import find_blocks
from ..tuning.journal import Journal
from ..tuning.measure import Workshop
from ..tuning.run import Run, Tuned, check_gate
from ..tuning.summary import recipe_of, summary
from ..types import Backend, Feedback, ModelSpec, Ranges
from .calibrate import CalibrateRequest, calibrate_file, hash_of_readable
from .choices import RangesSource, pick_backend, pick_ranges, refuse_unrunnable
from .kinds import CALIBRATION, DRAWING, JOURNAL, RANGES, RECIPE, TUNING
from .outputs import Output, check_outputs, file_inputs, model_inputs, outputs

_JOURNAL = "tune.state.jsonl"
_RANGES = "ranges.json"


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What to tune, and on which data, as on the command line. `max_drop` is in points of mIoU, `seconds` per engine over all rounds."""

    model: Path
    dataset: str
    root: Path
    output: Path
    max_drop: float
    split: str = "val"
    limit: int = 32
    backend: str = "auto"
    ranges: RangesSource = field(default_factory=RangesSource)
    bit_depth: int | None = None
    resume: bool = False
    threads: int | None = None
    seconds: float = 10.0
    device: int = 0
    external: ExternalModel = field(default_factory=ExternalModel)


def tune(request: TuneRequest, feedback: Feedback, odd: OddFiles | None = None) -> Tuned:
    """Searches, measures and writes tune.json, tune.svg and, if the gate is met, recipe.toml and ranges.json into `request.output`.

    Without the extra `report` tune.svg is not drawn, and a line at the start says so.
    Every measurement is written to tune.state.jsonl at once, for `resume`. `odd` gets the images for the ranges that cannot be read;
    without it the first one is an error. Raises UsageError, ModelError, CalibrationError, DatasetError,
    BuildError, EngineError, OutputError, and what `feedback.progress` raises.
    """
    if not request.resume:
        refuse_overwriting(request.output / _JOURNAL)
    _check_files(request)
    backend = pick_backend(request.backend, feedback.say)
    model, spec = read_model(request.model, request.external, backend)
    reader = ImageReader(request.bit_depth, feedback.say)
    dataset = open_dataset(request.dataset, request.root, request.split, reader)
    if len(dataset.labels.names) != len(spec.classes):
        raise DatasetError(f"{spec.name} tells {len(spec.classes)} classes apart and {dataset.name} has {len(dataset.labels.names)}.")
    refuse_unrunnable("tune", spec, backend, request.device)
    if not backend_row(backend).on_gpu:
        feedback.say("On a CPU FP16 is storage: it halves the plan and is no faster, so the mix is of INT8 and FP32.")
    folder = make_folder(request.output)
    reason = why_not_drawn("tune.svg")
    if reason is not None:
        feedback.say(reason)
    ranges, images = _ranges(request, spec, folder, reader, odd or OddFiles(), feedback)
    check_ranges(ranges, spec, weights_sha256(model, spec))
    blocks = find_blocks(model, ranges)
    workshop = Workshop(model, spec, backend, ranges, blocks, dataset, request.threads, request.device)
    journal = Journal(folder / _JOURNAL, _identity(request, model, spec, dataset, backend, ranges, images), request.resume)
    if journal.records:
        feedback.say(f"Going on after {len(journal.records)} measurements.")
    tuned = Run(workshop, journal, limit=request.limit, max_drop=request.max_drop, seconds=request.seconds, feedback=feedback).search()
    _write(request, workshop, tuned)
    return tuned


def _check_files(request: TuneRequest) -> None:
    """Raises OutputError if the folder cannot be made, or a file of the run would replace one that is not from a run."""
    folder = request.output
    planned = [
        Output(folder / _JOURNAL, JOURNAL, updated=True),
        Output(folder / _RANGES, RANGES, updated=True),  # the same ranges, where --ranges names this file
        Output(checkpoint_path(folder / _RANGES), CALIBRATION, updated=True),
        *outputs((folder / "tune.json", TUNING), (folder / "tune.svg", DRAWING), (folder / "recipe.toml", RECIPE)),
    ]
    inputs = [*model_inputs(request.model), *file_inputs(request.dataset, request.ranges.file, request.external.classes)]
    check_outputs(planned, inputs, folder=folder)


def _ranges(
    request: TuneRequest, spec: ModelSpec, folder: Path, reader: ImageReader, odd: OddFiles, feedback: Feedback
) -> tuple[Ranges, str | None]:
    """The ranges as build-engine finds them, and the hash of the images that they are measured on in this run (None: in an earlier one).

    Ranges that are measured in this run are kept beside its journal.
    """
    ranges_path, images = folder / _RANGES, request.ranges.images
    if images is not None and request.resume and os.path.isfile(ranges_path) and os.path.isfile(folder / _JOURNAL):
        return load_ranges(ranges_path, feedback.say), hash_of_readable(images, reader, odd, feedback.say)

    def measure(images: Path) -> Ranges:
        calibration = CalibrateRequest(
            request.model, images, ranges_path, reader=reader, threads=request.threads, external=request.external
        )
        return calibrate_file(calibration, feedback, odd)

    ranges = pick_ranges(request.ranges, spec, measure, feedback.say)
    return ranges, None if images is None else hash_of_readable(images, reader, OddFiles(stop=False), silent)


def _identity(
    request: TuneRequest, model: ir.Model, spec: ModelSpec, dataset: Dataset, backend: Backend, ranges: Ranges, images: str | None
) -> dict[str, Any]:
    """What the measurements depend on. The bound is not part of it, because a measurement is valid for any bound."""
    return {
        "rtformer_deploy": _version("rtformer-deploy"),
        "model": sha256(serialize_model(model)),  # with the size that --input gave it, which its file does not hold
        "preprocessing": preprocessing(spec),
        "ranges": ranges_hash(ranges),
        "calibration_images": images,
        "bit_depth": request.bit_depth,
        "backend": f"{backend} {_version(backend_row(backend).package)}",
        "machine": processor(backend_row(backend).on_gpu, request.device),
        "dataset": dataset.name,
        "split": dataset.split,
        "frames_and_labels": dataset.content_hash(),
        "limit": request.limit,
        "threads": request.threads,
        "seconds": request.seconds,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def build_command(request: TuneRequest, backend: str) -> str:
    """The command that builds what a finished run chose."""
    external, more = request.external, []
    said = {
        "--classes": external.classes,
        "--mean": external.mean,
        "--std": external.std,
        "--input": external.input,
        "--output-name": external.output_name,
        "--threshold": external.threshold,
    }
    for flag, value in said.items():
        if value is not None:
            more += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    words = [str(request.model), "--recipe", str(request.output / "recipe.toml"), "--backend", backend, *more]
    return "rtformer-deploy build-engine " + shlex.join(words)


def _write(request: TuneRequest, workshop: Workshop, tuned: Tuned) -> None:
    """The files of a finished run; if no mix meets the bound, the recipe of an earlier run is removed."""
    folder, spec = request.output, workshop.spec
    save_ranges(workshop.ranges, folder / _RANGES)
    facts = {
        "model_sha256": file_sha256(workshop.model),
        "command": None if tuned.chosen is None else build_command(request, workshop.backend),
        "environment": environment(),
    }
    data = summary(workshop, tuned, facts)
    title = f"{spec.name}, {workshop.backend}, {workshop.dataset.name} {workshop.dataset.split}"
    write_atomic(folder / "tune.json", json_bytes(data))
    if why_not_drawn("tune.svg") is None:
        from ..pictures.pareto import draw_pareto

        write_atomic(folder / "tune.svg", draw_pareto(tuned.points, tuned.chosen, request.max_drop, title).encode())
    else:
        remove(folder / "tune.svg")  # from an earlier run with other points
    if tuned.chosen is None:
        remove(folder / "recipe.toml")
        return
    dataset = dataset_from(folder, request.dataset)
    text = recipe_of(workshop, tuned.chosen, tuned.points[0], dataset, _RANGES, weights_sha256(workshop.model, spec))
    write_atomic(folder / "recipe.toml", text.encode())


def dataset_from(folder: Path, dataset: str) -> str:
    """A dataset's name, or the path of its file -> what a recipe in `folder` says: a path leads there from the folder, even by links."""
    return os.path.relpath(os.path.realpath(dataset), os.path.realpath(folder)) if dataset.endswith(".toml") else dataset


__all__ = ["TuneRequest", "Tuned", "build_command", "check_gate", "tune"]
