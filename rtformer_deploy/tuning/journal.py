"""The journal of a tune run: formats.journal, with the records that tune writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..formats import journal
from .records import Record, Round, Score, Sensitivity, parse_record


class Journal(journal.Journal[Record]):
    """The measurements in the file `path`, oldest first: see `formats.journal.Journal`, also for the errors."""

    def __init__(self, path: Path, identity: Mapping[str, Any], resume: bool) -> None:
        super().__init__(path, identity, resume, parse_record, "a tune run")

    def sensitivities(self) -> list[Sensitivity]:
        return [record for record in self.records if isinstance(record, Sensitivity)]

    def scores(self) -> list[Score]:
        return [record for record in self.records if isinstance(record, Score)]

    def rounds(self) -> list[Round]:
        return [record for record in self.records if isinstance(record, Round)]
