"""Latencies -> a histogram as SVG for a page, with the median and the 99th percentile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..timing.report import Timing, histogram
from .style import BLUE, ORANGE, house_style
from .svg import add_axes, embedded, new_figure

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 44, 32, 52  # room for text, which a narrow page makes larger


def draw_histogram(timing: Timing, label: str) -> str:
    """One measurement -> an SVG element that `label` describes in words."""
    data = histogram(timing.latencies_ms)
    marks = {f"p{share}": timing.percentile(share) for share in (50, 99)}
    return draw_counts(data["start_ms"], data["width_ms"], data["counts"], marks, label)


@house_style()
def draw_counts(start: float, step: float, counts: Sequence[int], marks: Mapping[str, float], label: str) -> str:
    """Counts in bins of `step` ms from `start` ms on, and values to mark, the lower one first -> an SVG element."""
    end = start + step * len(counts)
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = add_axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(start, end), ylim=(0, 1.02 * (max(counts) or 1)), xlabel="latency, ms")
    axes.locator_params("x", nbins=6)
    axes.locator_params("y", nbins=3, integer=True)
    tips = {}
    for number, count in enumerate(counts):
        left = start + number * step
        tips[f"bar {number}"] = f"{left:.2f} to {left + step:.2f} ms: {count}"
        axes.bar(left, count, 0.92 * step, align="edge", color=BLUE, gid=f"bar {number}")
    for (name, value), side in zip(marks.items(), ("right", "left"), strict=True):
        if start <= value <= end:
            axes.axvline(value, color=ORANGE, dashes=(3, 3))
            axes.annotate(name, (value, 1), (0, 4), axes.get_xaxis_transform(), "offset points", color=ORANGE, ha=side)
    return embedded(figure, label, tips)
