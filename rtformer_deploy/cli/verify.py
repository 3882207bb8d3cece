"""`rtformer-deploy verify`: two networks, models or engines, and where they first differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options

if TYPE_CHECKING:
    from ..evaluation.verify import Verification
    from ..formats.external_model import Foreign
    from ..image.reader import ImageReader


def _share(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """0.005 or 0.5% -> a share from 0 to 1."""
    if value is None:
        return None
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError as error:
        raise click.BadParameter("a share such as 0.005, or 0.5%") from error
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value} is no share from 0 to 1; write percent as 0.5%.")
    return share


@click.command("verify")
@click.argument("a", type=options.PATH)
@click.argument("b", type=options.PATH)
@click.argument("images", type=options.PATH, nargs=-1, metavar="IMAGES...")
@click.option("--dataset", "dataset_name", metavar="NAME|FILE", help="Compare on this labelled dataset too, with mIoU; needs --root.")
@click.option("--root", type=options.PATH, metavar="DIR", help="The dataset's folder.")
@click.option("--split", default="val", show_default=True, help="Which part of it.")
@click.option("--max-flips", callback=_share, metavar="X", help="Fail (exit 3) above this share of changed pixels: 0.005 or 0.5%.")
@click.option("--max-drop", type=float, metavar="Y", help="Fail (exit 3) above this loss of mIoU, in points; needs --dataset.")
@click.option("--margin", type=click.FloatRange(0), metavar="M", help="Margin in logits [default: twice the largest difference].")
@click.option("--json", "json_path", type=options.PATH, metavar="FILE", help="Write what was found here.")
@click.option("--picture", "picture_path", type=options.PATH, metavar="FILE", help="Write the worst image's changes here, as PNG.")
@options.reader
@options.stop_on_error
@options.foreign
@options.threads
@options.device
def command(
    a: Path, b: Path, images: tuple[Path, ...], dataset_name: str | None, root: Path | None, split: str,
    json_path: Path | None, picture_path: Path | None, max_flips: float | None, max_drop: float | None, margin: float | None,
    reader: ImageReader, stop_on_error: bool, said: Foreign, **where: Any,
) -> None:  # fmt: skip
    """Compares A with B (each a network's safetensors, an ONNX model or an engine plan) on images and folders."""
    from ..datasets import open_dataset
    from ..errors import UsageError
    from ..evaluation.verify import check_gates, dataset_items, image_items, said_about, verify
    from ..files import check_writable
    from ..image.odd_files import OddFiles
    from ..pipeline import open_any
    from .show import progress_bar

    if (dataset_name is None) != (root is None):
        raise UsageError("--dataset and --root belong together.")
    if max_drop is not None and dataset_name is None:
        raise UsageError("--max-drop needs labels.", "Give --dataset and --root.")
    if not images and dataset_name is None:
        raise UsageError("There is nothing to compare on.", "Name images or folders, or a dataset with --dataset and --root.")
    for path in filter(None, (json_path, picture_path)):
        check_writable(path)
    odd = OddFiles(stop_on_error)
    items, ignore, dataset = image_items(images, reader), 255, None
    if dataset_name is not None and root is not None:
        dataset = open_dataset(dataset_name, root, split, reader)
        ignore = dataset.labels.ignore_index
    about = said_about(a, said), said_about(b, said)
    if said.given() and not any(each.given() for each in about):
        raise UsageError("A and B both say themselves what they are.", "Leave --classes, --mean, --std and --input out.")
    with open_any(a, said=about[0], **where) as one, open_any(b, said=about[1], **where) as other, progress_bar() as progress:
        if dataset is not None:
            items += dataset_items(dataset, len(one.spec.classes))
        found = verify(one, other, items, names=(str(a), str(b)), margin=margin, ignore=ignore, odd=odd, progress=progress)
    _save(found, json_path, picture_path)
    _print(found)
    odd.raise_any()
    check_gates(found, max_flips, max_drop)


def _save(found: Verification, json_path: Path | None, picture_path: Path | None) -> None:
    import json

    from ..files import write_atomic
    from ..image.frames import save_png

    if json_path is not None:
        write_atomic(json_path, json.dumps(found.to_json(), indent=1, ensure_ascii=False).encode() + b"\n")
    if picture_path is not None and found.picture is not None:
        save_png(picture_path, found.picture)


def _print(found: Verification) -> None:
    from .show import console, table

    words = {True: "differs", False: "equal", None: "not compared"}
    out = console()
    rows = [(name, words[stage.differs], stage.detail) for name, (stage, _) in found.stages.items()]
    out.print(table(f"A and B, images: {found.images}", ("stage", "", "at most"), rows))
    first = found.first_difference
    out.print(f"First difference: {first} ({found.stages[first][1]})" if first else "No stage differs.", markup=False)
    split = "" if found.within is None else f" ({found.within / found.pixels:.4%} within the margin)"
    out.print(f"Changed pixels: {found.flips:.4%}{split}; most in {found.worst}", markup=False)
    out.print(f"Boundary F-score: {found.boundary:.4f} (within 0.75% of the diagonal)")
    both = found.scores
    if both is not None:
        lines = [(n, *(f"{100 * v:.2f}" for v in (both[0].iou[n], both[1].iou[n], both[1].iou[n] - both[0].iou[n]))) for n in found.classes]
        out.print(table("", ("class", "A IoU %", "B IoU %", "change"), lines, right=(1, 2, 3)))
        out.print(f"mIoU: A {100 * both[0].miou:.2f} %, B {100 * both[1].miou:.2f} %, drop {found.drop:.2f} points")
