"""`profile`: an engine or model to the time of its layers, as tables, a JSON file and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..formats.external_model import ExternalModel
    from ..timing.profile import Profile

_COLUMNS, _GAP, _FEWEST = 80, 3, 16  # of a terminal; between two columns; of a layer's name


@click.command("profile")
@click.argument("model", type=options.PATH)
@click.option("--json", "json_path", type=options.PATH, metavar="FILE", help="Write every layer and block here.")
@click.option("--svg", "svg_path", type=options.PATH, metavar="FILE", help="Draw the slowest layers here, --top of them.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Show so many layers and blocks.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Take each median over N runs.")
@options.external
@options.threads
@options.device
def command(
    model: Path,
    json_path: Path | None,
    svg_path: Path | None,
    top: int,
    rounds: int,
    threads: int | None,
    device: int,
    external: ExternalModel,
) -> None:
    """Show where the time of MODEL goes, an engine plan or an ONNX model: its slowest layers, and its blocks.

    The engine's own library measures each layer, in medians over --rounds runs. A layer that was fused into another does not appear.
    """
    from ..commands.profile import check_files, profile_path
    from ..pictures import require_report

    check_files(model, external, json_path, svg_path)
    if svg_path is not None:
        require_report("--svg")
    profile = profile_path(model, rounds=rounds, device=device, threads=threads, external=external)
    _save(profile, top, json_path, svg_path)
    _print(profile, top)


def _save(profile: Profile, top: int, json_path: Path | None, svg_path: Path | None) -> None:
    from ..files import json_bytes, write_atomic

    if json_path is not None:
        write_atomic(json_path, json_bytes(profile.to_json()))
    if svg_path is not None:
        from ..pictures.layers import draw_layers

        write_atomic(svg_path, draw_layers(profile.top(top), _title(profile), profile.summary()).encode())


def _print(profile: Profile, top: int) -> None:
    from ..pictures.text import shorten_middle
    from .show import console, table
    from .terminal import escape

    out = console()
    shown = profile.top(top)
    rows = [
        (shorten_middle(escape(layer.kind), 13), f"{layer.kernel} {layer.precision}".strip(), *_figures(profile, layer.ms))
        for layer in shown
    ]
    remaining = len(profile.layers) - len(shown)
    if remaining:
        rows.append(("", "", *_figures(profile, profile.layers_ms - sum(layer.ms for layer in shown))))
    titles = ("kind", "kernel", "ms", "share")
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    width = max(_FEWEST, _COLUMNS - sum(widths) - _GAP * len(widths))
    names = [shorten_middle(escape(layer.name), width) for layer in shown] + ([f"{remaining} more"] if remaining else [])
    layers = [(name, *row) for name, row in zip(names, rows, strict=True)]
    out.print(table(_title(profile), ("layer", *titles), layers, right=(3, 4)))
    blocks = [(block.name, str(block.layers), *_figures(profile, block.ms)) for block in profile.blocks()[:top]]
    hidden = profile.blocks()[top:]
    if hidden:
        others = sum(block.layers for block in hidden), sum(block.ms for block in hidden)
        blocks.append((f"{len(hidden)} more", str(others[0]), *_figures(profile, others[1])))
    out.print(table("By block", ("block", "layers", "ms", "share"), blocks, right=(1, 2, 3)))
    out.print(profile.summary())


def _figures(profile: Profile, ms: float) -> tuple[str, str]:
    return f"{ms:.3f}", f"{profile.share(ms):.1%}"


def _title(profile: Profile) -> str:
    height, width = profile.size
    return f"{profile.model} {height}x{width}, batch {profile.batch}, {profile.backend}, median of {profile.rounds} runs"
