"""What `triton` does with files: plans and ONNX models become a repository that Triton starts; a Triton that runs one is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import UsageError
from ..formats.external_model import ExternalModel
from ..nvidia.driver import gpus, why_none
from ..triton.check import Checked, check_running
from ..triton.client import TritonClient
from ..triton.layout import AcceleratorName, Settings, folders_of
from ..triton.repository import Served, check_place, load_manifest, repository_of, write_repository
from ..triton.source import Source, read_source
from ..triton.target import COMPATIBLE, Target
from ..types import Say
from .serve import model_names

#: The batch of an ONNX model that leaves it open.
LARGEST_BATCH = 8


@dataclass(frozen=True, slots=True)
class TritonRequest:
    """What a repository is made of and for. `names` are the models' names, by default their files' stems.

    None for `accelerator` means the one for this machine. `accelerator`, `fp16` and `largest_batch` are for ONNX models. `overwrite`: a
    repository that was changed or holds other models may be replaced.
    """

    models: tuple[Path, ...]
    names: tuple[str, ...] = ()
    target: Target = field(default_factory=Target)
    settings: Settings = field(default_factory=Settings)
    accelerator: AcceleratorName | None = None
    largest_batch: int | None = None
    external: ExternalModel = field(default_factory=ExternalModel)
    overwrite: bool = False


def write(folder: Path, request: TritonRequest, say: Say) -> None:
    """Models -> a repository in `folder`, swapped in whole; `say` gets what Triton's machine needs and how to start it.

    Everything is checked before anything is written. Raises a DeployError.
    """
    named = dict(zip(model_names(request.models, request.names), request.models, strict=True))
    _refuse_inside(folder, request.models)
    check_place(folder, named, overwrite=request.overwrite)
    largest = request.largest_batch or LARGEST_BATCH
    sources = [read_source(name, path, request.external, largest) for name, path in named.items()]
    request.target.check(sources)
    settings = _settings(request, sources, say)
    repository = repository_of(sources, folders_of(sources, settings), settings)
    left = write_repository(repository, folder)
    _report(folder, sources, repository.manifest.models, say)
    if left is not None:
        say(f"What was there before could not be removed and is now {left}.")


def check(folder: Path, address: str) -> Iterator[Checked]:
    """Each model of a repository -> what the Triton at an address gives for the sample. Raises OutputError, EngineError, GateError."""
    manifest = load_manifest(folder)
    client = TritonClient(address)
    try:
        yield from check_running(folder, manifest, client)
    finally:
        client.close()


def _refuse_inside(folder: Path, models: Sequence[Path]) -> None:
    """Raises UsageError for a model that is read from the repository that is to be replaced."""
    place = os.path.realpath(folder)
    for model in models:
        if Path(os.path.realpath(model)).is_relative_to(place):
            raise UsageError(f"{model} is in {folder}, which would be replaced.", "Name the model that it was made of.")


def _settings(request: TritonRequest, sources: Sequence[Source], say: Say) -> Settings:
    """The settings with the accelerator of ONNX models. Raises UsageError for options that no model uses."""
    settings = request.settings
    if not any(source.runs == "onnxruntime" for source in sources):
        options = {"--accelerator": request.accelerator, "--fp16": settings.fp16 or None, "--max-batch": request.largest_batch}
        for option, value in options.items():
            if value is not None:
                raise UsageError(f"{option} is for ONNX models, and no MODEL is one.", "Leave it out.")
        return settings
    accelerator = request.accelerator or _accelerator_here(say)
    if settings.fp16 and accelerator != "tensorrt":
        raise UsageError("--fp16 is for the accelerator tensorrt.", "Add --accelerator tensorrt, or leave --fp16 out.")
    return replace(settings, accelerator=accelerator)


def _accelerator_here(say: Say) -> AcceleratorName:
    if gpus():
        say(f"Accelerator tensorrt: there is a GPU here, {gpus()[0]}; --accelerator openvino is for a CPU.")
        return "tensorrt"
    say(f"Accelerator openvino: there is no GPU here ({why_none()}); --accelerator tensorrt is for a GPU.")
    return "openvino"


def _report(folder: Path, sources: Sequence[Source], models: Sequence[Served], say: Say) -> None:
    for source, model in zip(sources, models, strict=True):
        for need in model.needs:
            say(f"{model.name} needs {need}.")
        if not source.was_started:
            say(f"{model.name}: its configurations are checked with Triton's own schema; such a model was never started in Triton so far.")
    takes = ", ".join(f"{model.name} takes pictures and {model.name}_rgb RGB frames" for model in models)
    say(f"Wrote {folder}: {takes}.")
    compatible = f" {COMPATIBLE}" if any(COMPATIBLE in need for model in models for need in model.needs) else ""
    say(f"Start it: tritonserver --model-repository={folder}{compatible}")
    say(f"Check it: rtformer-deploy triton {folder} --check localhost:8000")
