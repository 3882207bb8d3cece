"""What `doctor --json` found on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..blocks import Block, Cell, Document, Heading, Part, Table, short


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    group: str
    name: str
    state: str
    detail: str = ""
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Checkup:
    """A report of `doctor`."""

    checks: tuple[Check, ...]


def section(documents: Sequence[Document[Checkup]]) -> Part:
    """Reports -> a table each."""
    blocks: list[Block] = []
    for document in documents:
        rows: list[list[Cell]] = [
            [short(each.name), short(each.group), each.state, short(each.detail), short(each.fix or "")]
            for each in document.data.checks[:500]
        ]
        blocks += [Heading(document.name), Table("Checks of the machine", ("what", "group", "state", "detail", "to fix it"), rows)]
    return Part("Machine check", blocks)
