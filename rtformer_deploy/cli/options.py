"""Options that several commands share, so that they read and mean the same everywhere. Imports click alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

Command = TypeVar("Command", bound=Callable[..., Any])

#: A path as pathlib.Path; whether it exists is the library's to say, with its own message and exit code 1.
PATH = click.Path(path_type=Path)


def device(command: Command) -> Command:
    """--device N: which GPU."""
    return click.option("--device", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="GPU to run on.")(command)


def threads(command: Command) -> Command:
    """--threads N: CPU threads of the engine; None means all cores."""
    text = "CPU threads of the engine [default: all cores]."
    return click.option("--threads", type=click.IntRange(min=1), default=None, metavar="N", help=text)(command)


def batch(command: Command) -> Command:
    """--batch N: frames in one step."""
    text = "Frames in one step."
    return click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help=text)(command)


def bit_depth(command: Command) -> Command:
    """--bit-depth N: bits that the samples of 16- and 32-bit images use; None means what the file says."""
    text = "Bits that the samples of 16- and 32-bit images use [default: as the file says, else all]."
    return click.option("--bit-depth", type=click.IntRange(1, 32), default=None, metavar="N", help=text)(command)


def reader(command: Command) -> Command:
    """--bit-depth, for a command that reads images; the command gets an image.reader.ImageReader that speaks to stderr."""

    @functools.wraps(command)
    def wrapper(*args: Any, bit_depth: int | None, **kwargs: Any) -> Any:
        from ..image.reader import ImageReader

        return command(*args, reader=ImageReader(bit_depth, functools.partial(click.echo, err=True)), **kwargs)

    return bit_depth(cast(Command, wrapper))


def stop_on_error(command: Command) -> Command:
    """--stop-on-error: the first image that cannot be used ends the run."""
    text = "Stop at the first image that cannot be used, instead of naming it at the end."
    return click.option("--stop-on-error", is_flag=True, help=text)(command)


def output(default: str | None, text: str) -> Callable[[Command], Command]:
    """-o/--output PATH, required where there is no default."""
    if default is None:
        return click.option("-o", "--output", type=PATH, required=True, metavar="PATH", help=text)
    return click.option("-o", "--output", type=PATH, default=default, show_default=True, metavar="PATH", help=text)


def json_flag(command: Command) -> Command:
    """--json: one JSON document on stdout instead of tables."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")(command)


def foreign(command: Command) -> Command:
    """--classes, --mean, --std and --input, for a model from elsewhere; the command gets them as `said`, a foreign.Foreign."""

    @functools.wraps(command)
    def wrapper(*args: Any, classes: str | None, mean: Any, std: Any, input_name: str | None, **kwargs: Any) -> Any:
        from ..formats.external_model import Foreign

        return command(*args, said=Foreign(classes, mean, std, input_name), **kwargs)

    elsewhere = "ONNX model from elsewhere: "
    options = (
        click.option("--classes", metavar="N|DATASET", help=elsewhere + "how many classes, or whose (cityscapes, FILE.toml)."),
        click.option("--mean", callback=_triple, metavar="R,G,B", help=elsewhere + "mean of RGB from 0 to 1."),
        click.option("--std", callback=_triple, metavar="R,G,B", help=elsewhere + "standard deviation of RGB."),
        click.option("--input", "input_name", metavar="[NAME:]HxW", help=elsewhere + "its input's name, its size, or both."),
    )
    decorated: Any = wrapper
    for option in reversed(options):
        decorated = option(decorated)
    result: Command = decorated
    return result


def _triple(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, float, float] | None:
    """Three numbers with commas between them."""
    if value is None:
        return None
    try:
        first, second, third = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("three numbers with commas between them, as in 0.485,0.456,0.406") from error
    return first, second, third
