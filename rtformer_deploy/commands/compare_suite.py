"""The networks of a suite side by side: the part of `compare` behind --suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from .. import machine
from ..backends import backend_row
from ..comparison.contestant import Contestant
from ..comparison.figures import figures
from ..comparison.notes import notes_on_engines, notes_on_measuring
from ..comparison.prepare import FindRanges, Preparation, key_of, prepare
from ..comparison.records import Journal, Scored
from ..comparison.result import Compared
from ..comparison.rows import Row, points, tables
from ..comparison.run import measure
from ..comparison.suite import Entrant, entrants_of
from ..datasets import Dataset, open_dataset
from ..errors import DeployError, EngineError, UsageError, is_interrupted
from ..evaluation.census import check_census, take_census
from ..evaluation.evaluate import evaluate
from ..files import make_folder, temporary_folder
from ..formats.journal import refuse_overwriting
from ..formats.model_file import load_stamped, save_model
from ..formats.safetensors_file import is_weights
from ..formats.suite_file import Suite, load_suite
from ..image.odd_files import OddFiles
from ..image.reader import ImageReader, silent
from ..opening import open_any
from ..timing.bench import environment
from ..types import Feedback, ModelSpec, Ranges
from .calibrate import CalibrateRequest, calibrate_file, hash_of_readable
from .choices import pick_backend, pick_ranges, refuse_missing_gpu
from .kinds import COMPARE_FACTS
from .outputs import Output, check_outputs, file_inputs, model_inputs, plan_outputs

if TYPE_CHECKING:
    from .compare import CompareRequest


@dataclass(frozen=True, slots=True)
class _Task:
    """A request with what follows from it."""

    request: CompareRequest
    suite: Suite
    entrants: tuple[Entrant, ...]
    preparation: Preparation
    dataset: Dataset | None
    feedback: Feedback

    @property
    def frame_size(self) -> tuple[int, int]:
        return self.preparation.frame_size


def compare_suite(request: CompareRequest, feedback: Feedback) -> Compared:
    """The request -> the networks of its suite, built and measured in turn. A network that fails is a row that says why.

    Raises UsageError for an unknown suite and for weights of none of its networks, EngineError if the backend cannot run here, and
    MissingPackageError, before the work; the first network's error if all of them fail; and what reading the user's own files raises.
    """
    if not request.resume:
        refuse_overwriting(request.state)
    task = _task(request, feedback)
    keys = {entrant.name: key_of(entrant, task.preparation) for entrant in task.entrants}
    make_folder(request.output)
    make_folder(task.preparation.folder)
    journal = Journal(request.state, _identity(task, keys), request.resume)
    if journal.records:
        done = len(journal.rounds())
        feedback.say(f"Going on after {done} round{'s' * (done != 1)}.")
    rows = [_prepared(entrant, keys[entrant.name], task) for entrant in task.entrants]
    _refuse_none(rows, task)
    rows = [_scored(row, task, journal) for row in rows]
    return _compared(_measured(rows, task, journal), task)


def _task(request: CompareRequest, feedback: Feedback) -> _Task:
    """Everything that can be wrong with a request is found here, before the work."""
    assert request.suite is not None  # `compare` has looked
    suite = load_suite(request.suite)
    entrants = entrants_of(suite, request.weights, request.add)
    _check_external(request)
    machine.require("torch", "export", "compare --suite")
    machine.require("onnxscript", "export", "compare --suite")
    if request.ranges.file is not None or (request.ranges.images is not None and request.precision != "int8"):
        raise UsageError("A suite's networks have ranges of their own: --int8 takes --images, and nothing else does.")
    backend = pick_backend(request.backend, feedback.say)
    refuse_missing_gpu("compare", backend, request.device)
    dataset = None
    if request.dataset is not None and request.root is not None:
        dataset = open_dataset(request.dataset, request.root, request.split, ImageReader(say=feedback.say))
        check_census(dataset, take_census(dataset, progress=feedback.progress), "score", one_class=True)
    preparation = Preparation(
        folder=request.plans or request.output / "plans",
        frame_size=request.size or suite.size,
        backend=backend,
        precision=request.precision or "fp32",
        find_ranges=_ranges(request, feedback),
        images=_images(request),
        threads=request.threads,
        device=request.device,
        external=request.external,
    )
    _check_plans(entrants, preparation)
    return _Task(request, suite, entrants, preparation, dataset, feedback)


def _check_external(request: CompareRequest) -> None:
    """Raises UsageError if something is said about a model from elsewhere and none is added."""
    if request.external.is_set() and not any(not is_weights(path) and load_stamped(path) is None for path in request.add):
        raise UsageError(
            "--classes, --mean, --std, --input, --output-name and --threshold describe a model from elsewhere: add one (--add)."
        )


def _check_plans(entrants: Sequence[Entrant], preparation: Preparation) -> None:
    """Raises OutputError if a plan would replace a file that is not one, or one that is read."""
    planned = [output for entrant in entrants for output in plan_outputs(preparation.plan(entrant))]
    planned += [Output(preparation.facts(entrant), COMPARE_FACTS) for entrant in entrants]
    files = [entrant.file for entrant in entrants if entrant.file is not None]
    inputs = [*model_inputs(*(entrant.file for entrant in entrants if entrant.file is not None and entrant.is_own)), *file_inputs(*files)]
    check_outputs(planned, inputs, folder=preparation.folder)


def _images(request: CompareRequest) -> str | None:
    """The hash of the images that INT8's ranges are measured on."""
    if request.ranges.images is None:
        return None
    return hash_of_readable(request.ranges.images, ImageReader(say=silent), OddFiles(stop=False), silent)


