"""`bench`: an engine or model to a table, a JSON file and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, parse

if TYPE_CHECKING:
    from ..timing.report import Report


@click.command("bench")
@click.argument("model", type=options.PATH)
@click.option("--seconds", type=parse.Number(min=0.01), default=10.0, show_default=True, help="Set how long each measurement takes.")
@click.option("--warmup", type=parse.Number(min=0), default=2.0, show_default=True, help="Warm up for so many seconds before them.")
@click.option(
    "--lanes", type=click.IntRange(min=1), default=1, show_default=True, help="Keep N requests in flight; more than 1: throughput mode."
)
@click.option("--graphs/--no-graphs", default=True, show_default=True, help="Run in CUDA graphs if they can be captured (TensorRT).")
@click.option("--fps", type=parse.Number(min=0, min_open=True), metavar="F", help="Run paced too: a frame is due every 1/F s.")
@click.option(
    "--deadline",
    "deadline_ms",
    type=parse.Number(min=0, min_open=True),
    metavar="MS",
    help="Give each paced frame so many ms [default: 1/F].",
)
@click.option("--image", type=options.PATH, metavar="IMAGE", help="Measure with this picture, at its own size [default: a sample].")
@click.option("--json", "json_path", type=options.PATH, metavar="FILE", help="Write the figures here.")
@click.option("--html", "html_path", type=options.PATH, metavar="FILE", help="Write a page with histograms here.")
@options.reader
@options.external
@options.batch
@options.threads
@options.device
def command(json_path: Path | None, html_path: Path | None, **values: Any) -> None:
    """Measure latency and throughput of MODEL, an engine plan or an ONNX model.

    The engine alone, and the whole way from a decoded frame to a label map.
    """
    from ..commands.bench import BenchRequest, bench_path, check_files
    from ..pictures import HTML, require_report
    from .show import progress_bar

    request = BenchRequest(**values)
    check_files(request, json_path, html_path)
    if html_path is not None:
        require_report("--html", HTML)
    with progress_bar() as progress:
        report = bench_path(request, progress)
    _save(report, json_path, html_path)
    _print(report)


def _save(report: Report, json_path: Path | None, html_path: Path | None) -> None:
    from ..files import json_bytes, write_atomic

    if json_path is not None:
        write_atomic(json_path, json_bytes(report.to_json()))
    if html_path is not None:
        from ..pictures.report import render

        write_atomic(html_path, render(report).encode())


def _print(report: Report) -> None:
    from .show import console, table

    out = console()
    timings = {"engine only": report.engine, "without copies": report.engine_without_copies, "end to end": report.end_to_end}
    columns = [timing for timing in timings.values() if timing is not None]
    names = [name for name, timing in timings.items() if timing is not None]
    rows = [(f"p{share} ms", *(f"{timing.percentile(share):.2f}" for timing in columns)) for share in (50, 90, 99)]
    rows.append(("mean ms", *(f"{timing.mean_ms:.2f}" for timing in columns)))
    rows.append(("frames a second", *(f"{timing.fps:.1f}" for timing in columns)))
    rows.append(("steps", *(str(len(timing.latencies_ms)) for timing in columns)))
    height, width = report.model["input"]
    lanes = "1 lane" if report.lanes == 1 else f"{report.lanes} lanes"
    title = f"{report.model['name']} {height}x{width}, batch {report.batch}, {report.mode} mode, {lanes}"
    out.print(table(title, ("", *names), rows, right=(1, 2, 3)))
    if report.stages:
        whole = sum(report.stages.values())
        stages = ((name, f"{value:.2f}", f"{value / whole:.0%}") for name, value in report.stages.items())
        out.print(table("Stages of end to end, median of a step", ("", "ms", "share"), stages, right=(1, 2)))
    if report.paced is not None:
        out.print(table(f"Paced at {report.paced.fps:g} frames a second", ("", ""), report.paced.rows()))
    if report.gpu is not None:
        from ..nvidia.nvml import gpu_rows

        out.print(table("GPU meanwhile", ("", "min", "median", "max"), gpu_rows(report.gpu), right=(1, 2, 3)))
    for line in _lines(report):
        out.print(line)


def _lines(report: Report) -> list[str]:
    """The lines under the tables."""
    frame = report.frame
    lines = [f"Frame: {frame['height']}x{frame['width']}, {frame['source']}."]
    if report.mixed_cells is not None:
        lines.append(f"Mixed cells (those that need interpolating): {report.mixed_cells:.1%}.")
    if report.peak_memory_mb is not None:
        lines.append(f"Peak memory: {report.peak_memory_mb:.0f} MiB above the process before the engine was opened.")
    lines.append(f"Engine only: {report.conventions['engine']}.")
    if "engine_without_copies" in report.conventions and report.engine_without_copies is not None:
        lines.append(f"Without copies: {report.conventions['engine_without_copies']}.")
    if report.paced is not None:
        lines.append(f"Paced: {report.paced.to_json()['conventions']['queue']}.")
    return lines + [f"Note: {note}" for note in report.notes]
