"""`completion`: the lines that teach a shell to complete this program's commands, options, files and names."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

from ..errors import UsageError
from .terminal import write

PROGRAM = "rtformer-deploy"
#: The variable by which a shell asks for completions. click makes the same name from the program's.
VARIABLE = "_RTFORMER_DEPLOY_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def command(ctx: click.Context, shell: str | None) -> None:
    """Print the lines that teach SHELL to complete commands, options, files and the names of recipes and datasets.

    Put the first example into ~/.bashrc, or the same line with zsh into ~/.zshrc. Without SHELL the lines are for the shell that
    you use.
    """
    named = shell or _own_shell()
    completer = get_completion_class(named)
    assert completer is not None, named  # click has all of SHELLS
    write(completer(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())


def _own_shell() -> str:
    """The shell that SHELL names. Raises UsageError if it is none of SHELLS."""
    name = PurePath(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError("Say for which shell: bash, zsh or fish.")
    return name
