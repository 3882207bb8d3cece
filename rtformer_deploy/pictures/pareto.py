"""Points -> one SVG picture: mIoU against latency, the Pareto front, the bound, the chosen mix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from ..tuning.points import Point, front

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 30, 60, 60
_GREY, _BLUE, _RED, _GREEN = "#8a8a8a", "#1f77b4", "#d62728", "#2ca02c"


class _Axes:
    """Where a latency (ms) and an mIoU (percent) lie in the picture."""

    def __init__(self, points: Sequence[Point], floor: float) -> None:
        self.across = _bounds([point.latency_ms for point in points])
        self.up = _bounds([*(100 * point.miou for point in points), floor])

    def x(self, latency: float) -> float:
        low, high = self.across
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (latency - low) / (high - low)

    def y(self, miou: float) -> float:
        low, high = self.up
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (miou - low) / (high - low)


def draw_pareto(points: Sequence[Point], chosen: Point | None, max_drop: float, title: str) -> str:
    """Points, the baseline first -> SVG text."""
    floor = 100 * points[0].miou - max_drop
    axes = _Axes(points, floor)
    best = front(points)
    line = " ".join(f"{axes.x(point.latency_ms):.1f},{axes.y(100 * point.miou):.1f}" for point in best)
    bound = axes.y(floor)
    body = [
        *_grid(axes),
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bound:.1f}" y2="{bound:.1f}" stroke="{_RED}" stroke-dasharray="6 4"/>',
        f'<text x="{_WIDTH - _RIGHT - 4}" y="{bound - 5:.1f}" text-anchor="end" fill="{_RED}">FP32 - {max_drop:g} points</text>',
        f'<polyline points="{line}" fill="none" stroke="{_BLUE}" stroke-width="1.5"/>',
        *(_dot(axes, point, point in best, point is chosen) for point in points),
        *_names(axes, points, chosen),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n<text x="{_LEFT}" y="28" font-size="15">{escape(title)}</text>\n'
        f'<text x="{_LEFT}" y="46" fill="{_GREY}">line: Pareto front; green: chosen; latency of the engine alone</text>'
    )
    return "\n".join([head, *body, "</svg>\n"])


def _grid(axes: _Axes) -> Iterable[str]:
    bottom = _HEIGHT - _BOTTOM
    yield f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" height="{bottom - _TOP}" fill="none" stroke="#ccc"/>'
    for value in _ticks(axes.across):
        x = axes.x(value)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" stroke="#eee"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>'
    for value in _ticks(axes.up):
        y = axes.y(value)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    yield f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 16}" text-anchor="middle">latency, ms</text>'
    middle = (_TOP + bottom) / 2
    yield f'<text transform="translate(18 {middle:.0f}) rotate(-90)" text-anchor="middle">mIoU, %</text>'


def _dot(axes: _Axes, point: Point, best: bool, chosen: bool) -> str:
    colour, radius = (_GREEN, 7) if chosen else (_BLUE, 5) if best else (_GREY, 4)
    where = f'cx="{axes.x(point.latency_ms):.1f}" cy="{axes.y(100 * point.miou):.1f}"'
    text = f"{point.name}, {point.in_int8} blocks in INT8: {100 * point.miou:.2f} %, {point.latency_ms:.3g} ms"
    return f'<circle {where} r="{radius}" fill="{colour}"><title>{escape(text)}</title></circle>'


def _names(axes: _Axes, points: Sequence[Point], chosen: Point | None) -> Iterable[str]:
    """Each point's name beside it, where no other name stands yet; the chosen one's and the baseline's always."""
    taken = [(axes.x(point.latency_ms) - 5, axes.y(100 * point.miou) + 5, 10.0, 10.0) for point in points]  # left, bottom, width, height
    for point in sorted(points, key=lambda point: (point is not chosen, point is not points[0])):
        x, y, width = axes.x(point.latency_ms), axes.y(100 * point.miou), 7.0 * len(point.name)
        sides = [x - 10 - width] if x + 10 + width > _WIDTH - _RIGHT else [x + 10, x - 10 - width]
        spots = [(left, y + 4 + shift) for left in sides for shift in (0, -14, 14)]
        free = [spot for spot in spots if not any(_meet((*spot, width, 12), other) for other in taken)]
        if not free and point not in (chosen, points[0]):
            continue
        left, base = (free or spots)[0]
        taken.append((left, base, width, 12))
        weight = ' font-weight="bold"' if point is chosen else ""
        yield f'<text x="{left:.1f}" y="{base:.1f}"{weight}>{escape(point.name)}</text>'


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[0] + other[2] and other[0] < one[0] + one[2] and abs(one[1] - other[1]) < one[3]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """A span with air around the values."""
    low, high = min(values), max(values)
    air = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def _ticks(bounds: tuple[float, float]) -> list[float]:
    """Four to nine round numbers within the bounds."""
    low, high = bounds
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor - raw / power))
    return [round(float(number * step), 10) for number in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
