"""How much label maps flicker from frame to frame, and what smoothing the logits over time does to flicker and to mIoU.

    python benchmarks/flicker.py VIDEO --root CAMVID [--model FILE] [--smooth 0.3 0.5 0.7] [--json FILE]

The video's frame i has the i-th label map of the split. The shipped network was trained on val: give --model to score another one.
Every amount is one pass of `rtformer_deploy.segment` over the video.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness import Json

if TYPE_CHECKING:
    from rtformer_deploy.datasets import Dataset
    from rtformer_deploy.runtime.runner import Runner

OUTPUT = harness.RESULTS / "flicker.json"


def shipped_model(folder: Path) -> Path:
    """The shipped network, exported at its recipe's size."""
    from rtformer_deploy import choose_network, export_model, save_model

    choice = choose_network(variant="slim")
    save_model(export_model(choice.network, choice.recipe.spec(sha256=choice.sha256)).model, folder / "model.onnx")
    return folder / "model.onnx"


def one_pass(video: Path, dataset: Dataset, runner: Runner, smooth: float | None) -> Json:
    """A pass over the video: its flicker, overall and by class, and its scores against the label maps."""
    from rtformer_deploy import segment
    from rtformer_deploy.evaluation.flicker import Flicker
    from rtformer_deploy.evaluation.metrics import confusion, scores

    names = runner.spec.classes
    flicker, matrix = Flicker(len(names)), None
    for result, sample in zip(segment(video, runner, smooth=smooth), dataset.samples, strict=True):
        assert result.time is not None
        flicker.add(result.frame, result.labels, result.time)
        part = confusion(dataset.read_label(sample), result.labels, len(names), dataset.labels.ignore_index)
        matrix = part if matrix is None else matrix + part
    assert matrix is not None
    found = flicker.to_json(names)
    del found["frames"]
    return {"smooth": smooth, "flicker": found.pop("share"), **found, **scores(matrix, names).to_json()}


def measure(arguments: argparse.Namespace) -> Json:
    from rtformer_deploy import open_any
    from rtformer_deploy.datasets import open_dataset

    dataset = open_dataset("camvid", arguments.root, arguments.split)
    with tempfile.TemporaryDirectory() as folder, open_any(arguments.model or shipped_model(Path(folder))) as runner:
        passes = []
        for amount in (None, *arguments.smooth):
            passes.append(one_pass(arguments.video, dataset, runner, amount))
            print(f"smooth {amount or 0:.2f}: flicker {passes[-1]['flicker']:.2%}, mIoU {100 * passes[-1]['miou']:.2f}", flush=True)
    return harness.stamped("flicker and mIoU of a video", {"video": arguments.video.name, "split": arguments.split, "passes": passes})


def main() -> int:
    parser = harness.command_line(__doc__, OUTPUT)
    parser.add_argument("video", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", type=Path, help="a plan or an ONNX model [default: the shipped network]")
    parser.add_argument("--smooth", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.85])
    arguments = parser.parse_args()
    return 1 if harness.run_script(arguments.json, lambda: measure(arguments)) is None else 0


if __name__ == "__main__":
    sys.exit(main())