def _ranges(request: CompareRequest, feedback: Feedback) -> FindRanges:
    def find(model: ir.Model, spec: ModelSpec, file: Path | None) -> Ranges:
        def measure(images: Path) -> Ranges:
            if file is not None and not is_weights(file):
                calibration = CalibrateRequest(file, images, threads=request.threads, external=request.external)
                return calibrate_file(calibration, feedback)
            with temporary_folder() as folder:
                save_model(model, folder / "model.onnx")
                return calibrate_file(CalibrateRequest(folder / "model.onnx", images, threads=request.threads), feedback)

        return pick_ranges(request.ranges, spec, measure, feedback.say)

    return find


def _identity(task: _Task, keys: dict[str, str]) -> dict[str, Any]:
    """What the measurements depend on. More rounds, and where files go, are not part of it."""
    request, preparation = task.request, task.preparation
    row = backend_row(preparation.backend)
    return {
        "command": "compare",
        "suite": task.suite.name,
        "frame": list(task.frame_size),
        "reference": task.suite.reference,
        "backend": preparation.backend,
        "machine": machine.processor(row.on_gpu, request.device),
        "threads": request.threads,
        "seconds": request.seconds,
        "dataset": None if task.dataset is None else [task.dataset.name, task.dataset.split, task.dataset.content_hash()],
        "contestants": keys,
    }


def _prepared(entrant: Entrant, key: str, task: _Task) -> Row:
    """An entrant with its plan, or with why there is none."""
    task.feedback.progress(f"preparing {entrant.name}", task.entrants.index(entrant), len(task.entrants))
    try:
        built = prepare(entrant, task.preparation, key, task.feedback)
    except DeployError as error:
        return _failed(Row(entrant), error, task)
    task.feedback.say(f"{entrant.name}: {built.plan} ({built.plan_mb:.1f} MiB)")
    return Row(entrant, built)


def _failed(row: Row, error: DeployError, task: _Task) -> Row:
    """A row of one that takes no part, with the reason, which is said too. Raises the error if Ctrl-C is behind it."""
    if is_interrupted(error):
        raise error
    task.feedback.say(f"{row.name} takes no part: {error.what}")
    return replace(row, error=error)


