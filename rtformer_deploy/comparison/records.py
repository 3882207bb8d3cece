"""What a comparison measured, as its journal keeps it: a JSON object with its kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..formats import journal
from ..formats.conversion import convert
from ..formats.documents import DocumentError
from ..types import Count, Sha256, Share, Text
from .contestant import Checked, Turn


@dataclass(frozen=True, slots=True)
class Scored:
    """The mIoU of a contestant, 0 to 1, on `frames` frames of a labelled split."""

    name: Text
    miou: Share
    frames: Count

    def to_json(self) -> dict[str, Any]:
        return {"kind": "score", **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class Timed:
    """One round: the turn of each contestant that ran in it, by name."""

    turns: Mapping[Text, Turn]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "round", "turns": {name: dataclasses.asdict(turn) for name, turn in self.turns.items()}}


@dataclass(frozen=True, slots=True)
class Judged:
    """What a contestant's label maps are worth."""

    name: Text
    checked: Checked

    def to_json(self) -> dict[str, Any]:
        return {"kind": "check", **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan that was built for a contestant, by its hash."""

    name: Text
    plan_sha256: Sha256

    def to_json(self) -> dict[str, Any]:
        return {"kind": "plan", **dataclasses.asdict(self)}


Record = Scored | Timed | Judged | Planned
_KINDS: Mapping[str, type[Scored] | type[Timed] | type[Judged] | type[Planned]] = {
    "score": Scored,
    "round": Timed,
    "check": Judged,
    "plan": Planned,
}


def parse_record(data: Mapping[str, Any]) -> Record:
    """A JSON object of the journal -> its record. Raises DocumentError if it is not one."""
    kind = _KINDS.get(str(data.get("kind")))
    if kind is None:
        raise DocumentError("it is of no known kind")
    record: Record = convert({key: value for key, value in data.items() if key != "kind"}, kind)
    return record


class Journal(journal.Journal[Record]):
    """The measurements in the file `path`, oldest first: see `formats.journal.Journal`, also for the errors."""

    def __init__(self, path: Path, identity: Mapping[str, Any], resume: bool) -> None:
        super().__init__(path, identity, resume, parse_record, "a compare run")

    def scores(self) -> dict[str, Scored]:
        """What was scored, by name."""
        return {record.name: record for record in self.records if isinstance(record, Scored)}

    def judged(self) -> dict[str, Checked]:
        """What was found of each that was checked, by name."""
        built = self._built()
        return {
            record.name: record.checked
            for place, record in enumerate(self.records)
            if isinstance(record, Judged) and place > built.get(record.name, -1)
        }

    def plans(self) -> dict[str, str]:
        """The hash of each plan that was built, by name; the newest counts."""
        return {record.name: record.plan_sha256 for record in self.records if isinstance(record, Planned)}

    def rounds(self) -> list[Mapping[str, Turn]]:
        """The rounds in which they were timed, each without the turns of plans that have been built again since."""
        built = self._built()
        return [
            {name: turn for name, turn in record.turns.items() if place > built.get(name, -1)}
            for place, record in enumerate(self.records)
            if isinstance(record, Timed)
        ]

    def _built(self) -> dict[str, int]:
        """Where the newest plan of each stands among the records; what was measured before belongs to another plan."""
        return {record.name: place for place, record in enumerate(self.records) if isinstance(record, Planned)}
