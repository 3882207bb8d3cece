"""Layers and their times -> an SVG picture: a bar for each layer, coloured by kind."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ..runtime.layer_times import LayerTime
from .style import SERIES, SOFT, house_style
from .svg import Finish, add_axes, add_heading, alone, new_figure
from .text import clean, shorten_middle

_WIDTH, _ROW = 480, 20
_LONGEST_NAME, _LONGEST_KIND = 38, 16  # characters


@house_style()
def draw_layers(layers: Sequence[LayerTime], title: str, note: str, finish: Finish = alone) -> str:
    """Layers, drawn in the order they come in, a title and a line under it -> SVG text. Kinds past the eighth share a grey."""
    colours = dict(zip(dict.fromkeys(layer.kind for layer in layers), SERIES, strict=False))
    rows = max(len(layers), 1)
    figure = new_figure(_WIDTH, _ROW * rows)
    axes = add_axes(figure, 0, 0, *figure.bbox.size)
    axes.set_axis_off()
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(0, max((layer.ms for layer in layers), default=0.0) or 1.0)
    tips: dict[str, str] = {}
    for row, layer in enumerate(layers):
        words = ", ".join(filter(None, (layer.name, layer.kind, layer.kernel, layer.precision, f"{layer.ms:.3f} ms")))
        tips |= {f"{part} {row}": words for part in ("name", "bar")}
        _draw_layer(axes, row, layer, colours.get(layer.kind, SOFT))
    kinds = [Patch(color=colour, label=shorten_middle(clean(kind) or "unknown", _LONGEST_KIND)) for kind, colour in colours.items()]
    if any(layer.kind not in colours for layer in layers):
        kinds.append(Patch(color=SOFT, label="other"))
    axes.legend(handles=kinds, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, handlelength=0.8, handleheight=0.8, borderaxespad=0.5)
    add_heading(figure, title, note)
    return finish(figure, title, tips)


def _draw_layer(axes: Axes, row: int, layer: LayerTime, colour: str) -> None:
    axes.barh(row, layer.ms, 0.75, color=colour, gid=f"bar {row}")
    name = shorten_middle(clean(layer.name), _LONGEST_NAME)
    axes.annotate(name, (0, row), (-8, 0), textcoords="offset points", ha="right", va="center", gid=f"name {row}")
    axes.annotate(f"{layer.ms:.3f} ms", (layer.ms, row), (6, 0), textcoords="offset points", va="center")
