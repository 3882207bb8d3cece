"""The measurements of a tune run, and their form in the journal: a JSON object with its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from ..formats.conversion import convert
from ..formats.documents import DocumentError
from ..types import Share, Text
from .search import Level, Mix

Milliseconds = Annotated[float, Meta(gt=0, le=1e9)]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The error of one block alone at a level, the others higher: see `measure.Error`. `error` is None if the engine gives labels."""

    block: Text
    level: Level
    error: Annotated[float, Meta(ge=0)] | None
    flips: Share

    @property
    def rank(self) -> float:
        """The number that blocks are ordered by: the logits' error, or the share of changed pixels if there are only labels."""
        return self.flips if self.error is None else self.error

    def to_json(self) -> dict[str, Any]:
        return {"kind": "error", "block": self.block, "level": self.level, "error": self.error, "flips": self.flips}


@dataclass(frozen=True, slots=True)
class Score:
    """The mIoU of a mix, 0 to 1, over the whole split; `key` is `points.key_of(mix)`."""

    key: Text
    name: Text
    mix: Mix
    miou: Share

    def to_json(self) -> dict[str, Any]:
        return {"kind": "point", "key": self.key, "name": self.name, "levels": self.mix, "miou": self.miou}


@dataclass(frozen=True, slots=True)
class Latency:
    """Medians in ms: the engine alone, and end to end."""

    engine: Milliseconds
    end_to_end: Milliseconds


@dataclass(frozen=True, slots=True)
class Round:
    """One round of latencies: every mix that was scored by then (its key), timed right after one another."""

    latencies: Mapping[str, Latency]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "round", "latencies": {key: [each.engine, each.end_to_end] for key, each in self.latencies.items()}}


Record = Sensitivity | Score | Round


@dataclass(frozen=True, slots=True)
class _Point:
    """A Score as the journal writes it."""

    key: Text
    name: Text
    levels: Mix
    miou: Share


@dataclass(frozen=True, slots=True)
class _Round:
    """A Round as the journal writes it."""

    latencies: Mapping[str, tuple[Milliseconds, Milliseconds]]


def parse_record(data: Mapping[str, Any]) -> Record:
    """A JSON object of the journal -> its record. Raises DocumentError if it is not one."""
    kind = data.get("kind")
    if kind == "error":
        return convert(data, Sensitivity)
    if kind == "point":
        point = convert(data, _Point)
        return Score(point.key, point.name, dict(point.levels), point.miou)
    if kind == "round":
        return Round({key: Latency(*values) for key, values in convert(data, _Round).latencies.items()})
    raise DocumentError("it is of no known kind")
