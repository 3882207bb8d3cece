"""A Report to one self-contained HTML page: figures, two latency histograms as SVG, environment. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ..nvidia.nvml import gpu_rows
from ..timing.report import Report, Timing, histogram

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 28, 34

_STYLE = """
:root { color-scheme: light dark; --back: #fbfbf9; --ink: #1d2326; --soft: #5c666b; --line: #d8dcdc; --bar: #2f6f8f; --mark: #b4531f; }
@media (prefers-color-scheme: dark) {
  :root { --back: #15191b; --ink: #e6eaeb; --soft: #9aa5aa; --line: #343c40; --bar: #6fb3d2; --mark: #f0a06c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 46rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; }
.soft, figcaption, th { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 500; }
.figures td, .figures thead th + th { text-align: right; }
.figures td { white-space: nowrap; }
.facts th { width: 34%; }
.scroll { overflow-x: auto; }
figure { margin: .5rem 0 1.5rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .mark { fill: var(--mark); }
.bar { fill: var(--bar); }
.axis { stroke: var(--line); }
.percentile { stroke: var(--mark); stroke-dasharray: 3 3; }
li { margin: .25rem 0; }
@media (max-width: 30rem) { body { font-size: 15px; } th, td { padding: .3rem .25rem; } svg text { font-size: 17px; } }
"""


def render(report: Report) -> str:
    """The page as text."""
    title = f"{report.model['name']}: {report.end_to_end.fps:.1f} frames a second, end to end"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_subtitle(report))}</p>',
        "<h2>Latency and throughput</h2>",
        _figures(report),
        "<h2>How latencies are spread</h2>",
        '<p class="soft">How many steps took how long; the dashed lines are p50 and p99.</p>',
        _figure("Engine only", report.engine),
        _figure("End to end", report.end_to_end),
    ]
    if report.stages:
        parts += ["<h2>Stages, median of a step</h2>", _facts({name: f"{value:.2f} ms" for name, value in report.stages.items()})]
    if report.paced is not None:
        lead = f'<p class="soft">A frame was due every {1000 / report.paced.fps:.2f} ms; its latency counts from then.</p>'
        parts += ["<h2>Paced</h2>", lead, _facts(dict(report.paced.rows()))]
    if report.gpu is not None:
        rows = {name: f"{low}, {middle}, {high}" for name, low, middle, high in gpu_rows(report.gpu)}
        parts += ["<h2>GPU meanwhile: lowest, median, highest</h2>", _facts(rows)]
    if report.notes:
        parts += ["<h2>Notes</h2>", "<ul>", *(f"<li>{escape(note)}</li>" for note in report.notes), "</ul>"]
    parts += ["<h2>What was measured</h2>", _facts(_measured(report))]
    parts += ["<h2>Environment</h2>", _facts(report.environment)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _subtitle(report: Report) -> str:
    height, width = report.model["input"]
    frames = "one frame a step" if report.batch == 1 else f"{report.batch} frames a step"
    lanes = "" if report.lanes == 1 else f", {report.lanes} lanes"
    return f"Input {height}x{width}, {frames}{lanes}, {report.mode} mode, on {report.environment['cpu']}"


def _figures(report: Report) -> str:
    columns = [("Engine only", report.engine), ("End to end", report.end_to_end)]
    if report.engine_without_copies is not None:
        columns.insert(1, ("Without copies", report.engine_without_copies))
    rows = [
        ("p50", *(f"{timing.percentile(50):.2f} ms" for _, timing in columns)),
        ("p90", *(f"{timing.percentile(90):.2f} ms" for _, timing in columns)),
        ("p99", *(f"{timing.percentile(99):.2f} ms" for _, timing in columns)),
        ("mean", *(f"{timing.mean_ms:.2f} ms" for _, timing in columns)),
        ("frames a second", *(f"{timing.fps:.1f}" for _, timing in columns)),
        ("steps measured", *(str(len(timing.latencies_ms)) for _, timing in columns)),
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", *(name for name, _ in columns)))
    return f'<div class="scroll"><table class="figures"><thead><tr>{head}</tr></thead><tbody>{_rows(rows)}</tbody></table></div>'


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )


def _facts(facts: Mapping[str, Any]) -> str:
    """What is known of `facts` as a table of two columns."""
    rows = ((key.replace("_", " "), _text(value)) for key, value in facts.items() if value is not None)
    return f'<table class="facts"><tbody>{_rows(rows)}</tbody></table>'


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


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return "-" if value is None else str(value)


def _figure(name: str, timing: Timing) -> str:
    """One histogram with its p50 and p99 drawn in, and a caption that says in words what it shows."""
    data = histogram(timing.latencies_ms)
    words = f"{name}: median {timing.percentile(50):.2f} ms, 99% of the steps under {timing.percentile(99):.2f} ms."
    if data["beyond"]:
        words += f" {data['beyond']} slower than the axis, the slowest {max(timing.latencies_ms):.2f} ms."
    marks = (("p50", timing.percentile(50)), ("p99", timing.percentile(99)))
    return f"<figure>{_histogram_svg(data, words, marks)}<figcaption>{escape(words)}</figcaption></figure>"


def _histogram_svg(data: Mapping[str, Any], label: str, marks: Iterable[tuple[str, float]]) -> str:
    counts, start, step = data["counts"], data["start_ms"], data["width_ms"]
    span = step * len(counts)
    tallest = max(counts) or 1
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(value: float) -> float:
        return LEFT + (value - float(start)) / float(span) * wide

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for index, count in enumerate(counts):
        height = count / tallest * high
        left = LEFT + index * wide / len(counts)
        tip = f"<title>{start + index * step:.2f} to {start + (index + 1) * step:.2f} ms: {count}</title>"
        size = f'width="{max(1.0, wide / len(counts) - 1):.2f}" height="{height:.2f}"'
        parts.append(f'<rect class="bar" x="{left:.2f}" y="{TOP + high - height:.2f}" {size}>{tip}</rect>')
    base = TOP + high
    parts.append(f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>')
    parts.append(f'<text x="{LEFT - 6}" y="{TOP + 6}" text-anchor="end" dominant-baseline="middle">{tallest}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{base}" text-anchor="end" dominant-baseline="middle">0</text>')
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        value = start + share * span
        parts.append(f'<text x="{across(value):.2f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{value:.2f} ms</text>')
    parts += [_mark(name, across(value), base) for name, value in marks if start <= value <= start + span]
    return "".join(parts) + "</svg>"


def _mark(name: str, x: float, base: float) -> str:
    """A dashed line with its name, on the side where there is room."""
    anchor = "end" if x > WIDTH * 0.7 else "start"
    line = f'<line class="percentile" x1="{x:.2f}" y1="{TOP - 4}" x2="{x:.2f}" y2="{base}"/>'
    return f'{line}<text class="mark" x="{x:.2f}" y="{TOP - 8}" text-anchor="{anchor}">{name}</text>'
