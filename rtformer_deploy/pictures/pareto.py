"""Points -> an SVG picture: mIoU against latency, the Pareto front, the bound, the chosen mix."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from ..tuning.points import Point, front
from .style import BLUE, GREEN, ORANGE, SOFT, house_style
from .svg import Finish, add_axes, add_heading, alone, new_figure
from .text import clean, shorten_middle

_WIDTH, _HEIGHT = 660, 340
_LONGEST = 30  # characters of a name
#: Possible places for a point's name: pixels to the right and up, and the horizontal alignment there.
_SPOTS = ((11, 0, "left"), (-11, 0, "right"), (7, 14, "left"), (7, -14, "left"), (-7, 14, "right"), (-7, -14, "right"))


@house_style()
def draw_pareto(points: Sequence[Point], chosen: Point | None, max_drop: float, title: str, finish: Finish = alone) -> str:
    """Points, the baseline first -> SVG text. `max_drop` is in points (percent) of mIoU below the baseline."""
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = add_axes(figure, 0, 0, _WIDTH, _HEIGHT)
    axes.spines[:].set_visible(True)
    axes.grid()
    floor, best = 100 * points[0].miou - max_drop, front(points)
    axes.set(xlabel="latency, ms", xlim=_bounds([point.latency_ms for point in points]))
    axes.set(ylabel="mIoU, %", ylim=_bounds([*(100 * point.miou for point in points), floor]))
    bound = axes.axhline(floor, color=ORANGE, dashes=(6, 4))
    label = axes.annotate(f"FP32 - {max_drop:g} points", (1, floor), (-6, -4), axes.get_yaxis_transform(), "offset points", color=ORANGE)
    label.set(ha="right", va="top")
    (line,) = axes.plot([point.latency_ms for point in best], [100 * point.miou for point in best], color=BLUE)
    for number, point in enumerate(points):
        colour, size = (GREEN, 14) if point is chosen else (BLUE, 10) if point in best else (SOFT, 8)
        axes.scatter(point.latency_ms, 100 * point.miou, size**2, color=colour, linewidth=0, zorder=3, gid=f"point {number}")
    _write_names(axes, points, chosen, [line, bound], label.get_window_extent())
    add_heading(figure, title, "line: Pareto front; green: chosen; latency of the engine alone")
    return finish(figure, title, {f"point {number}": _tip(point) for number, point in enumerate(points)})


def _tip(point: Point) -> str:
    return f"{point.name}, {point.in_int8} blocks in INT8: {100 * point.miou:.2f} %, {point.latency_ms:.3g} ms"


def _write_names(axes: Axes, points: Sequence[Point], chosen: Point | None, lines: Sequence[Line2D], label: Bbox) -> None:
    """Writes each name beside its point if a place there is free. The names of the chosen point and the baseline are always written."""
    paths = [line.get_transform().transform_path(line.get_path()) for line in lines]
    frame = axes.get_window_extent()
    centres = axes.transData.transform([(point.latency_ms, 100 * point.miou) for point in points])
    boxes = [label, *(Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in centres.tolist())]
    for point in sorted(points, key=lambda point: (point is not chosen, point is not points[0])):
        place = point.latency_ms, 100 * point.miou
        text = axes.annotate(shorten_middle(clean(point.name), _LONGEST), place, (0, 0), textcoords="offset points")
        text.set(va="center", weight="bold" if point is chosen else "normal")
        for right, up, side in (*_SPOTS, _SPOTS[0]):
            text.set(position=(right, up), ha=side)
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            if inside and not box.count_overlaps(boxes) and not any(path.intersects_bbox(box, filled=False) for path in paths):
                break
        else:
            if point is not chosen and point is not points[0]:
                text.remove()
                continue
        boxes.append(box)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits with a margin around the values."""
    low, high = min(values), max(values)
    air = 0.1 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air
