"""`doctor`: check this machine and suggest fixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from . import options
from .terminal import echo

if TYPE_CHECKING:
    from ..commands.doctor import Check


@click.command("doctor")
@options.json_flag
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this machine and suggest fixes.

    Every library is really imported, in a process of its own. The exit code is 1 if something is broken; what is only missing is
    optional.
    """
    from ..commands.doctor import examine

    checks = examine()
    if as_json:
        from .show import print_json

        print_json({"checks": [check.to_json() for check in checks]})
    else:
        _print(checks)
    ctx.exit(any(check.state == "broken" for check in checks))


def _print(checks: Sequence[Check]) -> None:
    """Prints one table for each group of checks, then the commands that fix things."""
    from .show import console, table

    out = console()
    for group in dict.fromkeys(check.group for check in checks):
        rows = ((check.state, check.name, check.detail) for check in checks if check.group == group)
        out.print(table(group, ("", "", ""), rows))
    for state, title in (("broken", "Broken; to fix it:"), ("missing", "Missing, and optional; to add it:")):
        fixes = [(check.name, check.fix) for check in checks if check.state == state and check.fix]
        if fixes:
            out.print(title, style="bold")
            for fix in dict.fromkeys(fix for _, fix in fixes):  # an extra and its packages are fixed by one command
                echo(f"  {next(name for name, its in fixes if its == fix)}: {fix}")
    if all(check.state != "broken" for check in checks):
        echo("Nothing is broken.")
