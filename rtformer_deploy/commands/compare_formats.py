"""The formats of one model side by side: the part of `compare` behind --formats.

1. The model is built in every format of `comparison.formats`; one that cannot be is a row with its reason.
2. Those that run here are timed in turns, each in a process of its own, round after round.
3. Each is checked in its process: changed pixels, and mIoU if there is a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..comparison.contestant import Check, Contestant, Labelled
from ..comparison.figures import figures
from ..comparison.format_rows import FormatRow, points, tables
from ..comparison.formats import FORMATS, REFERENCE_FORMAT
from ..comparison.making import Made, Maker, reason_of
from ..comparison.notes import notes_on_engines, notes_on_measuring
from ..comparison.processes import Process
from ..comparison.records import Journal, Judged
from ..comparison.result import Compared
from ..comparison.run import measure
from ..datasets import Dataset, open_dataset
from ..errors import DeployError, UsageError, WeightsError, is_interrupted
from ..evaluation.census import check_census, take_census
from ..evaluation.evaluate import check_classes
from ..files import make_folder, printable, sha256, sha256_of, write_atomic
from ..formats.journal import refuse_overwriting
from ..formats.model_file import load_stamped, serialize_model, stamp_spec
from ..formats.preprocessing import preprocessing
from ..formats.ranges import ranges_hash
from ..graph.edit import clone
from ..image.reader import ImageReader
from ..pipeline import read_model
from ..timing.bench import environment
from ..types import Feedback, ModelSpec, Ranges
from .calibrate import CalibrateRequest, calibrate_file
from .choices import pick_ranges
from .kinds import MODEL
from .outputs import Output, check_outputs, model_inputs, plan_outputs

if TYPE_CHECKING:
    from .compare import CompareRequest

#: A model from elsewhere with what the user said about it, for the processes that run it.
_STAMPED = "stamped.onnx"


def compare_formats(request: CompareRequest, feedback: Feedback) -> Compared:
    """Makes the model's formats in `request.output`, checks and times them.

    Every plan, check and round is kept in the journal. Raises UsageError, OutputError, DatasetError, and what reading the model raises.
    """
    assert request.model is not None  # compare has checked it
    if not request.resume:
        refuse_overwriting(request.state)
    weights = _weights(request)
    _check_plans(request)
    model, spec = read_model(request.model, request.external)
    dataset = _dataset(request, spec, feedback)
    folder = make_folder(request.output)
    ranges = _ranges(request, spec, feedback)
    journal = Journal(request.state, _identity(request, model, spec, weights, ranges, dataset), request.resume)
    maker = Maker(model, spec, folder, ranges, journal, weights, request.threads, request.device)
    made = [_make(maker, number, feedback) for number in range(len(FORMATS))]
    check = _check_of(request, model, spec)

    def judge(process: Process) -> None:
        if process.name not in journal.judged():
            journal.add(Judged(process.name, process.check(check)))

    contestants = [each.contestant for each in made if each.contestant is not None]
    rounds, failed = measure(contestants, spec.frame_size, request.rounds, request.seconds, journal, feedback, judge)
    late = [each for each in contestants if each.name not in failed and each.name not in journal.judged()]
    failed |= _judge_late(late, judge, feedback)  # those of a run that was interrupted after its last round
    errors = {name: reason_of(error) for name, error in failed.items()}
    judged = journal.judged()
    rows = [
        FormatRow(each, judged.get(each.format.name), figures(rounds, each.format.name, REFERENCE_FORMAT), errors.get(each.format.name))
        for each in made
    ]
    return _compared(request, rows, spec, dataset)


def _weights(request: CompareRequest) -> Path | None:
    """The file of --weights. Raises UsageError for more than one."""
    if len(request.weights) > 1:
        raise UsageError("--formats takes the weights of one model: give --weights once.")
    return Path(request.weights[0]) if request.weights else None


def _check_plans(request: CompareRequest) -> None:
    """Raises OutputError if a plan or the stamped model cannot be written, or would replace another file."""
    assert request.model is not None
    planned = [output for each in FORMATS if each.backend is not None for output in plan_outputs(request.output / each.file_name)]
    check_outputs([*planned, Output(request.output / _STAMPED, MODEL)], model_inputs(request.model), folder=request.output)


def _dataset(request: CompareRequest, spec: ModelSpec, feedback: Feedback) -> Dataset | None:
    """The labelled split, if one was named, with something to score in it. Raises DatasetError."""
    if request.dataset is None or request.root is None:
        return None
    dataset = open_dataset(request.dataset, request.root, request.split, ImageReader(say=feedback.say))
    check_classes(spec, dataset)
    check_census(dataset, take_census(dataset, progress=feedback.progress), "score", one_class=True)
    return dataset


def _ranges(request: CompareRequest, spec: ModelSpec, feedback: Feedback) -> Ranges | DeployError:
    """The INT8 ranges, found or measured; or why there are none, which the formats that need them will say."""

    def measure(images: Path) -> Ranges:
        assert request.model is not None
        reader = ImageReader(say=feedback.say)
        return calibrate_file(
            CalibrateRequest(request.model, images, reader=reader, threads=request.threads, external=request.external), feedback
        )

    try:
        return pick_ranges(request.ranges, spec, measure, feedback.say)
    except DeployError as error:
        if is_interrupted(error):
            raise
        return error


def _identity(
    request: CompareRequest,
    model: ir.Model,
    spec: ModelSpec,
    weights: Path | None,
    ranges: Ranges | DeployError,
    dataset: Dataset | None,
) -> dict[str, Any]:
    """What the checks and the rounds depend on."""
    machine = environment()
    return {
        "command": "compare",
        "formats": [each.name for each in FORMATS],
        "model": sha256(serialize_model(model)),  # with the size that --input gave it, which its file does not hold
        "preprocessing": preprocessing(spec),
        "weights": None if weights is None else sha256_of(weights, WeightsError, "weights"),
        "ranges": None if isinstance(ranges, DeployError) else ranges_hash(ranges),
        "dataset": None if dataset is None else [dataset.name, dataset.split, dataset.content_hash()],
        "machine": [machine["cpu"], machine["cpu_features"], machine["cores_usable"], machine["gpus"]],
        "packages": machine["packages"],
        "threads": request.threads,
        "device": request.device,
        "seconds": request.seconds,
    }


def _make(maker: Maker, number: int, feedback: Feedback) -> Made:
    each = FORMATS[number]
    feedback.progress(f"make {each.name}", number, len(FORMATS))
    return maker.make(each, lambda phase, done, total: feedback.progress(f"{each.name}: {phase}", done, total))


def _check_of(request: CompareRequest, model: ir.Model, spec: ModelSpec) -> Check:
    """What the processes are to check with. A model from elsewhere is written beside the plans with all that was said about it."""
    assert request.model is not None
    path = request.model
    if load_stamped(path) is None:
        stamped = clone(model)
        stamp_spec(stamped, spec)
        path = request.output / _STAMPED
        write_atomic(path, serialize_model(stamped))
    if request.dataset is None or request.root is None:
        return Check(str(path))
    return Check(str(path), Labelled(request.dataset, str(request.root), request.split))


def _judge_late(contestants: Sequence[Contestant], judge: Callable[[Process], None], feedback: Feedback) -> dict[str, DeployError]:
    """Checks contestants in new processes; returns why some failed, by name."""
    errors: dict[str, DeployError] = {}
    for number, contestant in enumerate(contestants):
        feedback.progress(f"check {contestant.name}", number, len(contestants))
        try:
            with Process(contestant, _ANY_FRAME) as process:
                judge(process)
        except DeployError as error:
            errors[contestant.name] = error
    return errors


#: A check brings frames of its own; that of a measurement is not used.
_ANY_FRAME = (8, 8)


def _compared(request: CompareRequest, rows: Sequence[FormatRow], spec: ModelSpec, dataset: Dataset | None) -> Compared:
    what = f"{spec.name} at {spec.size[0]}x{spec.size[1]}"
    facts: Mapping[str, Any] = {
        "version": 1,
        "compared": "formats",
        "model": {"name": spec.name, "file": printable(str(request.model)), "input": list(spec.size)},
        "frame": list(spec.frame_size),
        "reference": REFERENCE_FORMAT,
        "rounds": request.rounds,
        "seconds": request.seconds,
        "threads": request.threads,
        "dataset": None if dataset is None else {"name": dataset.name, "split": dataset.split, "frames": len(dataset)},
        "rows": [row.to_json() for row in rows],
        "environment": environment(),
    }
    where = "" if dataset is None else f" on {dataset.name} {dataset.split}"
    axes = (f"frames a second here, the engine alone, {what}", f"mIoU{where}, %")
    return Compared(f"Formats of {what}", tables(rows), facts, _notes(rows), points(rows), axes)


def _notes(rows: Sequence[FormatRow]) -> tuple[str, ...]:
    """What a reader must know before comparing."""
    engines = notes_on_engines((row.made.format.name, note) for row in rows for note in row.notes)
    return (*engines, *notes_on_measuring({row.made.format.name: row.figures for row in rows if row.figures is not None}))
