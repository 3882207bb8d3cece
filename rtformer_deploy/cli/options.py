"""Options that several commands share, so that they read and mean the same everywhere. Imports click alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ..errors import UsageError
from ..types import TRY_MEMORY, TRY_SECONDS
from . import known, parse
from .terminal import echo

if TYPE_CHECKING:
    from ..types import Flag

Command = TypeVar("Command", bound=Callable[..., Any])
Values = dict[str, Any]

#: A path as pathlib.Path. The library checks whether it exists, with its own message and exit code 1.
PATH = click.Path(path_type=Path)


def device(command: Command) -> Command:
    """--device N: which GPU."""
    return click.option("--device", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Use GPU N.")(command)


def threads(command: Command) -> Command:
    """--threads N: CPU threads of the engine; None means all cores."""
    text = "Limit the CPU threads of the engine [default: all cores]."
    return click.option("--threads", type=click.IntRange(min=1), default=None, metavar="N", help=text)(command)


def batch(command: Command) -> Command:
    """--batch N: frames in one step."""
    text = "Set how many frames are run at once."
    return click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help=text)(command)


def bit_depth(command: Command) -> Command:
    """--bit-depth N: bits that the samples of 16- and 32-bit images use; None means what the file says."""
    text = "Say how many bits the samples of 16- and 32-bit images use [default: as the file says, else all]."
    return click.option("--bit-depth", type=click.IntRange(1, 32), default=None, metavar="N", help=text)(command)


def reader(command: Command) -> Command:
    """--bit-depth, for a command that reads images; the command gets an image.reader.ImageReader that prints its notes to stderr."""

    def gather(values: Values) -> Values:
        from ..image.reader import ImageReader

        return {"reader": ImageReader(values["bit_depth"], functools.partial(echo, err=True))}

    return gathered(gather, bit_depth=bit_depth)(command)


def stop_on_error(command: Command) -> Command:
    """--stop-on-error: the first image that cannot be used ends the run."""
    text = "Stop at the first image that cannot be used, instead of naming it at the end."
    return click.option("--stop-on-error", is_flag=True, help=text)(command)


def tiles(command: Command) -> Command:
    """--tiles [OVERLAP]: larger pictures go tile by tile; None means they are resized."""
    text = "Cut larger pictures into tiles of the engine's size that overlap by OVERLAP pixels [64 if left out]."
    kind = click.IntRange(min=0)
    return click.option("--tiles", type=kind, is_flag=False, flag_value=64, metavar="[OVERLAP]", help=text)(command)


def output(default: str | None, text: str, kind: Any = PATH) -> Callable[[Command], Command]:
    """-o/--output PATH, required if there is no default. `kind` str: it may be an address too, which a path would change."""
    if default is None:
        return click.option("-o", "--output", type=kind, required=True, metavar="PATH", help=text)
    return click.option("-o", "--output", type=PATH, default=default, show_default=True, metavar="PATH", help=text)


def cluster(command: Command) -> Command:
    """--cluster ADDRESS: a Ray cluster; None means this machine alone."""
    text = "Work on this Ray cluster; auto: the one that this machine belongs to."
    return click.option("--cluster", metavar="auto|ADDRESS", help=text)(command)


def stall(command: Command) -> Command:
    """--stall S: how long a cluster may give nothing back."""
    text = "Fail if nothing comes back from the cluster for S seconds."
    return click.option("--stall", type=parse.Number(0, min_open=True), default=300, show_default=True, metavar="S", help=text)(command)


def refuse_options(context: click.Context, names: Iterable[str], why: str) -> None:
    """Raises UsageError that names the first of these options that was given; `why` ends the message."""
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT:
            raise UsageError(f"{option.opts[0]} {why}")


def check_cluster(context: click.Context, one_machine: Iterable[str] = ("device",)) -> None:
    """Raises UsageError for an option that needs --cluster and has it not, or cannot be combined with it."""
    if context.params["cluster"] is None:
        refuse_options(context, ("stall",), "is for --cluster.")
    else:
        refuse_options(context, one_machine, "cannot be combined with --cluster.")


def json_flag(command: Command) -> Command:
    """--json: one JSON document on stdout instead of tables."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")(command)


def dataset(command: Command) -> Command:
    """--dataset, --root and --split: a labelled dataset, which the command needs."""
    text = "Name the dataset: camvid, cityscapes, ade20k, cocostuff or a dataset file."
    command = click.option("--split", default="val", show_default=True, help="Take this part of it.")(command)
    command = click.option("--root", type=PATH, required=True, metavar="DIR", help="Read the dataset from this folder.")(command)
    return click.option("--dataset", type=known.DATASET, required=True, metavar="NAME|FILE", help=text)(command)


