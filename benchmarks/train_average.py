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
import numpy as np
import torch
from harness import Json
from int8 import HELD_OUT
from slim_camvid import RECIPE

from rtformer_deploy.datasets import Dataset, open_dataset
from rtformer_deploy.errors import UsageError, WeightsError
from rtformer_deploy.export.weights_choice import Choice, choose_network
from rtformer_deploy.files import check_writable, sha256_of
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.formats.safetensors_file import SUFFIXES, is_weights
from rtformer_deploy.image.frames import load_image, preprocess, upsample_argmax
from rtformer_deploy.nn import StateDict
from rtformer_deploy.nn.weights import load_into, read_metadata, save_weights
from rtformer_deploy.training.scoring import score

_OF_ONE_RUN = ("miou", "steps")  # what a run's file says of itself alone


def mean_of(states: Sequence[Mapping[str, torch.Tensor]]) -> StateDict:
    """Weights of one network, several times -> their mean, in FP16. Running statistics are averaged like the weights."""
    names = [name for name, value in states[0].items() if value.is_floating_point()]
    return {name: torch.stack([state[name].double() for state in states]).mean(0).half() for name in names}


def scores_of(choice: Choice, dataset: Dataset, threads: int) -> Json:
    """A network and a dataset -> mIoU, pixel accuracy and IoU by class, in percent; None where nothing can be said."""
    found = score(choice.network.eval(), dataset, choice.spec(), torch.device("cpu"), threads).to_json()
    iou = {name: percent(value) for name, value in found["iou"].items()}
    return {"miou": percent(found["miou"]), "pixel_accuracy": percent(found["pixel_accuracy"]), "iou": iou}


def percent(value: float | None) -> float | None:
    """A share -> percent with two places."""
    return None if value is None else round(100 * value, 2)


@torch.inference_mode()
def shares_of(choice: Choice, pictures: Sequence[Path]) -> Json:
    """A network and pictures -> by the picture's name, how much of it each class takes, in percent."""
    spec, shares = choice.spec(), {}
    for path in pictures:
        frame = load_image(path)
        ready = preprocess(frame, spec.size, spec.mean, spec.std, spec.resize, corners=spec.resize_corners)
        logits = choice.network.eval()(torch.from_numpy(ready)[None])[0].numpy()
        labels = upsample_argmax(logits, frame.shape[:2], spec.size, spec.resize, corners=spec.resize_corners)
        counts = np.bincount(labels.ravel(), minlength=len(choice.labels.names))
        shares[path.name] = {name: percent(count / labels.size) for name, count in zip(choice.labels.names, counts.tolist(), strict=True)}
    return shares


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
    """Scores every file, writes the mean and scores it."""
    check(arguments)
    torch.set_num_threads(arguments.threads)
    dataset = open_dataset(load_recipe(arguments.recipe).dataset, arguments.root, arguments.split)

    def figures(choice: Choice, path: Path) -> Json:
        found = {"sha256": sha256_of(path, WeightsError, "weights"), **scores_of(choice, dataset, arguments.threads)}
        print(f"{path}: mIoU {found['miou']}", flush=True)
        return found | {"pictures": shares_of(choice, arguments.pictures)}

    states, runs = [], []
    for path in arguments.weights:
        choice = choose_network(recipe=arguments.recipe, weights=path)
        states.append({name: value.clone() for name, value in choice.network.state_dict().items()})
        runs.append({"steps": read_metadata(path).get("steps"), **figures(choice, path)})
    mean = mean_of(states)
    said = {name: value for name, value in read_metadata(arguments.weights[0]).items() if name not in _OF_ONE_RUN}
    save_weights(mean, arguments.output, said)
    load_into(choice.network, mean, "the mean")
    average = figures(choice, arguments.output)
    about = {"split": dataset.split, "frames": len(dataset)}
    what = "runs and the mean of their weights: IoU on held-out frames and classes' shares of pictures without labels, in percent"
    return harness.stamped(what, {**about, "runs": runs, "mean": average})


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
