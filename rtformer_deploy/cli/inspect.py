"""`inspect`: what a model, an engine or a weights file holds."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command("inspect")
@click.argument("file", type=options.PATH)
@options.json_flag
def command(file: Path, as_json: bool) -> None:
    """What FILE holds: an ONNX model, an engine plan (with the .json beside it) or safetensors weights.

    Nothing is run. A plan whose bytes are not those that were built is shown, and the exit code is 1.
    """
    from ..describe import describe
    from .show import console, print_json, sections

    description = describe(file)
    if as_json:
        print_json(description.to_json())
    else:
        out = console()
        for section in sections(description.facts):
            out.print(section)
    if description.problem is not None:
        raise description.problem