def backend(command: Command) -> Command:
    """--backend NAME: one of the table of backends, or auto."""
    from ..backends import BACKENDS

    text = "Choose the backend; auto: TensorRT if there is a GPU, else OpenVINO, else ONNX Runtime."
    return click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", show_default=True, help=text)(command)


def build_options(command: Command) -> Command:
    """--device, --threads and an option for every flag of BuildOptions; the command gets them as `options`, a BuildOptions.

    The command gets an option of kind "file" separately, as a path; the library reads the file.
    """
    from ..backends import BACKENDS
    from ..types import BuildOptions

    flags = BuildOptions.flags()

    def gather(values: Values) -> Values:
        paths = {name: values.pop(name) for name, flag in flags.items() if flag.kind == "file"}
        return {"options": BuildOptions(**values), **paths}

    clicks = {name: _click(name, flag, [row.name for row in BACKENDS.values() if name in row.options]) for name, flag in flags.items()}
    return gathered(gather, **clicks, device=device, threads=threads)(command)


def ranges(command: Command) -> Command:
    """--ranges and --images, where the ranges of INT8 and FP8 come from; the command gets them as `ranges`, a choices.RangesSource."""

    def gather(values: Values) -> Values:
        from ..commands.choices import RangesSource

        return {"ranges": RangesSource(values["ranges"], values["images"])}

    text = "Use the ranges in FILE, from calibrate [default: those that come with the recipe]."
    return gathered(
        gather,
        ranges=click.option("--ranges", type=PATH, metavar="FILE", help=text),
        images=click.option("--images", type=PATH, metavar="DIR", help="Measure the ranges on these images first."),
    )(command)


def external(command: Command) -> Command:
    """What is said about a model from elsewhere, and how long it may be tried; the command gets an ExternalModel."""

    def gather(values: Values) -> Values:
        from ..formats.external_model import ExternalModel

        return {"external": ExternalModel(**values)}

    elsewhere = "For an ONNX model from elsewhere, "
    return gathered(
        gather,
        classes=click.option(
            "--classes", type=known.DATASET, metavar="N|DATASET", help=elsewhere + "say how many classes, or whose (cityscapes, FILE.toml)."
        ),
        mean=click.option("--mean", callback=_triple, metavar="R,G,B", help=elsewhere + "set the mean of RGB from 0 to 1."),
        std=click.option("--std", callback=_triple, metavar="R,G,B", help=elsewhere + "set the standard deviation of RGB."),
        input=click.option("--input", metavar="[NAME:]HxW", help=elsewhere + "name its input, its size, or both."),
        output_name=click.option("--output-name", metavar="NAME", help=elsewhere + "say which of its outputs holds the classes."),
        threshold=click.option(
            "--threshold",
            type=parse.Number(-1e6, 1e6),
            metavar="X",
            help=elsewhere + "say what a channel exceeds on its class; else it is background [default: 0 or 0.5 for one channel].",
        ),
        try_seconds=click.option(
            "--try-seconds",
            type=parse.Number(0, min_open=True),
            default=TRY_SECONDS,
            show_default=True,
            metavar="N",
            help="Stop the first run of an ONNX model from elsewhere after N seconds.",
        ),
        try_memory=click.option(
            "--try-memory",
            type=parse.Number(0, min_open=True),
            default=TRY_MEMORY,
            show_default=True,
            metavar="GIB",
            help="Stop the first run of an ONNX model from elsewhere if it takes more memory.",
        ),
    )(command)


def gathered(gather: Callable[[Values], Values], **clicks: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Adds options, named by parameter. `gather` turns their values into the arguments that the command gets instead."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*args: Any, **values: Any) -> Any:
            own = {name: values.pop(name) for name in clicks}
            return command(*args, **gather(own), **values)

        decorated: Any = wrapper
        for option in reversed(clicks.values()):
            decorated = option(decorated)
        result: Command = decorated
        return result

    return decorate


def _click(name: str, flag: Flag, backends: list[str]) -> Callable[[Any], Any]:
    """A flag of BuildOptions as a click option; its help names the backends that know it."""
    text = f"{flag.help} ({', '.join(backends)} only)."
    if flag.kind == "switch":
        return click.option(flag.name, name, is_flag=True, help=text)
    if flag.kind == "choice":
        return click.option(flag.name, name, type=click.Choice(flag.choices), default=flag.choices[0], show_default=True, help=text)
    kind = PATH if flag.kind == "file" else click.IntRange(flag.least, flag.most)
    return click.option(flag.name, name, type=kind, metavar=flag.metavar, help=text)


def _triple(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, float, float] | None:
    """Three numbers with commas between them."""
    if value is None:
        return None
    try:
        first, second, third = (float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("three numbers with commas between them, as in 0.485,0.456,0.406") from error
    return first, second, third
