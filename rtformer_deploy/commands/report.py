"""What `report` does with files: every JSON document in a folder that a command wrote, to one page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeployError, ReportError
from ..files import DOCUMENT_BYTES, printable, read_text, write_atomic
from ..formats.documents import DocumentError, parse_json
from ..image.folders import walk
from ..pictures import HTML, require_report
from ..types import Progress, no_progress
from .kinds import PAGE
from .outputs import Output, check_outputs

if TYPE_CHECKING:
    from ..pictures.blocks import Document, Part
    from .report_kinds import Row

_MOST_NAMED = 5  # files that a message names
_MOST_LISTED = 200  # files that the page names


@dataclass(slots=True)
class Found:
    """What a folder holds: its documents by the name of their kind, where they were measured, and why other JSON files are left out."""

    documents: dict[str, list[Document[Any]]] = field(default_factory=dict)
    environments: list[Document[Mapping[str, Any]]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many documents are shown."""
        return sum(map(len, self.documents.values()))

    def summary(self) -> str:
        """What the page holds, without a full stop."""
        one, others = self.count == 1, len(self.left_out)
        listed = "" if not others else f"; {others:,} other JSON {'file is' if others == 1 else 'files are'} listed at the end"
        return f"{self.count:,} {'report' if one else 'reports'} by rtformer-deploy{listed}"


def report_folder(folder: Path, output: Path, progress: Progress = no_progress) -> Found:
    """Reads every JSON document in a folder and its sub-folders, and writes one page of those that commands wrote.

    Documents are known by what they hold, not by their names. Those that cannot be shown are listed at the end of the page. Raises
    ReportError if there is no folder or nothing to show in it, OutputError, MissingPackageError.
    """
    paths = _json_files(folder)
    check_outputs([Output(output, PAGE)], [(folder / path, "itself an input") for path in paths])
    require_report("report", HTML)
    found = _read_all(folder, paths, progress)
    if not found.count:
        raise _nothing(folder, found)
    write_atomic(output, _page(folder, found).encode())
    return found


def _json_files(folder: Path) -> list[Path]:
    """The JSON files in a folder and its sub-folders, relative to it, sorted; hidden ones are left out. Raises ReportError."""
    if not os.path.isdir(folder):
        there = os.path.lexists(folder)
        raise ReportError(
            f"{folder} is not a folder." if there else f"There is no folder {folder}.", "Name the folder that holds the reports."
        )
    try:
        contents = walk(folder)
    except DeployError as error:
        raise ReportError(error.what, error.hint) from error
    return [path for path in contents.files if path.suffix.lower() == ".json"]


def _read_all(folder: Path, paths: Sequence[Path], progress: Progress) -> Found:
    found = Found()
    for done, path in enumerate(paths, 1):
        name = printable(path.as_posix())
        try:
            row, data, document = _read(folder / path)
        except DocumentError as error:
            found.left_out.append((name, str(error)))
        else:
            _add(found, row, name, data, document)
        progress("read", done, len(paths))
    return found


def _read(path: Path) -> tuple[Row[Any], Mapping[str, Any], Any]:
    """A file -> its row, its JSON object, and what is shown of it. Raises DocumentError for any file of which nothing can be shown."""
    from .report_kinds import row_of

    try:
        text = read_text(path, ReportError, "a report", DOCUMENT_BYTES)
    except ReportError as error:
        raise DocumentError(error.what.removeprefix(f"{path} ").removesuffix(".")) from error
    data = parse_json(text, DOCUMENT_BYTES)
    if not isinstance(data, dict):
        raise DocumentError("it is no report of rtformer-deploy")
    row = row_of(data)
    return row, data, row.read(data)


def _add(found: Found, row: Row[Any], name: str, data: Mapping[str, Any], document: Any) -> None:
    from ..pictures.blocks import Document

    found.documents.setdefault(row.kind.name, []).append(Document(name, document))
    environment = data.get("environment")
    if isinstance(environment, dict):
        found.environments.append(Document(name, environment))


def _nothing(folder: Path, found: Found) -> ReportError:
    named = [f"  {name}: {reason}" for name, reason in found.left_out[:_MOST_NAMED]]
    more = len(found.left_out) - len(named)
    details = [*named, f"  and {more:,} more"] if more else named
    hint = "Write one: rtformer-deploy bench engine.plan --json bench.json; evaluate, verify and profile have --json too."
    return ReportError(f"{folder} holds no report of rtformer-deploy.", hint, details=details)


def _page(folder: Path, found: Found) -> str:
    from ..pictures.folder import render_folder

    name = Path(os.path.realpath(folder)).name or "/"
    return render_folder(f"Reports in {printable(name)}", f"{found.summary()}.", list(_parts(found)))


def _parts(found: Found) -> list[Part]:
    from ..pictures.blocks import Lines, Part, Table, short
    from ..pictures.sections import environment
    from .report_kinds import ROWS

    parts = [environment.section(found.environments)] if found.environments else []
    parts += [row.section(found.documents[row.kind.name]) for row in ROWS if row.kind.name in found.documents]
    if found.left_out:
        rows = [(short(name), short(reason)) for name, reason in found.left_out[:_MOST_LISTED]]
        more = len(found.left_out) - len(rows)
        parts.append(
            Part(
                "Left out",
                [Table("JSON files that are not shown", ("file", "why"), rows), *([Lines([f"And {more:,} more."])] if more else [])],
            )
        )
    return parts
