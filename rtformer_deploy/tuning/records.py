"""The measurements of a tune run, and their form in the journal: a JSON object with its kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .search import Level, Mix


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The error of one block alone at a level, the others higher: see `measure.Error`. `error` is None if the engine gives labels."""

    block: str
    level: Level
    error: float | None
    flips: float

    @property
    def rank(self) -> float:
        """The number that blocks are ordered by: the logits' error, or the share of changed pixels if there are only labels."""
        return self.flips if self.error is None else self.error

    def to_json(self) -> dict[str, Any]:
        return {"kind": "error", "block": self.block, "level": self.level, "error": self.error, "flips": self.flips}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["block"], data["level"], data["error"], data["flips"])


@dataclass(frozen=True, slots=True)
class Score:
    """The mIoU of a mix, 0 to 1, over the whole split; `key` is `points.key_of(mix)`."""

    key: str
    name: str
    mix: Mix
    miou: float

    def to_json(self) -> dict[str, Any]:
        return {"kind": "point", "key": self.key, "name": self.name, "levels": self.mix, "miou": self.miou}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(data["key"], data["name"], dict(data["levels"]), data["miou"])


@dataclass(frozen=True, slots=True)
class Latency:
    """Medians in ms: the engine alone, and end to end."""

    engine: float
    end_to_end: float


@dataclass(frozen=True, slots=True)
class Round:
    """One round of latencies: every mix that was scored by then (its key), timed right after one another."""

    latencies: Mapping[str, Latency]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "round", "latencies": {key: [each.engine, each.end_to_end] for key, each in self.latencies.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls({key: Latency(*values) for key, values in data["latencies"].items()})


Record = Sensitivity | Score | Round

_KINDS: Mapping[str, type[Sensitivity] | type[Score] | type[Round]] = {"error": Sensitivity, "point": Score, "round": Round}


def parse_record(data: Mapping[str, Any]) -> Record:
    """A JSON object of the journal -> its record. Raises KeyError, TypeError, ValueError or AttributeError if it is not a record."""
    return _KINDS[data["kind"]].from_json(data)
