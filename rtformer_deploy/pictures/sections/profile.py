"""Reports of `profile`: where an engine's time goes, by block and by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ...runtime.layer_times import LayerTime
from ...types import Count, Side
from ..blocks import (
    Block,
    Cell,
    Document,
    Heading,
    Milliseconds,
    Number,
    Part,
    Picture,
    RoundedShare,
    Table,
    count,
    milliseconds,
    part,
    percent,
    short,
    size,
)
from ..layers import draw_layers
from ..svg import cropped

_DRAWN, _LISTED = 20, 40  # layers


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; an empty text is not known."""

    name: str
    kind: str
    ms: Milliseconds
    share: RoundedShare
    kernel: str = ""
    precision: str = ""
    block: str = ""


@dataclass(frozen=True, slots=True)
class BlockTime:
    """The layers of one module together."""

    name: str
    layers: Count
    ms: Milliseconds
    share: RoundedShare


@dataclass(frozen=True, slots=True)
class Profile:
    """A report of `profile`."""

    model: str
    backend: str
    input: tuple[Side, Side]
    batch: Count
    rounds: Count
    whole_ms: Milliseconds
    layers_ms: Milliseconds
    layers: tuple[Layer, ...]
    blocks: tuple[BlockTime, ...]


def section(documents: Sequence[Document[Profile]]) -> Part:
    """Reports -> a table of all of them, then for each its slowest layers and its blocks."""
    return part("Layers", documents, _details, _overview(documents))


def _overview(documents: Sequence[Document[Profile]]) -> Table:
    columns = ("file", "model", "backend", "input", "batch", "layers", "sum of the layers, ms", "engine without profiling, ms")
    return Table("What was profiled", columns, [_row(document.name, document.data) for document in documents])


def _row(name: str, data: Profile) -> list[Cell]:
    told = [short(data.model), short(data.backend)]
    counts = [Number(data.batch, str(data.batch)), count(len(data.layers))]
    return [name, *told, size(*data.input), *counts, milliseconds(data.layers_ms), milliseconds(data.whole_ms)]


def _details(document: Document[Profile]) -> Iterator[Block]:
    data = document.data
    slowest = sorted(data.layers, key=lambda layer: -layer.ms)
    drawn = [LayerTime(each.name, each.kind, each.kernel, each.precision, (each.ms,)) for each in slowest[:_DRAWN]]
    title = f"{short(data.model)} {data.input[0]}x{data.input[1]}, {short(data.backend)}"
    yield Heading(document.name)
    words = f"The {len(drawn)} slowest of {len(data.layers):,} layers, medians of {data.rounds:,} runs."
    yield Picture(Markup(draw_layers(drawn, title, "", cropped)), words)
    blocks = sorted(data.blocks, key=lambda block: -block.ms)[:_LISTED]
    rows: list[list[Cell]] = [[short(each.name), count(each.layers), _fine(each.ms), percent(each.share, 1)] for each in blocks]
    yield Table(_title("By block", len(blocks), len(data.blocks)), ("block", "layers", "ms", "share, %"), rows)
    layers: list[list[Cell]] = [
        [short(each.name), short(each.kind), short(f"{each.kernel} {each.precision}".strip()), _fine(each.ms), percent(each.share, 1)]
        for each in slowest[:_LISTED]
    ]
    yield Table(_title("By layer", len(layers), len(data.layers)), ("layer", "kind", "kernel", "ms", "share, %"), layers)


def _fine(ms: float) -> Number:
    return Number(ms, f"{ms:.3f}")


def _title(what: str, shown: int, total: int) -> str:
    return what if shown == total else f"{what}: the {shown} slowest of {total:,}"
