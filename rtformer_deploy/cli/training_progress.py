"""Shows training records as a progress bar with loss, learning rate, mIoU and time left; plain lines if there is no terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .safe_console import SafeConsole
from .terminal import escape

_READING_LINES = 1000  # labels read between two lines


class Display:
    """A context manager that is called with every record of a training run."""

    def __init__(self, steps: int, console: SafeConsole | None = None) -> None:
        self.console = console or SafeConsole(stderr=True)
        columns = (TextColumn("train"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("", total=steps)
        self.miou = ""

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.progress.stop()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Shows one record."""
        if record["kind"] == "step":
            time_left = f"{record['seconds_left'] / 60:.0f} min left"
            text = f"loss {record['loss']:.3f}  lr {record['lr']:.2e}{self.miou}  {time_left}"
            self.progress.update(self.task, completed=record["step"], description=escape(text))
            if not self.console.is_terminal and record["step"] % 100 == 0:
                self._line(f"step {record['step']}/{record['steps']}  {text}")
        elif record["kind"] in ("scores", "shipped") and record["scores"]:
            self.miou = "  mIoU " + ", ".join(f"{split} {100 * (each['miou'] or 0):.1f}" for split, each in record["scores"].items())
            rounded = " with FP16 weights" if record["kind"] == "shipped" else ""
            self._line(f"step {record['step']}{rounded}:{self.miou}")
        elif record["kind"] == "start":
            frames = ", ".join(f"{split} {count}" for split, count in record["frames"].items())
            self._line(f"{record['recipe']}: frames {frames}; from step {record['step']}")
            if len(record["frames"]) == 1:
                self._line("All of it is trained on, so the run is scored on nothing.")
            for line in record.get("left_out", ()):
                self._line(f"left out: {line}")

    def show_reading(self, phase: str, done: int, total: int) -> None:
        """Shows how far the labels were read; as lines, only if they are many."""
        self.progress.update(self.task, description=f"{phase}: {done:,} of {total:,}")
        if not self.console.is_terminal and done % _READING_LINES == 0:
            self._line(f"{phase}: {done:,} of {total:,} labels")

    def say(self, line: str) -> None:
        """Shows one line for a person."""
        self._line(line)

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)
