"""Layers and their times -> one SVG picture: a bar for each layer, coloured by kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..runtime.layer_times import LayerTime

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 270, 80, 90, 20
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
_GREY = "#8a8a8a"
_LONGEST = 38  # characters of a name


def draw_layers(layers: Sequence[LayerTime], title: str, note: str) -> str:
    """Layers, drawn in the order they come in, a title and a line under it -> SVG text. Kinds past the eighth share a grey."""
    colours = dict(zip(dict.fromkeys(layer.kind for layer in layers), _COLOURS, strict=False))
    longest = max((layer.ms for layer in layers), default=0.0) or 1.0
    height = _TOP + _ROW * len(layers) + 20
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="16" y="26" font-size="15">{escape(title)}</text>',
            f'<text x="16" y="45" fill="{_GREY}">{escape(note)}</text>',
            *_legend(colours, any(layer.kind not in colours for layer in layers)),
            *(_bar(index, layer, longest, colours.get(layer.kind, _GREY)) for index, layer in enumerate(layers)),
            "</svg>\n",
        ]
    )


def shorten(name: str, longest: int) -> str:
    """A name of at most so many characters: what is too long loses its middle."""
    if len(name) <= longest:
        return name
    head = (longest - 3) // 2
    return f"{name[:head]}...{name[len(name) - (longest - 3 - head) :]}"


def _legend(colours: dict[str, str], others: bool) -> Iterable[str]:
    x = 16.0
    for kind, colour in [*colours.items(), *([("other", _GREY)] if others else [])]:
        name = shorten(kind or "unknown", 16)
        yield f'<rect x="{x:.0f}" y="58" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 14:.0f}" y="67">{escape(name)}</text>'
        x += 30 + 6.5 * len(name)


def _bar(index: int, layer: LayerTime, longest: float, colour: str) -> str:
    y, width = _TOP + _ROW * index, (_WIDTH - _LEFT - _RIGHT) * layer.ms / longest
    words = ", ".join(filter(None, (layer.name, layer.kind, layer.kernel, layer.precision, f"{layer.ms:.3f} ms")))
    name = escape(shorten(layer.name, _LONGEST))
    return (
        f'<g><title>{escape(words)}</title><text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{name}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{max(width, 0.5):.1f}" height="{_ROW - 5}" fill="{colour}"/>'
        f'<text x="{_LEFT + width + 6:.1f}" y="{y + 12}">{layer.ms:.3f} ms</text></g>'
    )
