"""What a contestant's label maps are worth: how far they agree with the model in ONNX Runtime, and their mIoU on labelled frames."""

from __future__ import annotations

from pathlib import Path

from ..agreement import Probes, compare_runner
from ..datasets import open_dataset
from ..evaluation.evaluate import evaluate
from ..pipeline import read_model
from ..runtime.frame_runner import FrameRunner
from ..types import BuildOptions
from .contestant import Check, Checked, Labelled


def check(runner: FrameRunner, request: Check, threads: int | None) -> Checked:
    """Runs the frames that every engine is tried on, and every frame of a labelled split if one is named.

    Raises what reading the model and the dataset and running the contestant raise.
    """
    model, spec = read_model(Path(request.model))
    batch = spec.input.shape[0]
    sizes = (batch, batch, batch) if isinstance(batch, int) else (1, 1, 1)
    found = compare_runner(runner, model, spec, BuildOptions(batch=sizes, threads=threads), Probes())
    miou = None if request.labelled is None else _miou(runner, request.labelled)
    return Checked(found.shares, miou, (*found.notes, *runner.notes))


def _miou(runner: FrameRunner, labelled: Labelled) -> float:
    return evaluate(runner, open_dataset(labelled.dataset, Path(labelled.root), labelled.split)).scores.miou
