"""A training log -> one SVG picture: loss and learning rate above, mean IoU of every check below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomic

_WIDTH, _HEIGHT, _LEFT, _RIGHT = 760, 200, 60, 60
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
Points = Sequence[tuple[float, float]]


def plot_log(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the picture, whole or not at all. Raises OutputError."""
    steps = [record for record in records if record["kind"] == "step"]
    checks: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        if record["kind"] == "scores":
            for split, values in record["scores"].items():
                checks.setdefault(split, []).append((record["step"], 100 * (values["miou"] or 0.0)))
    end = max([float(record["step"]) for record in records] + [1.0])
    losses = _smooth([(record["step"], record["loss"]) for record in steps])
    rates = [(record["step"], record["lr"]) for record in steps]
    body = [
        _panel(30, {"loss": losses}, end, _COLOURS, "left"),
        _panel(30, {"learning rate": rates}, end, _COLOURS[3:], "right"),
        _panel(30 + _HEIGHT + 60, {f"mIoU {split}": points for split, points in checks.items()}, end, _COLOURS, "left"),
        f'<text x="{_LEFT}" y="{2 * _HEIGHT + 118}">0</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{2 * _HEIGHT + 118}" text-anchor="end">step {end:.0f}</text>',
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{2 * _HEIGHT + 130}" font-family="sans-serif" font-size="12">'
    write_atomic(path, "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *body, "</svg>\n"]).encode())


def _panel(top: int, curves: Mapping[str, Points], end: float, colours: Sequence[str], side: str) -> str:
    """One frame with its curves and the bounds of its vertical axis, which begins at zero."""
    highest = max([value for points in curves.values() for _, value in points] + [1e-9])
    edge, anchor = (_LEFT - 6, "end") if side == "left" else (_WIDTH - _RIGHT + 6, "start")
    parts = [
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT}" fill="none" stroke="#ccc"/>',
        f'<text x="{edge}" y="{top + 10}" text-anchor="{anchor}">{highest:.3g}</text>',
        f'<text x="{edge}" y="{top + _HEIGHT}" text-anchor="{anchor}">0</text>',
    ]
    for number, ((title, points), colour) in enumerate(zip(curves.items(), colours, strict=False)):
        line = " ".join(f"{_across(x, end):.1f},{top + _HEIGHT * (1 - y / highest):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        x = _LEFT + 8 + 130 * number if side == "left" else _WIDTH - _RIGHT - 8
        parts.append(f'<text x="{x}" y="{top - 8}" fill="{colour}" text-anchor="{"start" if side == "left" else "end"}">{title}</text>')
    return "\n".join(parts)


def _across(step: float, end: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / end


def _smooth(points: Points, share: float = 0.1) -> list[tuple[float, float]]:
    """An exponential moving average, so that the trend shows through the noise of single batches."""
    smooth: list[tuple[float, float]] = []
    for x, y in points:
        smooth.append((x, y if not smooth else smooth[-1][1] + share * (y - smooth[-1][1])))
    return smooth
