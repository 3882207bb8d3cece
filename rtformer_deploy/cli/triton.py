"""`triton`: a model repository for NVIDIA Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, parse
from .terminal import echo

if TYPE_CHECKING:
    from ..formats.external_model import ExternalModel
    from ..triton.check import Checked
    from ..triton.layout import AcceleratorName


@click.command("triton")
@click.argument("repository", type=options.PATH)
@click.argument("models", type=options.PATH, nargs=-1, metavar="MODEL...")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Name each model, in their order [default: the file's stem].")
@click.option(
    "--check",
    "address",
    metavar="ADDRESS",
    help="Ask the Triton at ADDRESS that serves REPOSITORY for a sample's labels.",
)
@click.option("--tensorrt", metavar="VERSION", help="Refuse a plan that Triton's TensorRT of this version does not open.")
@click.option("--gpu", metavar="GPU", help="Refuse a plan that does not run on this GPU, such as 'NVIDIA L4 (8.9)' or 8.9.")
@click.option(
    "--accelerator",
    type=click.Choice(["tensorrt", "openvino", "none"]),
    default=None,
    help="Choose what runs ONNX models for ONNX Runtime [default: tensorrt if there is a GPU here, else openvino].",
)
@click.option("--fp16", is_flag=True, help="Let the accelerator tensorrt compute in FP16.")
@click.option(
    "--max-batch", type=click.IntRange(2, 4096), metavar="N", help="Batch up to N frames of an ONNX model that leaves it open [default: 8]."
)
@click.option(
    "--instances", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N", help="Run N instances of each engine at once."
)
@click.option(
    "--helpers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    metavar="N",
    help="Run N processes of each step before and after the engine.",
)
@click.option(
    "--queue",
    type=click.IntRange(1, 2**20),
    default=64,
    show_default=True,
    metavar="N",
    help="Let at most N requests wait for each engine.",
)
@click.option(
    "--deadline",
    "deadline_ms",
    type=parse.Number(1, 1e9),
    default=10000,
    show_default=True,
    metavar="MS",
    help="Refuse a request that has waited MS milliseconds.",
)
@click.option(
    "--max-delay-ms",
    type=parse.Number(0, 1e6),
    default=0,
    show_default=True,
    metavar="MS",
    help="Let a request wait this long for a larger batch.",
)
@click.option("--overwrite", is_flag=True, help="Replace a repository of ours that was changed or holds other models.")
@options.external
@options.threads
@options.device
def command(
    repository: Path, models: tuple[Path, ...], names: tuple[str, ...], address: str | None, tensorrt: str | None, gpu: str | None,
    accelerator: AcceleratorName | None, fp16: bool, max_batch: int | None, instances: int, helpers: int, queue: int, deadline_ms: float,
    max_delay_ms: float, overwrite: bool, threads: int | None, device: int, external: ExternalModel,
) -> None:  # fmt: skip
    """Write REPOSITORY, a folder that NVIDIA Triton starts with, from each MODEL, an engine plan or an ONNX model.

    A TensorRT plan and an ONNX model run in Triton's own backends; plans of OpenVINO, ONNX Runtime and TensorRT-RTX run in its Python
    backend, with this package. NAME takes encoded pictures, NAME_rgb raw RGB frames, and both give labels. With --check nothing is
    written.
    """
    from ..commands.triton import TritonRequest, check, write
    from ..errors import UsageError
    from ..triton.layout import Settings
    from ..triton.target import Target

    if address is not None:
        if models:
            raise UsageError("--check asks a Triton that runs and writes nothing, so no MODEL can be given.", "Write the repository first.")
        for checked in check(repository, address):
            for line in _described(checked):
                echo(line)
        return
    if not models:
        raise UsageError("No MODEL was given.", "Name engine plans or ONNX models, or give --check ADDRESS.")
    settings = Settings(
        instances=instances,
        helpers=helpers,
        device=device,
        threads=threads,
        delay_us=round(1000 * max_delay_ms),
        queue=queue,
        timeout_us=round(1000 * deadline_ms),
        fp16=fp16,
    )
    request = TritonRequest(models, names, Target(tensorrt, gpu), settings, accelerator, max_batch, external=external, overwrite=overwrite)
    write(repository, request, echo)


def _described(checked: Checked) -> Iterator[str]:
    """A checked model -> the lines that say it."""
    height, width = checked.size
    classes = ", ".join(f"{name} {share:.1%}" for name, share in checked.classes)
    yield f"{checked.name}: the sample's labels, {height}x{width}: {classes}."
    if checked.flips is None:
        yield f"{checked.name}: they were not compared, as the engine does not open here: {checked.why}"
    elif checked.flips:
        yield f"{checked.name}: {checked.flips:.3%} of the pixels have another class than the same engine gives here."
    else:
        yield f"{checked.name}: they are those that segment writes here, bit for bit."
