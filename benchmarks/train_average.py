"""The mean of the weights of runs that are near one another, and how it and each of them score on frames that none was trained on.

    python benchmarks/train_average.py --root CAMVID --output FILE [--split SPLIT] [--pictures PICTURE...] [--json FILE] WEIGHTS...

Runs that go on from the same weights stay near those and near one another, and the mean of the weights may score above each ("model soups",
arXiv 2203.05482). Every file is a run's NAME.safetensors; the mean is taken in double precision and written in FP16, compressed if --output
ends with .xz. --pictures are of other scenes and have no labels: how much of each every class takes shows what a person may look for.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import harness
import torch
from harness import Json
from slim_camvid import HELD_OUT, RECIPE

from rtformer_deploy.backends.torch.run import open_network
from rtformer_deploy.datasets import Dataset, open_dataset
from rtformer_deploy.errors import UsageError, WeightsError
from rtformer_deploy.evaluation.evaluate import evaluate
from rtformer_deploy.export.weights_choice import Choice, choose_network
from rtformer_deploy.files import check_writable, sha256_of
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.formats.safetensors_file import SUFFIXES, is_weights
from rtformer_deploy.image.areas import class_areas
from rtformer_deploy.image.frames import load_image
from rtformer_deploy.nn import StateDict
from rtformer_deploy.nn.weights import read_metadata, save_weights

_OF_ONE_RUN = ("miou", "steps")  # what a run's file says of itself alone


def mean_of(states: Sequence[Mapping[str, torch.Tensor]]) -> StateDict:
    """Weights of one network, several times -> their mean, in FP16. Running statistics are averaged like the weights."""
    names = [name for name, value in states[0].items() if value.is_floating_point()]
    return {name: torch.stack([state[name].double() for state in states]).mean(0).half() for name in names}


def look(path: Path, arguments: argparse.Namespace, dataset: Dataset) -> tuple[Choice, Json]:
    """A file of weights -> its network, and what it gives in percent: IoU on a dataset, and how much of each picture every class takes."""
    choice = choose_network(recipe=arguments.recipe, weights=path)
    names = choice.labels.names
    with open_network(choice.network.eval(), choice.spec(), threads=arguments.threads) as runner:
        found = evaluate(runner, dataset).scores.to_json()
        labels = {picture.name: runner.run([load_image(picture)])[0] for picture in arguments.pictures}
    figures: Json = {"sha256": sha256_of(path, WeightsError, "weights"), "steps": read_metadata(path).get("steps")}
    figures |= {key: harness.percent(found[key]) for key in ("miou", "pixel_accuracy")}
    figures["iou"] = {name: harness.percent(value) for name, value in found["iou"].items()}
    figures["pictures"] = {
        name: {area.name: harness.percent(area.share) for area in class_areas(each, names)} for name, each in labels.items()
    }
    print(f"{path}: mIoU {figures['miou']}", flush=True)
    return choice, figures


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError or OutputError for arguments that would waste the work."""
    output, weights = arguments.output, arguments.weights
    if len(weights) < 2:
        raise UsageError("A mean is of two files or more.")
    if output.resolve() in {path.resolve() for path in (*weights, *([arguments.json] if arguments.json else []))}:
        raise UsageError(f"{output} is a run or the report: one would replace the other.", "Choose another --output.")
    if not all(map(is_weights, (output, *weights))):
        raise UsageError(f"Weights are read from and written to files that end with {' or '.join(SUFFIXES)}.")
    check_writable(output)


def compare(arguments: argparse.Namespace) -> Json:
    """Scores every file, writes the mean and scores what was written."""
    check(arguments)
    dataset = open_dataset(load_recipe(arguments.recipe).dataset, arguments.root, arguments.split)
    looked = [look(path, arguments, dataset) for path in arguments.weights]
    mean = mean_of([choice.network.state_dict() for choice, _ in looked])
    said = {name: value for name, value in read_metadata(arguments.weights[0]).items() if name not in _OF_ONE_RUN}
    save_weights(mean, arguments.output, said)
    _, average = look(arguments.output, arguments, dataset)
    figures = {"split": dataset.split, "frames": len(dataset), "runs": [run for _, run in looked], "mean": average}
    what = "runs and the mean of their weights: IoU on held-out frames and classes' shares of pictures without labels, in percent"
    return harness.stamped(what, figures)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__)
    harness.add_threads(parser)
    parser.add_argument("weights", type=Path, nargs="+", help="the runs' weights")
    parser.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    parser.add_argument("--output", type=Path, required=True, help="write the mean here")
    parser.add_argument("--pictures", type=Path, nargs="+", default=[], metavar="PICTURE", help="look at these too [default: none]")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--split", default=HELD_OUT, help="score these frames [default: %(default)s]")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    return 1 if harness.run_script(arguments.json, lambda: compare(arguments)) is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