def _refuse_none(rows: Sequence[Row], task: _Task) -> None:
    """Raises EngineError if nothing could be built."""
    if any(row.error is None for row in rows):
        return
    size = "x".join(map(str, task.frame_size))
    what = f"None of the {len(rows)} can be built for frames of {size} with {task.preparation.backend}."
    raise EngineError(what, details=[f"{row.name}: {row.error.what}" for row in rows if row.error is not None])


def _scored(row: Row, task: _Task, journal: Journal) -> Row:
    """A row with its mIoU, if it has weights and there is a dataset with as many classes."""
    dataset, built = task.dataset, row.built
    if dataset is None or built is None or row.is_random:
        return row
    if len(built.info.spec.classes) != len(dataset.labels.names):
        task.feedback.say(f"{row.name} is not scored: it tells {len(built.info.spec.classes)} classes apart, {dataset.name} others.")
        return row
    scored = journal.scores().get(row.name)
    if scored is None:
        try:
            with open_any(built.plan, device=task.request.device, threads=task.request.threads) as runner:
                evaluation = evaluate(runner, dataset, task.feedback.progress)
        except DeployError as error:
            return _failed(row, error, task)
        scored = Scored(row.name, evaluation.scores.miou, evaluation.frames)
        journal.add(scored)
    return replace(row, scored=scored)


def _measured(rows: Sequence[Row], task: _Task, journal: Journal) -> list[Row]:
    """Rows with what the rounds gave."""
    request = task.request
    contestants = [
        Contestant(row.name, str(row.built.plan), threads=request.threads, device=request.device)
        for row in rows
        if row.built is not None and row.error is None
    ]
    rounds, failed = measure(contestants, task.frame_size, request.rounds, request.seconds, journal, task.feedback)
    for name, error in failed.items():
        task.feedback.say(f"{name} failed: {error.what}")
    return [replace(row, figures=figures(rounds, row.name, task.suite.reference), error=row.error or failed.get(row.name)) for row in rows]


def _compared(rows: Sequence[Row], task: _Task) -> Compared:
    suite, size = task.suite, "x".join(map(str, task.frame_size))
    title = f"{suite.title}: frames of {size}, {task.preparation.backend}, {task.preparation.precision}"
    facts = {
        "version": 1,
        "compared": "suite",
        "suite": suite.name,
        "frame": list(task.frame_size),
        "reference": suite.reference,
        "rounds": task.request.rounds,
        "seconds": task.request.seconds,
        "threads": task.request.threads,
        "dataset": None if task.dataset is None else {"name": task.dataset.name, "split": task.dataset.split},
        "rows": [row.to_json() for row in rows],
        "environment": environment(),
    }
    here = f"frames a second here, the engine alone, frames of {size}"
    return Compared(
        title=title,
        tables=tables(rows, task.frame_size, suite.reference),
        facts=facts,
        notes=_notes(rows, task),
        points=points(rows),
        axes=(here, f"mIoU on {suite.labels} val, %"),
    )


def _notes(rows: Sequence[Row], task: _Task) -> tuple[str, ...]:
    """What a reader must know before comparing."""
    notes = []
    if any(row.is_random and row.figures is not None for row in rows):
        notes.append(
            "Random weights say something about speed and size only. Their labels change from pixel to pixel, so post-processing, and "
            "with it a frame's time, is longer than with trained weights."
        )
    if not any(row.figures is not None and row.name == task.suite.reference for row in rows):
        notes.append(f"There are no ratios: {task.suite.reference} did not run.")
    notes += notes_on_measuring({row.name: row.figures for row in rows if row.figures is not None})
    engines = ((row.name, note) for row in rows if row.built is not None for note in row.built.info.notes)
    return (*notes, *notes_on_engines(engines))
