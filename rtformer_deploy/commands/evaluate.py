"""What `evaluate` does with files: a model and a labelled dataset in; scores out, as JSON and as a picture."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from ..datasets import Dataset, open_dataset
from ..errors import UsageError
from ..evaluation.census import check_census, take_census
from ..evaluation.evaluate import Evaluation, Predictor, check_classes, evaluate
from ..evaluation.views import Views, predictor
from ..files import json_bytes, write_atomic
from ..formats.external_model import ExternalModel
from ..formats.safetensors_file import is_weights
from ..image.reader import ImageReader
from ..opening import open_any, open_scales
from ..pictures import require_report
from ..runtime.augmented import AugmentedRunner
from ..types import ModelSpec, Progress, no_progress
from .kinds import DRAWING, SCORES
from .outputs import check_outputs, file_inputs, model_inputs, outputs


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Which model on which split, how its images are read, and where the scores (JSON) and the confusion matrix (SVG) go, if anywhere.

    `flip` and `scales` average over views of each frame, `tiles` is the overlap in pixels of tiles (None: frames are not cut).
    `cluster` is the address of a Ray cluster (None: this machine alone), `stall` how long it may give nothing back, in seconds.
    """

    model: Path
    dataset: str
    root: Path
    split: str = "val"
    reader: ImageReader = field(default_factory=ImageReader)
    json_path: Path | None = None
    picture_path: Path | None = None
    threads: int | None = None
    device: int = 0
    external: ExternalModel = field(default_factory=ExternalModel)
    flip: bool = False
    scales: tuple[float, ...] = ()
    tiles: int | None = None
    cluster: str | None = None
    stall: float = 300.0


def evaluate_file(request: EvaluateRequest, progress: Progress = no_progress) -> Evaluation:
    """Scores a plan, an ONNX model or a network's weights on a labelled split and writes the files that were asked for.

    Weights see each frame at their recipe's `scale`, if it is below 1; what has one size resizes every frame to it. Every label is read
    before the first frame is run. Raises OutputError and MissingPackageError before the work, what opening the model and the dataset
    raise, DatasetError if there is nothing to score, and what `evaluate` raises.
    """
    inputs = [*model_inputs(request.model), *file_inputs(request.dataset, request.external.classes)]
    check_outputs(outputs((request.json_path, SCORES), (request.picture_path, DRAWING)), inputs)
    if request.picture_path is not None:
        require_report("--picture")
    dataset = open_dataset(request.dataset, request.root, request.split, request.reader)
    evaluation = _evaluate(request, dataset, progress) if request.cluster is None else _on_cluster(request, dataset, progress)
    if request.json_path is not None:
        write_atomic(request.json_path, json_bytes(evaluation.to_json()))
    if request.picture_path is not None:
        write_atomic(request.picture_path, _picture(evaluation).encode())
    return evaluation


def _evaluate(request: EvaluateRequest, dataset: Dataset, progress: Progress) -> Evaluation:
    with contextlib.ExitStack() as stack:
        runner = _open(request, stack)
        _check(runner.spec, dataset, progress)
        return evaluate(runner, dataset, progress)


def _on_cluster(request: EvaluateRequest, dataset: Dataset, progress: Progress) -> Evaluation:
    """The same on the nodes of a cluster. Raises UsageError for --scales, which needs weights."""
    from ..cluster.flow import Cluster
    from ..cluster.nodes import check_address
    from ..cluster.parcel import pack
    from ..cluster.scoring import evaluate_on_cluster

    assert request.cluster is not None
    check_address(request.cluster)
    if request.scales:
        raise UsageError("--scales cannot be combined with --cluster: it needs weights, and a cluster runs plans and ONNX models.")
    _refuse_both(request)
    parcel = pack(request.model, request.threads, request.external)
    _check(parcel.spec_info.spec, dataset, progress)
    where = Cluster(request.cluster, request.threads, request.stall)
    return evaluate_on_cluster(where, parcel, Views(request.flip, request.tiles), dataset, progress)


def _check(spec: ModelSpec, dataset: Dataset, progress: Progress) -> None:
    """Reads every label. Raises DatasetError if the split does not fit the model, or has nothing to score."""
    check_classes(spec, dataset)
    check_census(dataset, take_census(dataset, progress=progress), "score", one_class=True)


def _refuse_both(request: EvaluateRequest) -> None:
    if request.tiles is not None and (request.flip or request.scales):
        raise UsageError("--tiles cannot be combined with --flip and --scales.")


def _open(request: EvaluateRequest, stack: contextlib.ExitStack) -> Predictor:
    """What predicts: the model's own runner, or views of each frame through it. `stack` closes what is opened."""
    _refuse_both(request)
    if request.scales or (is_weights(request.model) and request.tiles is None):
        scales = request.scales or (1.0,)
        runners = [stack.enter_context(runner) for runner in open_scales(request.model, scales, request.threads)]
        return AugmentedRunner(runners, request.flip) if request.scales or request.flip else runners[0]
    runner = open_any(request.model, device=request.device, threads=request.threads, external=request.external)
    stack.enter_context(runner)
    return predictor(runner, Views(request.flip, request.tiles))


def _picture(evaluation: Evaluation) -> str:
    from ..pictures.confusion import draw_confusion

    title = f"{evaluation.model} on {evaluation.dataset} {evaluation.split}: percent of the true class (row)"
    return draw_confusion(evaluation.matrix, evaluation.names, title)
