"""A Report -> one self-contained HTML page: figures, two latency histograms, environment. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..nvidia.nvml import gpu_rows
from ..timing.report import Report, Timing, histogram
from .histogram import draw_histogram
from .page import render_page, rows_of


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence under it if there is something to say first, and a table of names and texts."""

    title: str
    rows: Sequence[tuple[str, str]]
    lead: str = ""


def render(report: Report) -> str:
    """The page as text; report.html says what it looks like."""
    columns = {"Engine only": report.engine, "Without copies": report.engine_without_copies, "End to end": report.end_to_end}
    timings = {name: timing for name, timing in columns.items() if timing is not None}
    captions = {name: _caption(name, timing) for name, timing in timings.items() if name != "Without copies"}
    return render_page(
        "report.html",
        title=f"{report.model['name']}: {report.end_to_end.fps:.1f} frames a second, end to end",
        subtitle=_subtitle(report),
        columns=list(timings),
        figures=_figures(list(timings.values())),
        pictures=[(Markup(draw_histogram(timings[name], caption)), caption) for name, caption in captions.items()],
        results=list(_results(report)),
        notes=report.notes,
        sources=[Section("What was measured", rows_of(_measured(report))), Section("Environment", rows_of(report.environment))],
    )


def _subtitle(report: Report) -> str:
    height, width = report.model["input"]
    frames = "one frame a step" if report.batch == 1 else f"{report.batch} frames a step"
    lanes = "" if report.lanes == 1 else f", {report.lanes} lanes"
    return f"Input {height}x{width}, {frames}{lanes}, {report.mode} mode, on {report.environment['cpu']}"


def _figures(timings: Sequence[Timing]) -> list[list[str]]:
    """Rows of a name and a text for each measurement."""
    return [
        *([f"p{share}", *(f"{timing.percentile(share):.2f} ms" for timing in timings)] for share in (50, 90, 99)),
        ["mean", *(f"{timing.mean_ms:.2f} ms" for timing in timings)],
        ["frames a second", *(f"{timing.fps:.1f}" for timing in timings)],
        ["steps measured", *(str(len(timing.latencies_ms)) for timing in timings)],
    ]


def _caption(name: str, timing: Timing) -> str:
    """A histogram in words."""
    words = f"{name}: median {timing.percentile(50):.2f} ms, 99% of the steps under {timing.percentile(99):.2f} ms."
    beyond = histogram(timing.latencies_ms)["beyond"]
    return words + (f" {beyond} slower than the axis, the slowest {max(timing.latencies_ms):.2f} ms." if beyond else "")


def _results(report: Report) -> Iterator[Section]:
    if report.stages:
        yield Section("Stages, median of a step", [(name, f"{value:.2f} ms") for name, value in report.stages.items()])
    if report.paced is not None:
        lead = f"A frame was due every {1000 / report.paced.fps:.2f} ms; its latency counts from then."
        yield Section("Paced", report.paced.rows(), lead)
    if report.gpu is not None:
        rows = [(name, f"{low}, {middle}, {high}") for name, low, middle, high in gpu_rows(report.gpu)]
        yield Section("GPU meanwhile: lowest, median, highest", rows)


def _measured(report: Report) -> dict[str, Any]:
    facts = {**report.model, "frame": f"{report.frame['height']}x{report.frame['width']}"}
    if "source" in report.frame:
        facts["frame"] += f", {report.frame['source']}"
    facts["input"] = "x".join(str(side) for side in report.model["input"])
    facts["warm_up"] = f"{report.warmup_s:g} s"
    if report.mixed_cells is not None:
        facts["mixed_cells"] = f"{report.mixed_cells:.1%}"
    if report.peak_memory_mb is not None:
        facts["peak_memory"] = f"{report.peak_memory_mb:.0f} MiB above the process before the engine was opened"
    return {**facts, **report.conventions}
