"""`segment`: images and folders to label maps and overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, parse
from .terminal import echo

if TYPE_CHECKING:
    from ..commands.segment import Outcome
    from ..formats.external_model import ExternalModel
    from ..image.reader import ImageReader


@click.command("segment")
@click.argument("model", type=options.PATH)
@click.argument("inputs", type=options.PATH, nargs=-1, required=True, metavar="INPUT...")
@options.output(None, "Write NAME_labels.png and NAME_overlay.png into this folder, made if missing.")
@click.option("--alpha", type=parse.Number(0, 1), default=0.5, show_default=True, help="Weigh the colours in the overlay.")
@click.option("--overwrite", is_flag=True, help="Replace files too that rtformer-deploy did not write.")
@options.reader
@options.stop_on_error
@options.external
@options.batch
@options.threads
@options.device
def command(
    model: Path, inputs: tuple[Path, ...], output: Path, alpha: float, batch: int, threads: int | None, device: int,
    reader: ImageReader, stop_on_error: bool, overwrite: bool, external: ExternalModel,
) -> None:  # fmt: skip
    """Segment images and folders of images (INPUT...) with MODEL, an engine plan or an ONNX model.

    NAME_labels.png holds the class ids (8-bit grey), NAME_overlay.png the picture with the classes' colours over it, both at the
    picture's own upright size. The sub-folders of a folder are read too, and made again in the output folder. An image that cannot
    be read is named at the end and the others are still done; the exit code is then 1.
    """
    from ..commands.segment import plan_jobs, segment
    from ..image.odd_files import OddFiles
    from ..opening import open_any
    from .show import progress_bar

    jobs = plan_jobs(inputs, output, reader.say, overwrite=overwrite)
    odd = OddFiles(stop_on_error, total=len(jobs))
    outcomes = []
    with open_any(model, device=device, threads=threads, lanes=1, external=external) as runner:
        classes = runner.spec.classes
        with progress_bar() as progress:
            for outcome in segment(runner, jobs, output, alpha=alpha, batch=batch, reader=reader, progress=progress):
                outcomes.append(outcome)
                if len(jobs) > 1:
                    _print_line(outcome, classes)
                if outcome.error is not None:
                    odd.add(outcome.error)
    odd.raise_any("could not be segmented")
    if len(jobs) == 1:
        _print_shares(outcomes[0], classes)


def _print_line(outcome: Outcome, classes: Sequence[str]) -> None:
    """Prints one line for an image: its outputs and its largest class."""
    if outcome.shares is None:
        echo(f"{outcome.job.image}: failed", err=True)
        return
    largest = int(outcome.shares.argmax())
    echo(f"{outcome.job.image} -> {outcome.job.overlay.name} (mostly {classes[largest]}, {outcome.shares[largest]:.0%})")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _print_shares(outcome: Outcome, classes: Sequence[str]) -> None:
    """Prints every class in the image with its share of the pixels, the largest first."""
    from .show import console, table

    assert outcome.shares is not None
    assert outcome.size is not None
    order = sorted(enumerate(outcome.shares), key=lambda item: -item[1])
    rows = [(str(index), classes[index], _percent(share)) for index, share in order if share > 0]
    height, width = outcome.size
    console().print(table(f"{outcome.job.image.name}, {height}x{width}", ("id", "class", "pixels"), rows, right=(0, 2)))
    echo(f"Wrote {outcome.job.labels} and {outcome.job.overlay}.")
