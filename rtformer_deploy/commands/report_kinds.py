"""The kinds of documents that `report` shows: one row each, with the section of the page that shows it. Importing this loads matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..formats import engine_file, ranges
from ..formats.conversion import VERSION, convert, split_version
from ..formats.documents import DocumentError
from ..formats.engine_info import check_info
from ..pictures.blocks import Document, Part
from ..pictures.sections import areas, bench, checkup, comparison, description, engines, flicker, profile, scores, tuning, verification
from ..pictures.sections import ranges as ranges_section
from ..types import EngineInfo
from . import kinds
from .kinds import Kind, is_document

T = TypeVar("T")


def _no_check(data: object) -> None:
    """Nothing is left to check once a document has its type."""


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """A kind of document: the `type` of what is read of it, how that is checked, the section that shows it, the `newest` version."""

    kind: Kind
    type: type[T]
    section: Callable[[Sequence[Document[T]]], Part]
    check: Callable[[T], None] = field(default=_no_check)
    newest: int = 1

    def read(self, data: Mapping[str, Any]) -> T:
        """A JSON object of the kind -> what is shown of it. Raises DocumentError if it is damaged, or of a newer version."""
        version, values = split_version(data)
        if version > self.newest:
            raise DocumentError(
                f"it is {self.kind.name} of {VERSION} {version}, and only {self.newest} is known: install a newer rtformer-deploy"
            )
        try:
            value = convert(values, self.type)
            self.check(value)
        except DocumentError as error:
            raise DocumentError(f"it looks like {self.kind.name}, but {error}") from error
        return value


#: In the order in which they stand on the page. A new kind is one module in pictures/sections and one row here.
ROWS: tuple[Row[Any], ...] = (
    Row(kinds.SCORES, scores.Scores, scores.section, scores.check),
    Row(kinds.BENCH, bench.Bench, bench.section),
    Row(kinds.PROFILE, profile.Profile, profile.section),
    Row(kinds.COMPARED, comparison.Comparison, comparison.section, comparison.check),
    Row(kinds.TUNING, tuning.Tuning, tuning.section),
    Row(kinds.COMPARISON, verification.Verification, verification.section),
    Row(kinds.SIDECAR, EngineInfo, engines.section, check_info, engine_file.NEWEST),
    Row(kinds.RANGES, ranges_section.Ranges, ranges_section.section, newest=ranges.VERSION),
    Row(kinds.FLICKER, flicker.Flicker, flicker.section),
    Row(kinds.AREA_DOCUMENT, areas.Areas, areas.section),
    Row(kinds.DESCRIPTION, dict, description.section),
    Row(kinds.CHECKUP, checkup.Checkup, checkup.section),
)

#: Documents of ours that a page would show nothing of.
NOT_SHOWN = (kinds.COCO_DOCUMENT,)


def row_of(data: Mapping[str, Any]) -> Row[Any]:
    """A JSON object -> the row of its kind. Raises DocumentError if it is not ours, or nothing of it is shown."""
    row = next((row for row in ROWS if is_document(row.kind, data)), None)
    if row is not None:
        return row
    kind = next((kind for kind in NOT_SHOWN if is_document(kind, data)), None)
    raise DocumentError("it is no report of rtformer-deploy" if kind is None else f"it is {kind.name}, of which a page shows nothing")
