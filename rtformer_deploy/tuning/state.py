"""What a tune run has measured, one JSON record a line, each on disk before the next is begun: a killed run goes on from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError, UsageError
from ..files import RECORD_BYTES, read_text, write_atomic

Record = dict[str, Any]


class State:
    """Records in the file `path`. The first one is the run's identity; a file of another identity is refused."""

    def __init__(self, path: Path, identity: Mapping[str, Any], resume: bool) -> None:
        """Raises UsageError where there is a state and `resume` is not asked for, or it belongs to another run; OutputError."""
        self.path = path
        self.records: list[Record] = []
        if not resume:
            refuse_overwriting(path)
        held = _read(path) if path.is_file() else []
        if held:
            _check(path, held[0], identity)
            self.records = held[1:]
        lines = [{"kind": "run", "identity": dict(identity)}, *self.records]
        write_atomic(path, "".join(_line(record) for record in lines).encode())  # and a line that a kill cut short is gone

    def add(self, record: Record) -> None:
        """Appends a record and waits until it is on the disk. Raises OutputError."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        self.records.append(record)

    def of(self, kind: str) -> Iterator[Record]:
        """The records of one kind, oldest first."""
        return (record for record in self.records if record["kind"] == kind)


def refuse_overwriting(path: Path) -> None:
    """Raises UsageError where a run has left its state."""
    if path.exists():
        raise UsageError(f"{path.parent} holds a run already.", "Go on with it (--resume), or choose another folder with --output.")


def _check(path: Path, first: Record, identity: Mapping[str, Any]) -> None:
    held = first.get("identity") if first.get("kind") == "run" else None
    if not isinstance(held, dict):
        raise UsageError(f"{path} is not the state of a tune run.", "Choose another folder with --output.")
    other = [key for key in {**held, **identity} if held.get(key) != identity.get(key)]
    if other:
        raise UsageError(
            f"{path} belongs to another run: {', '.join(key.replace('_', ' ') for key in other)} differ.",
            "Choose another folder with --output, or delete it.",
        )


def _read(path: Path) -> list[Record]:
    """The whole records of a file; what follows a broken line was written by nobody."""
    records: list[Record] = []
    text = read_text(path, OutputError, "the state of a tune run", RECORD_BYTES, errors="replace")
    for line in text.splitlines(keepends=True):
        try:
            record = json.loads(line) if line.endswith("\n") else None
        except ValueError:
            record = None
        if not isinstance(record, dict) or "kind" not in record:
            if records:
                break
            raise UsageError(f"{path} is not the state of a tune run.", "Choose another folder with --output.")
        records.append(record)
    return records


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
