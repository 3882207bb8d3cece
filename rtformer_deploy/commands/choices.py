"""Choices that several commands make from their options: the backend and whether it runs here, and the ranges for INT8 and FP8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..backends import backend_row, choose_backend
from ..errors import CalibrationError, EngineError, UsageError
from ..formats.ranges import load_ranges, shipped_ranges
from ..nvidia.driver import gpus, why_none
from ..pipeline import opening_notes
from ..types import Backend, ModelSpec, PrecisionName, Ranges, Say


@dataclass(frozen=True, slots=True)
class RangesSource:
    """Where the ranges for INT8 and FP8 come from: a `file`, or `images` to measure them on; if neither, those that come with the recipe.

    Raises UsageError for both.
    """

    file: Path | None = None
    images: Path | None = None

    def __post_init__(self) -> None:
        if self.file and self.images:
            raise UsageError("--ranges and --images cannot be combined.")

    def is_set(self) -> bool:
        return self.file is not None or self.images is not None


def pick_ranges(
    source: RangesSource, spec: ModelSpec, measure: Callable[[Path], Ranges], say: Say, precision: PrecisionName = "int8"
) -> Ranges:
    """A source -> its ranges; `measure` takes a folder of images. Raises CalibrationError if none come with the recipe."""
    if source.file is not None:
        return load_ranges(source.file, say)
    if source.images is not None:
        say(f"Calibrating on {source.images} ...")
        return measure(source.images)
    shipped = shipped_ranges(spec)
    if shipped is None:
        raise CalibrationError(
            f"{precision.upper()} needs ranges, and none come with {spec.name} for these weights.",
            "Give --images DIR, or --ranges FILE from rtformer-deploy calibrate.",
        )
    say(f"Ranges: those that come with {spec.name} ({shipped.method}, {shipped.images} images).")
    return shipped


def pick_backend(asked: str, say: Say) -> Backend:
    """The value of --backend -> the backend; for "auto" the one for this machine, with a line to `say` about why."""
    if asked != "auto":
        return asked
    backend, reason = choose_backend()
    say(f"Backend {backend}: {reason}")
    return backend


def refuse_unrunnable(who: str, spec: ModelSpec, backend: Backend, device: int) -> None:
    """Raises EngineError if engines of `backend` cannot run on this machine, which `who`, a command or an option, has to do."""
    for note in opening_notes(spec, backend):
        raise EngineError(f"{who} runs every engine it builds. {note}")
    refuse_missing_gpu(who, backend, device)


def refuse_missing_gpu(who: str, backend: Backend, device: int) -> None:
    """Raises EngineError if `backend` needs a GPU and this machine has no such `device`; see `refuse_unrunnable`."""
    if not backend_row(backend).on_gpu:
        return
    devices = gpus()
    if devices and device >= len(devices):
        raise EngineError(f"There is no GPU {device} here; there are {len(devices)}, counted from 0.")
    if not devices:
        raise EngineError(
            f"{who} runs every engine it builds, and there is no GPU here for {backend} ({why_none()}).",
            "Run it on the machine that the engine is for, or choose --backend openvino.",
        )
