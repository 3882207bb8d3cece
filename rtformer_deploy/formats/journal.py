"""The measurements of a run, one JSON record per line. Each is on disk before the next starts, so a killed run can go on."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ..errors import OutputError, UsageError
from ..files import RECORD_BYTES, read_text, write_atomic
from .documents import DocumentError, parse_json

_ANOTHER = "Choose another folder with --output, or delete it."


class Written(Protocol):
    """What a journal holds: a record that knows its JSON object, which has a "kind"."""

    def to_json(self) -> dict[str, Any]: ...


Entry = TypeVar("Entry", bound=Written)


class Journal(Generic[Entry]):
    """The records in the file `path`, oldest first. Its first line is the run's identity; a file of another identity is refused."""

    def __init__(
        self, path: Path, identity: Mapping[str, Any], resume: bool, parse: Callable[[Mapping[str, Any]], Entry], run: str
    ) -> None:
        """`parse` makes a record of its JSON object, or raises DocumentError; `run` is what messages call the run: "a tune run".

        Raises UsageError if there is a journal and `resume` is false, or it belongs to another run. Raises OutputError.
        """
        self.path = path
        self.records: list[Entry] = []
        if not resume:
            refuse_overwriting(path)
        lines = _read(path, run) if os.path.isfile(path) else []
        if lines:
            _check(path, lines[0], identity, run)
            self.records = [_record(path, line, parse, run) for line in lines[1:]]
        whole = [{"kind": "run", "identity": dict(identity)}, *lines[1:]]
        write_atomic(path, "".join(_line(data) for data in whole).encode())  # this drops a line that a kill cut short

    def add(self, record: Entry) -> None:
        """Appends a record and waits until it is on the disk. Raises OutputError."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(record.to_json()))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        self.records.append(record)


def refuse_overwriting(path: Path) -> None:
    """Raises UsageError if a run has left its journal."""
    if os.path.exists(path):
        raise UsageError(f"{path.parent} holds a run already.", "Go on with it (--resume), or choose another folder with --output.")


def _check(path: Path, first: Mapping[str, Any], identity: Mapping[str, Any], run: str) -> None:
    earlier = first.get("identity") if first.get("kind") == "run" else None
    if not isinstance(earlier, dict):
        raise _no_journal(path, run)
    if earlier.keys() != identity.keys():
        raise UsageError(f"{path} was written by another version of rtformer-deploy, which kept other facts about a run.", _ANOTHER)
    changed_keys = [key.replace("_", " ") for key in identity if earlier[key] != identity[key]]
    if changed_keys:
        raise UsageError(f"{path} belongs to another run: {', '.join(changed_keys)} differ.", _ANOTHER)


def _record(path: Path, data: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], Entry], run: str) -> Entry:
    try:
        return parse(data)
    except DocumentError as error:
        raise _no_journal(path, run, str(error)) from error


def _read(path: Path, run: str) -> list[dict[str, Any]]:
    """The whole lines of a file; a kill cut the first broken one short, so nothing follows it."""
    lines: list[dict[str, Any]] = []
    text = read_text(path, OutputError, f"the state of {run}", RECORD_BYTES, errors="replace")
    for line in io.StringIO(text, newline="\n"):  # splitlines() would also cut at characters that a name may hold
        try:
            data = parse_json(line, RECORD_BYTES) if line.endswith("\n") else None
        except DocumentError:
            data = None
        if not isinstance(data, dict) or "kind" not in data:
            if lines:
                break
            raise _no_journal(path, run)
        lines.append(data)
    return lines


def _no_journal(path: Path, run: str, why: str = "") -> UsageError:
    return UsageError(f"{path} is not the state of {run}{why and f' ({why})'}.", "Choose another folder with --output.")


def _line(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False) + "\n"
