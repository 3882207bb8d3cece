"""A training log -> an SVG picture: loss and learning rate above, mean IoU of every check below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from .style import BLUE, SERIES, house_style
from .svg import add_axes, alone, new_figure
from .text import clean

_WIDTH, _HEIGHT, _GAP = 640, 200, 50
_RATE = SERIES[3]
Curve = Sequence[tuple[float, float]]  # step, value


@house_style()
def draw_training(records: Sequence[Mapping[str, Any]]) -> str:
    """A log's records -> SVG text."""
    steps = [record for record in records if record["kind"] == "step"]
    figure = new_figure(_WIDTH, 2 * _HEIGHT + _GAP)
    losses, scores = (add_axes(figure, 0, top, _WIDTH, _HEIGHT) for top in (0, _HEIGHT + _GAP))
    _plot(losses, {"loss": _smooth([(record["step"], record["loss"]) for record in steps])}, [BLUE])
    rates = losses.twinx()
    _plot(rates, {"learning rate": [(record["step"], record["lr"]) for record in steps]}, [_RATE], right=True)
    _plot(scores, {f"mIoU {split}, %": curve for split, curve in _checks(records).items()}, SERIES, marker="o")
    end = max([float(record["step"]) for record in records] + [1.0])
    for axes in (losses, scores):
        axes.set_xlim(0, end)
    losses.tick_params(labelbottom=False)
    scores.set_xlabel("step")
    return alone(figure, f"Training, {end:.0f} steps: loss and learning rate, mean IoU", {})


def _checks(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Every split that was scored -> its mean IoU in percent, by step."""
    checks: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        if record["kind"] == "scores":
            for split, values in record["scores"].items():
                checks.setdefault(split, []).append((record["step"], 100 * (values["miou"] or 0.0)))
    return checks


def _plot(axes: Axes, curves: Mapping[str, Curve], colours: Sequence[str], marker: str = "", right: bool = False) -> None:
    """Plots curves from zero up, with a coloured legend above the panel, on the side of their axis."""
    lines = []
    for number, (name, curve) in enumerate(curves.items()):
        points = [step for step, _ in curve], [value for _, value in curve]
        lines += axes.plot(*points, label=clean(name), color=colours[number % len(colours)], marker=marker, markersize=5)
    axes.set_ylim(0, 1.05 * max([value for curve in curves.values() for _, value in curve] + [1e-9]))
    axes.grid(not right, axis="y")
    place = (int(right), 1.03)
    axes.legend(handles=lines, loc="lower right" if right else "lower left", bbox_to_anchor=place, ncols=4, labelcolor="linecolor")


def _smooth(curve: Curve, share: float = 0.1) -> list[tuple[float, float]]:
    """An exponential moving average, so that the trend shows through the noise of single batches."""
    smooth: list[tuple[float, float]] = []
    for x, y in curve:
        smooth.append((x, y if not smooth else smooth[-1][1] + share * (y - smooth[-1][1])))
    return smooth
