"""What `inspect --json` says about models, engines and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..blocks import Block, Document, Heading, Part, Table, facts, part, short

Description = Mapping[str, Any]


def section(documents: Sequence[Document[Description]]) -> Part:
    """Descriptions -> a table of all of them, and the facts of each."""
    rows = [
        [each.name, short(str(each.data["kind"])), short(_path(each.data)), short(str(each.data["problem"] or ""))] for each in documents
    ]
    return part("Descriptions", documents, _details, Table("What was looked at", ("file", "kind", "of", "problem"), rows))


def _path(data: Description) -> str:
    file = data["file"]
    return str(file.get("path", "")) if isinstance(file, Mapping) else ""


def _details(document: Document[Description]) -> Iterator[Block]:
    yield Heading(document.name)
    for title, value in document.data.items():
        if isinstance(value, Mapping) and value:
            yield facts(value, short(title.replace("_", " ")))
