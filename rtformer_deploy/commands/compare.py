"""What `compare` does with files: networks or formats side by side on this machine, to tables, a JSON file, a picture and a page."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..comparison.result import Compared
from ..errors import UsageError
from ..files import json_bytes, remove, write_atomic
from ..formats.external_model import ExternalModel
from ..pictures import HTML, require_report, why_not_drawn
from ..types import Feedback, PrecisionName
from .choices import RangesSource
from .compare_formats import compare_formats
from .compare_suite import compare_suite
from .kinds import COMPARE_STATE, COMPARED, DRAWING, PAGE
from .outputs import Output, check_outputs, file_inputs, model_inputs, outputs

STATE = "compare.state.jsonl"
#: What belongs to --suite alone: field -> option.
_OF_SUITES = {"size": "--size", "add": "--add", "precision": "--fp16 and --int8", "plans": "--plans"}


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What to compare, as on the command line: the networks of a `suite`, or the `formats` of one `model`.

    `seconds` is the time for each contestant in each of the `rounds`. `size` is the frame's (H, W), `add` the user's own models beside the
    suite's, `weights` are "NAME=FILE" in a suite, and one FILE for formats. `dataset`, `root` and `split` are where mIoU is measured.
    `output` is the folder of the run: its measurements, and whatever has no path of its own.
    """

    output: Path
    model: Path | None = None
    suite: str | None = None
    formats: bool = False
    size: tuple[int, int] | None = None
    add: tuple[Path, ...] = ()
    weights: tuple[str, ...] = ()
    backend: str = "auto"
    precision: PrecisionName | None = None
    ranges: RangesSource = field(default_factory=RangesSource)
    dataset: str | None = None
    root: Path | None = None
    split: str = "val"
    rounds: int = 30
    seconds: float = 1.0
    threads: int | None = None
    device: int = 0
    external: ExternalModel = field(default_factory=ExternalModel)
    plans: Path | None = None
    resume: bool = False
    json_path: Path | None = None
    svg_path: Path | None = None
    html_path: Path | None = None

    @property
    def state(self) -> Path:
        """The journal of the run."""
        return self.output / STATE

    @property
    def report(self) -> Path:
        return self.json_path or self.output / "comparison.json"

    @property
    def picture(self) -> Path:
        return self.svg_path or self.output / "comparison.svg"

    @property
    def page(self) -> Path:
        return self.html_path or self.output / "comparison.html"


def compare(request: CompareRequest, feedback: Feedback) -> Compared:
    """Compares, and writes comparison.json, comparison.svg and comparison.html into `request.output`, or where the request says.

    Without the extra `report` the picture and the page are left out, and a line says so. Raises UsageError, OutputError,
    MissingPackageError before the work, and what the comparison itself raises.
    """
    _check_way(request)
    _check_files(request)
    compared = compare_formats(request, feedback) if request.formats else compare_suite(request, feedback)
    _write(request, compared, feedback)
    return compared


def _check_way(request: CompareRequest) -> None:
    """Raises UsageError unless the request is for one of the two comparisons, with the options of that one."""
    if (request.suite is None) != request.formats:
        raise UsageError("Say what to compare: --suite NAME, or MODEL with --formats.")
    if (request.model is None) == request.formats:
        what = "--formats needs a MODEL." if request.formats else "A suite names its networks: leave MODEL out."
        raise UsageError(what, None if request.formats else "Put a model of your own beside them with --add.")
    wrong = [option for name, option in _OF_SUITES.items() if getattr(request, name)] if request.formats else []
    wrong += ["--backend"] * (request.formats and request.backend != "auto")
    if wrong:
        raise UsageError(f"{', '.join(wrong)} cannot be combined with --formats.")
    if (request.dataset is None) != (request.root is None):
        raise UsageError("--dataset and --root belong together.")


def _check_files(request: CompareRequest) -> None:
    """Raises OutputError if a file cannot be written, or would replace one that is not from a comparison."""
    planned = [
        Output(request.state, COMPARE_STATE, updated=True),
        *outputs((request.report, COMPARED), (request.picture, DRAWING), (request.page, PAGE)),
    ]
    models = [path for path in (request.model, *request.add) if path is not None]
    weights = [text if request.formats else text.partition("=")[2] for text in request.weights]
    others = file_inputs(request.dataset, request.ranges.file, request.external.classes, *weights)
    check_outputs(planned, [*model_inputs(*models), *others], folder=request.output)
    if request.svg_path is not None:
        require_report("--svg")
    if request.html_path is not None:
        require_report("--html", HTML)


def _write(request: CompareRequest, compared: Compared, feedback: Feedback) -> None:
    """Writes what was found. What cannot be drawn is said, and an earlier run's is removed."""
    write_atomic(request.report, json_bytes(document(compared)))
    reason = why_not_drawn(request.picture.name)
    if reason is None and compared.points:
        from ..pictures.scatter import draw_scatter

        write_atomic(request.picture, draw_scatter(compared).encode())
    else:
        remove(request.picture)
        feedback.say(reason or f"{request.picture.name} is not drawn: it needs two that ran and have an mIoU, measured or published.")
    reason = why_not_drawn(request.page.name, HTML)
    if reason is None:
        from ..pictures.comparison import render_comparison

        write_atomic(request.page, render_comparison(compared).encode())
    else:
        remove(request.page)
        feedback.say(reason)


def document(compared: Compared) -> dict[str, Any]:
    """What was found as JSON: the facts, and the tables and points as they are shown, so that `report` can show them too."""
    tables, points = ([dataclasses.asdict(each) for each in several] for several in (compared.tables, compared.points))
    told = {"title": compared.title, "notes": list(compared.notes), "tables": tables, "points": points, "axes": list(compared.axes)}
    return {**compared.facts, **told}
