"""What commands print with: tables on stdout that fit 80 columns, a progress bar on stderr that leaves nothing behind.

rich is imported when something is shown, so that --help stays quick.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..types import Feedback, no_progress
from .terminal import echo, escape_json, is_terminal, write

if TYPE_CHECKING:
    from rich.console import Console, Group

    from ..types import Progress


def console() -> Console:
    """A console for stdout; 80 columns wide if stdout is not a terminal, so that a file looks like the screen."""
    from .safe_console import SafeConsole

    return SafeConsole(width=None if is_terminal(sys.stdout) else 80)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> Group:
    """A title and a plain table under it: columns with an index in `right` are right-aligned, and text is escaped and never read as markup.

    Two columns with 14 and 64 characters, a name and a SHA-256, fit 80.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    from .safe_console import safe_text

    numbers, headed = set(right), any(columns)
    body = Table(box=SIMPLE_HEAD if headed else None, padding=(0, 2, 0, 0), pad_edge=False, show_header=headed, show_edge=False)
    for index, column in enumerate(columns):
        body.add_column(safe_text(column), justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        body.add_row(*map(safe_text, row))
    return Group(safe_text(title, "bold"), body, "") if title else Group(body, "")


def sections(facts: Mapping[str, Any]) -> Iterator[Group]:
    """Nested facts as a two-column table for each section; values that are not mappings go into the first table."""
    top = {key: value for key, value in facts.items() if not isinstance(value, Mapping)}
    if top:
        yield table("", ("", ""), ((words(key), text(value)) for key, value in top.items()))
    for title, section in facts.items():
        if isinstance(section, Mapping) and section:
            yield table(words(title), ("", ""), ((words(key), text(value)) for key, value in section.items()))


def words(key: str) -> str:
    """A JSON key as it is shown: plan_sha256 -> plan sha256."""
    return key.replace("_", " ")


def text(value: Any) -> str:
    """A JSON value in one line."""
    if value is None or value in ({}, [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return str(value)


def print_json(data: Any) -> None:
    """Any JSON value, indented, on stdout."""
    write(escape_json(json.dumps(data, indent=2, ensure_ascii=False)))


@contextlib.contextmanager
def feedback() -> Iterator[Feedback]:
    """Lines on stdout, and a `progress_bar`."""
    with progress_bar() as progress:
        yield Feedback(echo, progress)


@contextlib.contextmanager
def status_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """A callback for (text, done, total), which draws a bar on stderr as `progress_bar` does; the text may change with every call."""
    if not sys.stderr.isatty():
        yield lambda text, done, total: None
        return
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from .safe_console import SafeConsole

    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    terminal = sys.stdout.isatty()
    with Progress(*columns, console=SafeConsole(stderr=True), transient=True, auto_refresh=False, redirect_stdout=terminal) as bar:
        task, drawn_at = bar.add_task("", total=None), float("-inf")

        def update(text: str, done: int, total: int | None) -> None:
            nonlocal drawn_at
            if time.monotonic() - drawn_at >= 0.25:
                bar.update(task, description=text, completed=done, total=total, refresh=True)
                drawn_at = time.monotonic()

        yield update


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A Progress callback that draws one bar on stderr; it draws nothing if stderr is not a terminal.

    The bar is drawn only when the callback is called and at most four times a second: no thread of its own disturbs a measurement.
    """
    if not is_terminal(sys.stderr):
        yield no_progress
        return
    import time

    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from .safe_console import SafeConsole

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    terminal = is_terminal(sys.stdout)  # rich may redirect stdout only on a terminal; a pipe must get the printed text unchanged
    with Progress(*columns, console=SafeConsole(stderr=True), transient=True, auto_refresh=False, redirect_stdout=terminal) as bar:
        task = bar.add_task("", total=None)
        drawn_at, drawn_phase = float("-inf"), ""

        def update(phase: str, done: int, total: int) -> None:
            nonlocal drawn_at, drawn_phase
            now = time.monotonic()
            if phase != drawn_phase:
                bar.reset(task, description=phase)
            if phase != drawn_phase or now - drawn_at >= 0.25:
                bar.update(task, completed=done, total=total, refresh=True)
                drawn_at, drawn_phase = now, phase

        yield update
