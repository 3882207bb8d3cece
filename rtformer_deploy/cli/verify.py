"""`rtformer-deploy verify`: two networks, models or engines, and where they first differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import known, options, parse

if TYPE_CHECKING:
    from ..evaluation.verify import Verification


@click.command("verify")
@click.argument("a", type=options.PATH)
@click.argument("b", type=options.PATH)
@click.argument("images", type=options.PATH, nargs=-1, metavar="IMAGES...")
@click.option("--dataset", type=known.DATASET, metavar="NAME|FILE", help="Compare on this labelled dataset too, with mIoU; needs --root.")
@click.option("--root", type=options.PATH, metavar="DIR", help="Read the dataset from this folder.")
@click.option("--split", default="val", show_default=True, help="Take this part of it.")
@click.option("--max-flips", callback=parse.share, metavar="X", help="Fail (exit 3) above this share of changed pixels: 0.005 or 0.5%.")
@click.option("--max-drop", type=parse.Number(), metavar="Y", help="Fail (exit 3) above this loss of mIoU, in points; needs --dataset.")
@click.option(
    "--margin",
    type=parse.Number(0),
    metavar="M",
    help="Count changes within this margin of logits [default: twice the largest difference].",
)
@click.option("--json", "json_path", type=options.PATH, metavar="FILE", help="Write what was found here.")
@click.option("--picture", "picture_path", type=options.PATH, metavar="FILE", help="Write the worst image's changes here, as PNG.")
@options.reader
@options.stop_on_error
@options.external
@options.threads
@options.device
def command(stop_on_error: bool, **values: Any) -> None:
    """Compare A with B (each a network's safetensors, an ONNX model or an engine plan) on images and folders."""
    from ..commands.verify import VerifyRequest, verify_files
    from ..evaluation.verify import check_gates
    from ..image.odd_files import OddFiles
    from .show import progress_bar

    request, odd = VerifyRequest(**values), OddFiles(stop_on_error)
    with progress_bar() as progress:
        verification = verify_files(request, progress, odd)
    _print(verification)
    odd.raise_any()
    check_gates(verification, request.max_flips, request.max_drop)


def _print(verification: Verification) -> None:
    from .show import console, table

    words = {True: "differs", False: "equal", None: "not compared"}
    out = console()
    rows = [(name, words[stage.differs], stage.detail) for name, (stage, _) in verification.stages.items()]
    out.print(table(f"A and B, images: {verification.images}", ("stage", "", "at most"), rows))
    first = verification.first_difference
    out.print(f"First difference: {first} ({verification.stages[first][1]})" if first else "No stage differs.")
    split = "" if verification.within is None else f" ({verification.within / verification.pixels:.4%} within the margin)"
    out.print(f"Changed pixels: {verification.flips:.4%}{split}; most in {verification.worst}")
    out.print(f"Boundary F-score: {verification.boundary:.4f} (within 0.75% of the diagonal)")
    both = verification.scores
    if both is not None:
        lines = [
            (n, *(f"{100 * v:.2f}" for v in (both[0].iou[n], both[1].iou[n], both[1].iou[n] - both[0].iou[n])))
            for n in verification.classes
        ]
        out.print(table("", ("class", "A IoU %", "B IoU %", "change"), lines, right=(1, 2, 3)))
        out.print(f"mIoU: A {100 * both[0].miou:.2f} %, B {100 * both[1].miou:.2f} %, drop {verification.drop:.2f} points")
