"""`rtformer-deploy refit`: an engine without weights and an ONNX model to an engine with the model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, parse


@click.command("refit")
@click.argument("engine", type=options.PATH)
@click.argument("model", type=options.PATH)
@options.ranges
@options.device
@options.threads
@click.option("--check-images", type=options.PATH, metavar="DIR", help="Compare with ONNX Runtime on these images too.")
@click.option(
    "--max-flips", callback=parse.share, metavar="X", help="Write nothing (exit 3) above this share of changed pixels: 0.005 or 0.5%."
)
@options.bit_depth
@options.stop_on_error
@options.external
@options.output(None, "Write the plan here; what it is goes beside it as .json.")
def command(engine: Path, device: int, threads: int | None, **values: Any) -> None:
    """Put the weights of MODEL into ENGINE, a plan that build-engine --strip wrote, and write the plan that this gives.

    MODEL has the architecture, the size and the head of the model that ENGINE was built from. It goes through the same passes, in the
    precision of ENGINE; INT8 and FP8 need ranges of its own weights. A plan from refit can be refitted again. TensorRT needs the GPU
    for this that ENGINE was built for. Never run on a GPU so far.
    """
    from ..commands.build_engine import BuildRequest
    from ..commands.refit import RefitRequest, refit_to_file
    from ..types import BuildOptions
    from .show import feedback

    model = BuildRequest(options=BuildOptions(device=device, threads=threads), **values)
    with feedback() as terminal:
        refit_to_file(RefitRequest(engine, model), terminal)
