"""The `rtformer-deploy` group: finds commands by name without importing the others, and turns errors into messages."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..errors import DeployError, is_interrupted, one_line
from .examples import epilog
from .terminal import echo, escape, print_any_name, quiet_end, write

#: command -> (module in this folder, one line for --help). The function in the module is named `command`.
COMMANDS = {
    "export": ("export", "Export a network and its weights to a checked ONNX model."),
    "build-engine": ("build_engine", "Build an engine from an ONNX model, for this machine or a GPU elsewhere."),
    "refit": ("refit", "Put a model's weights into an engine that was built with --strip."),
    "calibrate": ("calibrate", "Measure the ranges of a model's tensors on images, for INT8 and FP8."),
    "bench": ("bench", "Measure latency and throughput of an engine, alone and end to end."),
    "profile": ("profile", "Measure the time of each layer of an engine."),
    "segment": ("segment", "Segment images into label maps and coloured overlays."),
    "serve": ("serve", "Serve engines over HTTP and WebSocket, with a page for browsers."),
    "triton": ("triton", "Write a model repository for NVIDIA Triton, or check one that it serves."),
    "inspect": ("inspect", "Show what a model, an engine or a weights file holds."),
    "doctor": ("doctor", "Check this machine and suggest fixes."),
    "import-weights": ("import_weights", "Convert PaddleSeg or PyTorch weights to safetensors."),
    "train": ("train", "Train a network on a dataset."),
    "evaluate": ("evaluate", "Score a network, model or engine on a labelled dataset (mIoU)."),
    "report": ("report", "Make one page from the reports in a folder."),
    "tune": ("tune", "Find the fastest mix of INT8, FP16 and FP32 within an allowed loss of mIoU."),
    "verify": ("verify", "Compare two networks, models or engines and find where they first differ."),
    "compare": ("compare", "Compare networks, or the formats of one model, side by side on this machine."),
    "completion": ("completion", "Print the lines that teach your shell to complete commands and options."),
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
        command.epilog = epilog(name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin like this, without importing them, and the group's own options."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command as click does, but for the messages: what they quote is escaped, and a broken stdout gives no traceback."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        print_any_name()
        try:
            with quiet_end():
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            _show_usage(error)
            code = error.exit_code
        except click.Abort:
            code = _interrupted()
        except DeployError as error:  # stdout is full
            echo(f"Error: {error}", err=True)
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(_interrupted())
        except DeployError as error:
            if is_interrupted(error):
                ctx.exit(_interrupted())
            if ctx.obj and ctx.obj.get("verbose") and error.__cause__ is not None:
                echo(f"caused by {type(error.__cause__).__name__}: {one_line(error.__cause__)}", err=True)
            first, *others = error.lines
            for line in (f"Error: {first}", *others):
                echo(line, err=True)
            ctx.exit(error.exit_code)


def _show_usage(error: click.ClickException) -> None:
    """Prints click's message about a call that is wrong; what it quotes of the call is escaped."""
    shown, message = io.StringIO(), error.format_message()
    error.show(shown)
    write(shown.getvalue().rstrip("\n").replace(message, escape(message)), err=True)


def _interrupted() -> int:
    """Says that Ctrl-C ended the command; returns its exit code, 128 and the number of the signal."""
    echo("Interrupted.", err=True)
    return 130


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
    """Take RTFormer from a network to engines and segmented frames."""
    ctx.obj = {"verbose": verbose}
