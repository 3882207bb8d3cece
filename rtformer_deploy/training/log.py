"""The training log: one JSON record a line, flushed as it is written."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..files import RECORD_BYTES, read_text, write_atomic
from ..formats.conversion import convert
from ..formats.documents import DocumentError, parse_json
from ..types import Count, Share, Text


@dataclass(frozen=True, slots=True)
class _Record:
    """What every record holds."""

    kind: Text
    step: Count = 0


@dataclass(frozen=True, slots=True)
class _Step(_Record):
    loss: float = field(kw_only=True)
    lr: float = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class _Split:
    miou: Share | None


@dataclass(frozen=True, slots=True)
class _Scores(_Record):
    scores: Mapping[str, _Split] = field(kw_only=True)


#: What the picture of the log reads, by kind.
_KINDS: Mapping[str, type[_Record]] = {"step": _Step, "scores": _Scores}


class Log:
    """Records in, lines out. A resumed log keeps what it holds; a new one begins empty."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = read_log(path) if resume and os.path.exists(path) else []
        self._began = resume

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends a record with the time of day (UTC). Raises OutputError."""
        entry = {**record, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        try:
            with open(self.path, "a" if self._began else "w", encoding="utf-8") as file:
                file.write(json.dumps(_rounded(entry)) + "\n")
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        self._began = True
        self.records.append(entry)

    def cut(self, step: int) -> None:
        """Drops the records after `step`: a resumed run makes them again."""
        self.records = [record for record in self.records if record.get("step", 0) <= step]
        write_atomic(self.path, "".join(json.dumps(_rounded(record)) + "\n" for record in self.records).encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """A log's records; a last line that was cut short by a kill is dropped. Raises OutputError if another line is no record."""
    records: list[dict[str, Any]] = []
    lines = list(io.StringIO(read_text(path, OutputError, "a training log", RECORD_BYTES), newline="\n"))
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
            convert(record, _KINDS.get(convert(record, _Record).kind, _Record))
        except DocumentError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise OutputError(f"{path} is not a training log: line {number}: {error}.", "Move it away to begin a new one.") from error
        records.append(record)
    return records


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value
