"""The mean of the weights of several runs that began alike, and how it and each of them score on frames that none was trained on.

    python benchmarks/train_average.py --root CAMVID --output FILE [--split SPLIT] [--json FILE] WEIGHTS...

Runs that go on from the same weights with other seeds stay near one another, and the mean of their weights often scores above each ("model
soups", arXiv 2203.05482). Every file is a run's NAME.safetensors; the mean is taken in double precision and written in FP16.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import harness
import torch
from harness import Json
from int8 import HELD_OUT
from slim_camvid import RECIPE

from rtformer_deploy.datasets import Dataset, open_dataset
from rtformer_deploy.errors import UsageError
from rtformer_deploy.export.weights_choice import Choice, choose_network
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import StateDict
from rtformer_deploy.nn.weights import load_into, read_metadata, save_weights
from rtformer_deploy.training.scoring import score

_OF_ONE_RUN = ("miou", "steps")  # what a run's file says of itself alone


def mean_of(states: Sequence[Mapping[str, torch.Tensor]]) -> StateDict:
    """Weights of one network, several times -> their mean, in FP16. Running statistics are averaged like the weights."""
    names = [name for name, value in states[0].items() if value.is_floating_point()]
    return {name: torch.stack([state[name].double() for state in states]).mean(0).half() for name in names}


def percent(choice: Choice, dataset: Dataset, threads: int) -> Json:
    """A network and a dataset -> mIoU and IoU by class, in percent."""
    found = score(choice.network.eval(), dataset, choice.spec(), torch.device("cpu"), threads).to_json()
    iou = {name: None if value is None else round(100 * value, 2) for name, value in found["iou"].items()}
    return {"miou": round(100 * found["miou"], 2), "iou": iou}


def compare(arguments: argparse.Namespace) -> Json:
    """Scores every file, writes the mean and scores it."""
    if len(arguments.weights) < 2:
        raise UsageError("A mean is of two files or more.")
    if arguments.output.resolve() in {path.resolve() for path in arguments.weights}:
        raise UsageError(f"{arguments.output} is one of the runs: the mean would replace it.", "Choose another --output.")
    torch.set_num_threads(arguments.threads)
    dataset = open_dataset(load_recipe(arguments.recipe).dataset, arguments.root, arguments.split)
    states, runs = [], []
    for path in arguments.weights:
        choice = choose_network(recipe=arguments.recipe, weights=path)
        states.append({name: value.clone() for name, value in choice.network.state_dict().items()})
        metadata = read_metadata(path)
        runs.append({"steps": int(metadata["steps"]) if "steps" in metadata else None, **percent(choice, dataset, arguments.threads)})
        print(f"{path}: mIoU {runs[-1]['miou']}", flush=True)
    mean = mean_of(states)
    load_into(choice.network, mean, "the mean")
    average = percent(choice, dataset, arguments.threads)
    print(f"the mean: mIoU {average['miou']}", flush=True)
    said = {name: value for name, value in read_metadata(arguments.weights[0]).items() if name not in _OF_ONE_RUN}
    save_weights(mean, arguments.output, said)
    figures = {"split": dataset.split, "frames": len(dataset), "runs": runs, "mean": average}
    return harness.stamped("runs from the same weights and the mean of their weights: IoU in percent on held-out frames", figures)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = harness.command_line(__doc__)
    harness.add_threads(parser)
    parser.add_argument("weights", type=Path, nargs="+", help="the runs' weights")
    parser.add_argument("--root", type=Path, required=True, help="the dataset's folder")
    parser.add_argument("--output", type=Path, required=True, help="write the mean here")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--split", default=HELD_OUT, help="score these frames [default: %(default)s]")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    return 1 if harness.run_script(arguments.json, lambda: compare(arguments)) is None else 0


if __name__ == "__main__":
    raise SystemExit(main())
