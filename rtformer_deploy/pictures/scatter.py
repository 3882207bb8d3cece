"""A comparison -> an SVG picture: mIoU over frames a second. Where the mIoU is from is part of each mark."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from ..comparison.result import Compared, Point
from .style import BACK, BLUE, GREEN, SOFT, house_style
from .svg import add_axes, add_heading, alone, embedded, new_figure
from .text import clean, shorten_middle

_WIDTH, _HEIGHT = 720, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 32, 52
_NOTE = "speed measured here, lines from the slowest to the fastest round"
_LONGEST = 30  # characters of a name
_MARK = 9
#: Possible places for a point's name: pixels to the right and up, and the horizontal alignment there.
_SPOTS = ((0, 13, "center"), (0, -13, "center"), (11, 0, "left"), (-11, 0, "right"), (9, 16, "left"), (-9, -16, "right"))


@house_style()
def draw_scatter(compared: Compared) -> str:
    """Points -> SVG text. A filled mark has an mIoU that was measured here, a ring one that others published; lines span the rounds."""
    figure = _draw(compared)
    add_heading(figure, compared.title, _NOTE)
    return alone(figure, compared.title, _tips(compared))


@house_style()
def embed_scatter(compared: Compared) -> str:
    """As `draw_scatter`, as an element of a page, which has the title."""
    return embedded(_draw(compared), f"{compared.title}: {_NOTE}", _tips(compared))


def _draw(compared: Compared) -> Figure:
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = add_axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)
    axes.spines[:].set_visible(True)
    axes.grid()
    points = compared.points
    right, up = map(clean, compared.axes)
    axes.set(xlabel=right, xlim=_bounds([value for point in points for value in (point.low_fps, point.high_fps)], 0.0))
    axes.set(ylabel=up, ylim=_bounds([point.miou for point in points], None))
    for number, point in enumerate(points):
        colour = GREEN if point.own else BLUE
        axes.plot([point.low_fps, point.high_fps], [point.miou] * 2, color=colour, linewidth=1.5)
        fill = colour if point.kind == "measured" else BACK
        axes.scatter(point.fps, point.miou, _MARK**2, color=fill, edgecolor=colour, linewidth=2, zorder=3, gid=f"point {number}")
    _write_names(axes, points)
    _draw_legend(axes, points)
    return figure


def _tips(compared: Compared) -> dict[str, str]:
    return {f"point {number}": _tip(point) for number, point in enumerate(compared.points)}


def _tip(point: Point) -> str:
    return f"{point.name}: {point.fps:.3g} frames a second here, mIoU {point.miou:.2f} %, {point.kind}"


def _draw_legend(axes: Axes, points: Sequence[Point]) -> None:
    """What rings and filled marks are, below the picture; a kind that does not occur is left out."""
    words = {"published": "mIoU published by others, at their sizes", "measured": "mIoU measured here"}
    kinds = [kind for kind in words if any(point.kind == kind for point in points)]
    marks = [
        Line2D([], [], linestyle="none", marker="o", markersize=_MARK, markeredgewidth=2, markeredgecolor=SOFT,
               markerfacecolor=SOFT if kind == "measured" else BACK, label=words[kind])
        for kind in kinds
    ]  # fmt: skip
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.5)


def _write_names(axes: Axes, points: Sequence[Point]) -> None:
    """Writes each name at the first place beside its point that is free, or at the first place if none is."""
    frame = axes.get_window_extent()
    centres = axes.transData.transform([(point.fps, point.miou) for point in points])
    boxes = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in centres.tolist()]
    for point in points:
        text = axes.annotate(shorten_middle(clean(point.name), _LONGEST), (point.fps, point.miou), (0, 0), textcoords="offset points")
        text.set(va="center", weight="bold" if point.own else "normal")
        for right, up, side in (*_SPOTS, _SPOTS[0]):
            text.set(position=(right, up), ha=side)
            box = text.get_window_extent()
            if frame.x0 <= box.x0 and box.x1 <= frame.x1 and not box.count_overlaps(boxes):
                break
        boxes.append(text.get_window_extent())


def _bounds(values: Sequence[float], least: float | None) -> tuple[float, float]:
    """Axis limits with a margin around the values, from `least` if there is one."""
    low, high = min(values), max(values)
    if least is not None:
        low = least
    air = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    return low if least is not None else low - air, high + air
