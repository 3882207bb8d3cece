"""What a reader of a comparison must know, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..timing.bench import STEPS_FOR_P99, native_notes
from .figures import Figures


def notes_on_measuring(measured: Mapping[str, Figures]) -> list[str]:
    """The figures of those that ran -> who ran too few steps, and that the compiled code is missing, if it is."""
    few = [name for name, each in measured.items() if each.engine.steps < STEPS_FOR_P99]
    said = f"Fewer than {STEPS_FOR_P99} steps: the p99 of {', '.join(few)} is little more than the slowest. Measure longer."
    return [*([said] if few else []), *native_notes()]


def notes_on_engines(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Pairs of an engine's name and a note -> a line for each note, with the names of those that have it."""
    names: dict[str, list[str]] = {}
    for name, note in notes:
        names.setdefault(note, []).append(name)
    return [f"{', '.join(owners)}: {note}" for note, owners in names.items()]
