"""`report`: the reports in a folder to one page."""

from __future__ import annotations

from pathlib import Path

import click

from . import options
from .terminal import echo

_MOST_NAMED = 20  # files that are named on the screen; the page names more


@click.command("report")
@click.argument("folder", type=options.PATH)
@options.output("report.html", "Write the page here.")
def command(folder: Path, output: Path) -> None:
    """Make one page from every report in FOLDER: the JSON files that other commands wrote there.

    bench, evaluate, verify, profile, compare, tune, calibrate, build-engine, segment, inspect and doctor write such files. They are known
    by what they hold. The page is one file that fetches nothing; other JSON files are listed at its end.
    """
    from ..commands.report import report_folder
    from .show import progress_bar

    with progress_bar() as progress:
        found = report_folder(folder, output, progress)
    for name, reason in found.left_out[:_MOST_NAMED]:
        echo(f"Left out: {name}: {reason}.")
    echo(f"{output}: {found.summary()}.")
