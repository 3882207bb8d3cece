"""Engines, by the sidecars that `build-engine` writes beside their plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...types import EngineInfo
from ..blocks import Block, Cell, Document, Heading, Lines, Part, Table, milliseconds, part, percent, short, size


def section(documents: Sequence[Document[EngineInfo]]) -> Part:
    """Sidecars -> a table of all of them, and what each was chosen from and says about itself."""
    return part("Engines", documents, _details, _overview(documents))


def _overview(documents: Sequence[Document[EngineInfo]]) -> Table:
    columns = ("sidecar", "model", "backend", "precision", "found", "input", "batch", "builder", "GPU", "changed pixels, %")
    return Table("What the engines are", columns, [_row(document.name, document.data) for document in documents])


def _row(name: str, info: EngineInfo) -> list[Cell]:
    smallest, _, largest = info.batch
    batch = str(largest) if smallest == largest else f"{smallest} to {largest}"
    precision = info.precision
    told = (short(info.spec.name), short(info.backend), precision.asked.upper(), precision.state)
    return [name, *told, size(*info.spec.size), batch, short(info.builder_version), short(info.gpu or "none"), percent(info.flips, 4)]


def _details(document: Document[EngineInfo]) -> Iterator[Block]:
    info = document.data
    if info.candidates or info.notes:
        yield Heading(document.name)
    if info.candidates:
        rows: list[list[Cell]] = [
            [
                each.precision.upper(),
                None if each.ms is None else milliseconds(each.ms),
                percent(each.flips, 4),
                each.state,
                short(each.why),
            ]
            for each in info.candidates
        ]
        yield Table("What it was chosen from", ("precision", "engine, ms", "changed pixels, %", "state", "why"), rows)
    if info.notes:
        yield Lines([short(note) for note in info.notes[:20]])
