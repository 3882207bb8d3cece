"""`rtformer-deploy evaluate`: a model and a labelled dataset to mIoU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import options, parse

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation


@click.command("evaluate")
@click.argument("model", type=options.PATH)
@options.dataset
@click.option("--json", "json_path", type=options.PATH, metavar="FILE", help="Write the scores here.")
@click.option("--picture", "picture_path", type=options.PATH, metavar="FILE", help="Write the confusion matrix here, as SVG.")
@click.option("--flip", is_flag=True, help="Average over each frame and its mirror image.")
@click.option("--scales", callback=parse.scales, metavar="S,...", help="Average over these scales, as in 0.75,1,1.25 (weights only).")
@options.tiles
@options.reader
@options.external
@options.threads
@options.device
@options.cluster
@options.stall
@click.pass_context
def command(context: click.Context, /, **values: Any) -> None:
    """Score MODEL (an engine plan, an ONNX model or a network's safetensors) on a labelled dataset (mIoU).

    With --cluster every node scores a part of it and sees the dataset at the same --root; the scores are the same.
    """
    options.check_cluster(context)
    from ..commands.evaluate import EvaluateRequest, evaluate_file
    from .show import progress_bar

    with progress_bar() as progress:
        evaluation = evaluate_file(EvaluateRequest(**values), progress)
    _print(evaluation)


def _print(evaluation: Evaluation) -> None:
    from .show import console, table

    total = max(1, int(evaluation.matrix.sum()))
    values = evaluation.scores
    rows = [
        (name, _percent(values.iou[name]), _percent(values.recall[name]), _percent(float(evaluation.matrix[index].sum()) / total))
        for index, name in enumerate(evaluation.names)
    ]
    title = f"{evaluation.model} on {evaluation.dataset} {evaluation.split}, {evaluation.frames} frames"
    out = console()
    out.print(table(title, ("class", "IoU %", "recall %", "share %"), rows, right=(1, 2, 3)))
    out.print(f"mIoU {_percent(values.miou)} %, pixel accuracy {_percent(values.pixel_accuracy)} %")
    if evaluation.note:
        out.print(evaluation.note)


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.2f}"
