"""`inspect`: what a model, an engine or a weights file holds."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .terminal import echo


@click.command("inspect")
@click.argument("file", type=options.PATH)
@click.option("--lint", "lint_model", is_flag=True, help="Name the Q/DQ placements of an ONNX model that cost something, where and why.")
@options.json_flag
def command(file: Path, lint_model: bool, as_json: bool) -> None:
    """Show what FILE holds: an ONNX model, an engine plan (with the .json beside it) or safetensors weights.

    Nothing is run. A plan whose bytes are not those that were built is shown, and the exit code is 1.
    """
    from ..commands.inspect import describe
    from .show import console, print_json, sections

    if lint_model:
        _lint(file, as_json)
        return
    description = describe(file)
    if as_json:
        print_json(description.to_json())
    else:
        out = console()
        for section in sections(description.facts):
            out.print(section)
    if description.problem is not None:
        raise description.problem


def _lint(file: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from ..formats.model_file import load_model
    from ..graph.lint import lint
    from .show import print_json

    findings = lint(load_model(file))
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        echo(f"{finding.node} ({finding.where}): {finding.why}")
    echo(f"{len(findings)} placements cost something.")
