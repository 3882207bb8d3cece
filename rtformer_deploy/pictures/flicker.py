"""Flicker over time -> an SVG picture."""

from __future__ import annotations

from collections.abc import Sequence

from .style import BLUE, house_style
from .svg import Finish, add_axes, add_heading, alone, new_figure

_WIDTH, _HEIGHT = 640, 220


@house_style()
def draw_flicker(
    name: str, times: Sequence[float], shares: Sequence[float], total: float | None, threshold: float, finish: Finish = alone
) -> str:
    """The share of still pixels that change class, for each frame, and over all -> SVG text. `times` are seconds."""
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = add_axes(figure, 0, 0, _WIDTH, _HEIGHT)
    percent = [100 * share for share in shares]
    axes.plot(times, percent, color=BLUE)
    axes.set(xlabel="time, s", ylabel="flicker, % of still pixels", ylim=(0, 1.05 * max([*percent, 1e-3])))
    axes.set_xlim(min([*times, 0]), max([*times, 1e-3]))
    axes.grid(True, axis="y")
    over_all = "no still pixels" if total is None else f"{total:.2%} of the still pixels change class from frame to frame"
    add_heading(figure, f"Flicker of {name}", f"{over_all}; still: RGB changes by less than {threshold:g} of 255")
    return finish(figure, f"Flicker of {name} over {len(times)} frames: {over_all}", {})
