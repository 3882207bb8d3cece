"""The `rtformer-deploy` group: finds commands by name without importing the others, and turns errors into messages."""

from __future__ import annotations

import importlib
import io
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from ..errors import DeployError

#: command -> (module in this folder, one line for --help). The function in the module is named `command`.
COMMANDS = {
    "export": ("export", "Network and weights to an ONNX model that was checked."),
    "build-engine": ("build_engine", "ONNX model to an engine plan for this machine, or for a GPU elsewhere."),
    "calibrate": ("calibrate", "Images to the ranges of a model's tensors, for INT8."),
    "bench": ("bench", "Latency and throughput of an engine, alone and end to end."),
    "profile": ("profile", "Time per layer of an engine, as a table and a picture."),
    "segment": ("segment", "Images to label maps and coloured overlays."),
    "inspect": ("inspect", "What a model or an engine holds."),
    "doctor": ("doctor", "Check this machine and suggest fixes."),
    "import-weights": ("import_weights", "PaddleSeg or PyTorch weights to safetensors."),
    "train": ("train", "A dataset to a trained network, its log and its weights."),
    "evaluate": ("evaluate", "mIoU of a network, model or engine on a labelled dataset."),
    "tune": ("tune", "The fastest mix of INT8, FP16 and FP32 that loses no more mIoU than allowed."),
    "verify": ("verify", "Two networks, models or engines: where they first differ."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time, so that --help is quick and a missing extra hurts one command only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        _print_any_name()
        try:
            return super().invoke(ctx)
        except DeployError as error:
            if ctx.obj and ctx.obj.get("verbose") and error.__cause__ is not None:
                click.echo(f"caused by {type(error.__cause__).__name__}: {error.__cause__}", err=True)
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


def _print_any_name() -> None:
    """Lets a file's name that is no text be printed, with escapes for its odd bytes, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _version() -> str:
    try:
        return version("rtformer-deploy")
    except PackageNotFoundError:
        return "not installed (running from the sources)"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version(), prog_name="rtformer-deploy")
@click.option("-v", "--verbose", is_flag=True, help="Print the cause behind an error.")
@click.pass_context
def main(ctx: click.Context, verbose: bool) -> None:
    """RTFormer from a network to engines and segmented frames."""
    ctx.obj = {"verbose": verbose}
