"""`rtformer-deploy evaluate`: a model and a labelled dataset to mIoU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation
    from ..formats.external_model import Foreign
    from ..image.reader import ImageReader


@click.command("evaluate")
@click.argument("model", type=options.PATH)
@click.option(
    "--dataset", "dataset_name", required=True, metavar="NAME|FILE", help="camvid, cityscapes, ade20k, cocostuff or a dataset file."
)
@click.option("--root", type=options.PATH, required=True, metavar="DIR", help="The dataset's folder.")
@click.option("--split", default="val", show_default=True, help="Which part of it.")
@click.option("--json", "json_path", type=options.PATH, metavar="FILE", help="Write the scores here.")
@click.option("--picture", "picture_path", type=options.PATH, metavar="FILE", help="Write the confusion matrix here, as SVG.")
@options.reader
@options.foreign
@options.threads
@options.device
def command(
    model: Path,
    dataset_name: str,
    root: Path,
    split: str,
    json_path: Path | None,
    picture_path: Path | None,
    threads: int | None,
    device: int,
    reader: ImageReader,
    said: Foreign,
) -> None:
    """mIoU of MODEL (an engine plan, an ONNX model or a network's safetensors) on a labelled dataset."""
    from ..datasets import open_dataset
    from ..evaluation.evaluate import evaluate
    from ..files import check_writable
    from ..pipeline import open_any
    from .show import progress_bar

    for path in filter(None, (json_path, picture_path)):
        check_writable(path)
    dataset = open_dataset(dataset_name, root, split, reader)
    with open_any(model, device=device, threads=threads, said=said) as runner, progress_bar() as progress:
        found = evaluate(runner, dataset, progress)
    _save(found, json_path, picture_path)
    _print(found)


def _save(found: Evaluation, json_path: Path | None, picture_path: Path | None) -> None:
    import json

    from ..files import write_atomic
    from ..pictures.confusion import draw_confusion

    if json_path is not None:
        write_atomic(json_path, json.dumps(found.to_json(), indent=1, ensure_ascii=False).encode() + b"\n")
    if picture_path is not None:
        title = f"{found.model} on {found.dataset} {found.split}: percent of the true class (row)"
        write_atomic(picture_path, draw_confusion(found.matrix, found.names, title).encode())


def _print(found: Evaluation) -> None:
    from .show import console, table

    total = max(1, int(found.matrix.sum()))
    values = found.scores
    rows = [
        (name, _percent(values.iou[name]), _percent(values.recall[name]), _percent(float(found.matrix[index].sum()) / total))
        for index, name in enumerate(found.names)
    ]
    title = f"{found.model} on {found.dataset} {found.split}, {found.frames} frames"
    out = console()
    out.print(table(title, ("class", "IoU %", "recall %", "share %"), rows, right=(1, 2, 3)))
    out.print(f"mIoU {_percent(values.miou)} %, pixel accuracy {_percent(values.pixel_accuracy)} %")
    if found.note:
        out.print(found.note, markup=False)


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.2f}"
