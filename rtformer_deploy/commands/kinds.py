"""The kinds of files that commands write, and how an old one is recognised: a new report may replace an old report, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DeployError, OutputError
from ..files import DOCUMENT_BYTES, RECORD_BYTES, holds, read_text
from ..formats.build_table import TUNED
from ..formats.documents import DocumentError, parse_json
from ..formats.engine_file import sidecar
from ..formats.model_file import SPEC_KEY
from ..formats.safetensors_file import CHECKPOINT_KEY, read_header
from ..image.areas import area_header
from ..image.png import SOFTWARE, is_ours
from ..pictures import PAGE_MARK, SVG_MARK
from ..stream.sinks import JSON_START

_HEAD = 4096  # bytes in which a mark is found


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: its `name` with an article, and whether a file is one. `fits` reads no more than it must and raises nothing."""

    name: str
    fits: Callable[[Path], bool]


@dataclass(frozen=True, slots=True)
class _Document:
    """Whether a file is one JSON object with these keys; `info` is what it says under "info", if it says who wrote it."""

    keys: frozenset[str]
    info: Mapping[str, str] | None = None

    def __call__(self, path: Path) -> bool:
        return self.fits(_object(_text(path)))

    def fits(self, data: Mapping[str, Any]) -> bool:
        return self.keys <= data.keys() and (self.info is None or data.get("info") == self.info)


def _document(*keys: str) -> _Document:
    return _Document(frozenset(keys))


def _answers(*keys: str) -> _Document:
    """A document of segment's answers, with these keys."""
    return _Document(frozenset(keys), {"description": SOFTWARE})


def is_document(kind: Kind, data: Mapping[str, Any]) -> bool:
    """Whether a JSON object that was read already is of a kind."""
    return isinstance(kind.fits, _Document) and kind.fits.fits(data)


def _lines(*keys: str) -> Callable[[Path], bool]:
    """Whether a file's first line is a JSON object with these keys."""
    return lambda path: set(keys) <= _object(_text(path).partition("\n")[0]).keys()


def _state(command: str | None) -> Callable[[Path], bool]:
    """Whether a file is the journal of a command's run; tune's does not say whose it is."""

    def fits(path: Path) -> bool:
        first = _object(_text(path).partition("\n")[0])
        identity = first.get("identity")
        return "kind" in first and isinstance(identity, dict) and identity.get("command") == command

    return fits


def _tensors(key: str) -> Callable[[Path], bool]:
    """Whether a file is safetensors with this key in its metadata."""
    return lambda path: key in _metadata(path)


def _is_our_video(path: Path) -> bool:
    from ..stream.mp4 import is_our_video

    return is_our_video(path)


def _text(path: Path) -> str:
    """A file's text; empty if it cannot be read as text."""
    try:
        return read_text(path, OutputError, "an earlier output", RECORD_BYTES)
    except OutputError:
        return ""


def _object(text: str) -> Mapping[str, Any]:
    """A JSON object; empty for any other text."""
    try:
        data = parse_json(text, DOCUMENT_BYTES) if text.lstrip().startswith("{") else {}
    except DocumentError:
        return {}
    return data if isinstance(data, dict) else {}


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        return read_header(path).metadata
    except DeployError:
        return {}


SIDECAR = Kind("an engine's sidecar", _document("plan_sha256", "spec", "backend"))
PLAN = Kind("an engine plan with its sidecar", lambda path: SIDECAR.fits(sidecar(path)))
MODEL = Kind("a model that rtformer-deploy exported", lambda path: holds(path, b"\x08", SPEC_KEY.encode()))
RANGES = Kind("a ranges file", _document("amax", "method", "images"))
WEIGHTS = Kind("weights that name their recipe", _tensors("recipe"))
CHECKPOINT = Kind("a checkpoint of a training run", _tensors(CHECKPOINT_KEY))
TRAINING_LOG = Kind("the log of a training run", _lines("kind", "time"))
BENCH = Kind("a report of bench", _document("engine", "end_to_end", "environment"))
PROFILE = Kind("a report of profile", _document("whole_ms", "layers", "blocks", "rounds"))
VIDEO = Kind("a video of rtformer-deploy", _is_our_video)
AREAS = Kind("a table of class areas", lambda path: holds(path, area_header().encode(), b""))
ANSWERS = Kind("a document of segment's answers", lambda path: holds(path, JSON_START.encode(), b""))
AREA_DOCUMENT = Kind("a document of segment's class areas", _answers("frames"))
COCO_DOCUMENT = Kind("a document of segment's COCO annotations", _answers("annotations", "images"))
FLICKER = Kind("a report of flicker", _document("threshold", "share", "frames"))
SCORES = Kind("a report of evaluate", _document("miou", "confusion", "classes"))
COMPARISON = Kind("a report of verify", _document("a", "b", "stages", "flips"))
TUNING = Kind("a report of tune", _document("points", "baseline", "max_drop"))
DESCRIPTION = Kind("a description by inspect", _document("kind", "file", "problem"))
CHECKUP = Kind("a report of doctor", _document("checks"))
JOURNAL = Kind("the state of a tune run", _state(None))
COMPARED = Kind("a report of compare", _document("compared", "rows", "environment"))
COMPARE_FACTS = Kind("facts about a plan of compare", _document("key", "plan_sha256", "macs"))
COMPARE_STATE = Kind("the state of a compare run", _state("compare"))
RECIPE = Kind("a recipe that tune wrote", lambda path: holds(path, b"#", TUNED.encode(), _HEAD))
PAGE = Kind("a page that rtformer-deploy wrote", lambda path: holds(path, b"<!doctype html>", PAGE_MARK.encode(), _HEAD))
DRAWING = Kind("an SVG picture that rtformer-deploy drew", lambda path: holds(path, b"<svg", SVG_MARK.encode(), _HEAD))
PICTURE = Kind("a PNG picture that rtformer-deploy wrote", is_ours)
#: Known by its name, which no other file has: one that is damaged is replaced too.
CALIBRATION = Kind("the state of an interrupted calibrate", lambda path: True)

#: Every kind that has a mark of its own. A timing cache is TensorRT's.
KNOWN = (
    PLAN, SIDECAR, MODEL, RANGES, WEIGHTS, CHECKPOINT, TRAINING_LOG, BENCH, PROFILE, SCORES, COMPARISON, COMPARED, TUNING, JOURNAL,
    COMPARE_FACTS, COMPARE_STATE, RECIPE, PAGE, DRAWING, PICTURE,
)  # fmt: skip


def kind_of(path: Path) -> Kind | None:
    """What a regular file is; None if this program did not write it."""
    return next((kind for kind in KNOWN if kind.fits(path)), None)


def _may_be_timings(path: Path) -> bool:
    """Whether TensorRT may know the file as its timing cache, which has no mark of ours: binary, and none of the other kinds."""
    return not _text(path) and kind_of(path) is None


TIMING_CACHE = Kind("a timing cache", _may_be_timings)
