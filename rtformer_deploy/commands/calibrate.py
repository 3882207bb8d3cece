"""What `calibrate` does with files: a model and a folder of images in, Ranges out; a checkpoint beside the output lets it go on."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..calibrate import DEFAULT_METHOD, observer
from ..calibrate.collect import Collector, float_tensors, restore, state
from ..errors import CalibrationError, ImageError, first_line
from ..files import read_bytes, remove, sha256, write_atomic
from ..formats.archive import open_stored
from ..formats.external_model import ExternalModel
from ..formats.model_file import load_model, serialize_model, weights_sha256
from ..formats.ranges import save_ranges
from ..graph.edit import clone
from ..graph.functions import inline_functions
from ..image.frames import images_in, preprocess
from ..image.odd_files import OddFiles
from ..image.reader import ImageReader
from ..pipeline import spec_of
from ..types import Feedback, Frame, ModelSpec, Progress, Ranges, Say
from .kinds import CALIBRATION, RANGES
from .outputs import Output, check_outputs, file_inputs, model_inputs

_EVERY = 25  # images between two checkpoints


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """Which model to measure on which folder of images, `limit` of them (None: all) drawn with `seed`. Without `output` no file is written.

    `reader` reads the images; None makes one that reports to the run's `say`.
    """

    model: Path
    images: Path
    output: Path | None = None
    method: str = DEFAULT_METHOD
    limit: int | None = None
    seed: int = 0
    reader: ImageReader | None = None
    threads: int | None = None
    external: ExternalModel = field(default_factory=ExternalModel)


def calibrate_file(request: CalibrateRequest, feedback: Feedback, odd: OddFiles | None = None) -> Ranges:
    """Measures the ranges of a model's tensors on images, and writes them to `request.output`.

    An interrupted run goes on from its checkpoint if model and images are the same. An image that cannot be read goes to `odd` and
    the ranges are those of the others; without `odd` the first one is an error. Raises CalibrationError, ModelError, OutputError.
    """
    choose, odd = observer(request.method), odd or OddFiles()
    reader = request.reader or ImageReader(say=feedback.say)
    if request.output is not None:
        inputs = [*model_inputs(request.model), *file_inputs(request.external.classes)]
        check_outputs([Output(request.output, RANGES), Output(checkpoint_path(request.output), CALIBRATION, updated=True)], inputs)
    model = load_model(request.model)
    spec = spec_of(model, request.model.name, request.external)
    paths = pick_images(request.images, request.limit, request.seed, feedback.say)
    odd.total = len(paths)
    inlined = inline_functions(clone(model))
    collector = Collector(inlined, float_tensors(model, inlined), request.threads)
    names = [str(path.relative_to(request.images)) for path in paths]
    identity = sha256(json.dumps([sha256(serialize_model(model)), names, reader.bit_depth]).encode())
    checkpoint = _Checkpoint(request.output, identity)
    start = checkpoint.resume(collector, odd, feedback.say)
    if not _show_all(collector, paths, spec, start, checkpoint, reader, odd, feedback.progress):
        what = f"No image in {request.images} has more than one colour, so there are no ranges to measure."
        details = [odd.title(), *odd.lines()] if odd.errors else []
        raise CalibrationError(what, "Give images of real scenes.", details=details)
    amax = {name: float(np.float32(choose(histogram))) for name, histogram in collector.histograms.items()}
    dead = sorted(name for name, value in amax.items() if value == 0)
    if dead:
        feedback.say(f"{len(dead)} tensors were zero on every image; what reads them stays in high precision: {', '.join(dead[:5])}")
    ranges = Ranges(amax, request.method, len(paths) - len(odd.errors), weights_sha256(model, spec), spec.name)
    if request.output is not None:
        save_ranges(ranges, request.output)
    checkpoint.remove()
    return ranges


def pick_images(folder: Path, limit: int | None, seed: int, say: Say = print) -> list[Path]:
    """The images of a folder and its sub-folders, sorted; `limit` of them drawn with `seed`. Raises CalibrationError if there are none."""
    if not folder.is_dir():
        raise CalibrationError(f"{folder} is not a folder of images.")
    try:
        paths = images_in(folder, say)
    except ImageError as error:
        raise CalibrationError(f"There are no images in {folder}.", error.hint) from error
    if limit is not None and limit < len(paths):
        indices = np.random.default_rng(seed).choice(len(paths), limit, replace=False)
        paths = [paths[index] for index in sorted(indices)]
    return paths


def checkpoint_path(output: Path) -> Path:
    """Where an interrupted run that writes `output` keeps what it has seen."""
    return output.with_name(f".{output.name}.calibration.npz")


class _Checkpoint:
    """What a run has seen so far, kept in a file beside its output; a run without an output keeps nothing."""

    def __init__(self, output: Path | None, identity: str) -> None:
        """`identity` stands for the model and the images. A checkpoint with another identity is not used."""
        self.path = None if output is None else checkpoint_path(output)
        self.identity = identity

    def resume(self, collector: Collector, odd: OddFiles, say: Say) -> tuple[int, bool]:
        """Fills the collector and the odd files from the file -> images done, and whether one of them had colours.

        If the file is broken or belongs to another run, it says so and starts from the first image.
        """
        if self.path is None or not self.path.is_file():
            return 0, False
        try:
            data = read_bytes(self.path, CalibrationError, "a calibration's checkpoint")
            open_stored(data).close()
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                if str(arrays["identity"]) != self.identity:
                    say(f"{self.path} belongs to another model or other images; beginning anew.")
                    return 0, False
                restore(collector.histograms, arrays)
                done, coloured = (int(value) for value in arrays["done"])
                odd.errors += [CalibrationError(str(what)) for what in arrays["odd"]]
        except (CalibrationError, zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, MemoryError) as error:
            say(f"{self.path} cannot be read ({first_line(error)}); beginning anew.")
            return 0, False
        say(f"Going on after {done} images.")
        return done, bool(coloured)

    def save(self, collector: Collector, odd: OddFiles, done: int, coloured: bool) -> None:
        if self.path is None:
            return
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            "identity": np.array(self.identity),
            "done": np.array([done, coloured]),
            "odd": np.array([error.what for error in odd.errors], np.str_),
            **state(collector.histograms),
        }
        np.savez(buffer, **arrays)
        write_atomic(self.path, buffer.getvalue())

    def remove(self) -> None:
        if self.path is not None:
            remove(self.path)


def _show_all(
    collector: Collector,
    paths: Sequence[Path],
    spec: ModelSpec,
    start: tuple[int, bool],
    checkpoint: _Checkpoint,
    reader: ImageReader,
    odd: OddFiles,
    progress: Progress,
) -> bool:
    """Shows the images from `start` on to the collector; returns whether any image has more than one colour."""
    first, coloured = start
    batch = spec.input.shape[0]
    repeats = batch if isinstance(batch, int) else 1
    for index in range(first, len(paths)):
        frame = _read(paths[index], reader, odd)
        if frame is not None:
            coloured = coloured or bool(np.any(frame != frame[0, 0]))
            ready = preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)
            collector.show(np.repeat(ready[None], repeats, 0), str(paths[index]))
        progress("Calibrate", index + 1, len(paths))
        if (index + 1) % _EVERY == 0:
            checkpoint.save(collector, odd, index + 1, coloured)
    return coloured


def _read(path: Path, reader: ImageReader, odd: OddFiles) -> Frame | None:
    """An image's frame; None if it cannot be read and the run continues with the others."""
    try:
        return reader.load(path)
    except ImageError as error:
        odd.add(CalibrationError(error.what, error.hint))
        return None
