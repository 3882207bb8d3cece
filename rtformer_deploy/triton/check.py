"""Asks a running Triton for the sample's labels, and compares them with what the repository's own engines give on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DeployError, GateError
from ..formats.engine_file import load_info
from ..formats.spec_file import load_spec
from ..image.areas import class_areas
from ..image.decode import decode_image
from ..opening import open_any
from ..types import Frame, LabelMap
from .client import TritonClient, frames_tensor, pictures_tensor
from .repository import Manifest, Served
from .sample import sample_picture
from .steps import ENGINE_FILES, SPEC

#: The share of pixels that another library or machine may give another class by rounding; more is a fault.
MOST_FLIPS = 0.01
_MOST_CLASSES = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """A model's labels of the sample: its largest classes, and how they compare with the engine here.

    `flips` is the share of pixels with another class; None if the engine cannot be opened here, and `why` says why.
    """

    name: str
    size: tuple[int, int]
    classes: tuple[tuple[str, float], ...]
    flips: float | None
    why: str = ""


def check_running(folder: Path, manifest: Manifest, client: TritonClient) -> Iterator[Checked]:
    """Each model of a repository in `folder` -> what the Triton that `client` asks makes of the sample.

    Raises EngineError if Triton has not got a model or gives wrong shapes, GateError if too many pixels differ.
    """
    picture = sample_picture()
    frame = decode_image(picture, "the sample")
    for model in manifest.models:
        yield _checked(model, folder, client, picture, frame)


def _checked(model: Served, folder: Path, client: TritonClient, picture: bytes, frame: Frame) -> Checked:
    for name in model.folders:
        client.check_ready(name)
    labels = client.infer(model.name, pictures_tensor([picture]), "labels")
    of_frame = client.infer(f"{model.name}_rgb", frames_tensor(frame[None]), "labels")
    wanted = (1, *frame.shape[:2])
    for name, found in ((model.name, labels), (f"{model.name}_rgb", of_frame)):
        if found.shape != wanted:
            raise GateError(f"{name} gave labels of {found.shape} for a frame of {wanted}.")
    if not np.array_equal(labels, of_frame):
        raise GateError(f"{model.name} and {model.name}_rgb give different labels for the same frame.")
    own, classes, why = _own(model, folder, frame)
    flips = None if own is None else float(np.mean(labels[0] != own))
    if flips is not None and flips > MOST_FLIPS:
        what = f"{model.name}: {flips:.1%} of the sample's pixels have another class than the same engine gives here."
        raise GateError(what, "Is the repository that Triton serves this one?")
    largest = sorted(class_areas(labels[0], classes), key=lambda area: -area.share)[:_MOST_CLASSES]
    return Checked(model.name, (wanted[1], wanted[2]), tuple((area.name, area.share) for area in largest if area.pixels), flips, why)


def _own(model: Served, folder: Path, frame: Frame) -> tuple[LabelMap | None, tuple[str, ...], str]:
    """What a repository's own engine gives here for a frame, its classes, and why it gives nothing if it cannot be opened here."""
    end = "rgb" if model.runs == "python" else "engine"
    path = folder / f"{model.name}_{end}" / "1" / ENGINE_FILES[model.runs]
    if model.runs == "python":
        classes = load_info(path).spec.classes
    else:
        classes = load_spec(folder / f"{model.name}_postprocess" / "1" / SPEC).classes
    try:
        with open_any(path) as runner:
            return runner.run([frame])[0], classes, ""
    except DeployError as error:
        return None, classes, error.what
