"""What `calibrate` does with files: a model and a folder of images in, Ranges out; a checkpoint beside the output lets it go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..calibrate import DEFAULT_METHOD, choose_amax, observer
from ..calibrate.checkpoint import Checkpoint, Counted, checkpoint_path
from ..calibrate.collect import Collector, float_tensors, show_frame
from ..calibrate.histogram import Histogram
from ..errors import CalibrationError, ImageError
from ..files import sha256
from ..formats.external_model import ExternalModel
from ..formats.model_file import serialize_model, weights_sha256
from ..formats.preprocessing import prepared
from ..formats.ranges import LEVELS, SMALLEST_NORMAL, save_ranges
from ..graph.edit import clone
from ..graph.functions import inline_functions
from ..graph.quantised import refuse_quantised
from ..image.frames import images_in
from ..image.odd_files import OddFiles
from ..image.reader import ImageReader
from ..pipeline import read_model
from ..types import Feedback, Frame, ModelSpec, Progress, Ranges, Say
from .kinds import CALIBRATION, RANGES
from .outputs import Output, check_outputs, file_inputs, model_inputs

_EVERY = 25  # images between two checkpoints


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """Which model to measure on which folder of images, `limit` of them (None: all) drawn with `seed`. Without `output` no file is written.

    `reader` reads the images; None makes one that reports to the run's `say`. `cluster` is the address of a Ray cluster (None: this
    machine alone), `stall` how long it may give nothing back, in seconds.
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
    cluster: str | None = None
    stall: float = 300.0


def calibrate_file(request: CalibrateRequest, feedback: Feedback, odd: OddFiles | None = None) -> Ranges:
    """Measures the ranges of a model's tensors on images, and writes them to `request.output`.

    An interrupted run goes on from its checkpoint if model and preprocessing are the same, and no image that it has counted is gone or
    has changed. An image that cannot be read goes to `odd` and the ranges are those of the others; without `odd` the first one is an
    error. Raises CalibrationError, ModelError, OutputError.
    """
    observer(request.method)  # a method that does not exist is an error before the work
    if request.cluster is not None:
        from ..cluster.nodes import check_address

        check_address(request.cluster)
    odd = odd or OddFiles()
    reader = request.reader or ImageReader(say=feedback.say)
    if request.output is not None:
        inputs = [*model_inputs(request.model), *file_inputs(request.external.classes)]
        check_outputs([Output(request.output, RANGES), Output(checkpoint_path(request.output), CALIBRATION, updated=True)], inputs)
    model, spec = read_model(request.model, request.external)
    refuse_quantised(model, "calibrate")
    paths = pick_images(request.images, request.limit, request.seed, feedback.say)
    images = {str(path.relative_to(request.images)): path for path in paths}
    odd.total = len(images)
    inlined = inline_functions(clone(model))
    tensors = float_tensors(model, inlined)
    collector = None if request.cluster is not None else Collector(inlined, tensors, request.threads)
    histograms = {name: Histogram() for name in tensors} if collector is None else collector.histograms
    checkpoint = Checkpoint(request.output, _basis(model, spec, reader), histograms)
    counted = checkpoint.resume(images, feedback.say)
    if collector is None:
        _measure(request, inlined, spec, histograms, images, counted, checkpoint, odd, feedback.progress)
    else:
        _show_all(collector, images, spec, counted, checkpoint, reader, odd, feedback.progress)
    if not counted.coloured:
        what = f"No image in {request.images} has more than one colour, so there are no ranges to measure."
        details = [odd.title(), *odd.lines()] if odd.errors else []
        raise CalibrationError(what, "Give images of real scenes.", details=details)
    amax = {name: choose_amax(histogram, request.method) for name, histogram in histograms.items()}
    dead = sorted(name for name, value in amax.items() if value == 0)
    if dead:
        feedback.say(_about_dead(dead))
    weights, shown = weights_sha256(model, spec), len(counted.hashes)
    ranges = Ranges(amax, request.method, shown, weights, spec.name, **prepared(spec))
    if request.output is not None:
        save_ranges(ranges, request.output)
    checkpoint.remove()
    return ranges


def _about_dead(names: list[str]) -> str:
    verb = "1 tensor was" if len(names) == 1 else f"{len(names)} tensors were"
    tiny = f"(or below {LEVELS * SMALLEST_NORMAL:.1e})"
    return f"{verb} zero on every image {tiny}; what reads them stays in high precision: {', '.join(names[:5])}"


def pick_images(folder: Path, limit: int | None, seed: int, say: Say = print) -> list[Path]:
    """The images of a folder and its sub-folders, sorted; `limit` of them drawn with `seed`. Raises CalibrationError if there are none.

    The draw depends on the names alone: if an image comes or goes, at most one of the drawn ones is another.
    """
    if not os.path.isdir(folder):
        raise CalibrationError(f"{folder} is not a folder of images.")
    try:
        paths = images_in(folder, say)
    except ImageError as error:
        raise CalibrationError(f"There are no images in {folder}.", error.hint) from error
    if limit is None:
        return paths
    return sorted(sorted(paths, key=lambda path: sha256(os.fsencode(f"{seed} {path.relative_to(folder)}")))[:limit])


def hash_of_readable(folder: Path, reader: ImageReader, odd: OddFiles, say: Say) -> str:
    """The hash of the images that `calibrate_file` counts in a folder: of their names and contents. The others go to `odd`."""
    paths = pick_images(folder, None, 0, say)
    odd.total = len(paths)
    images = ((str(path.relative_to(folder)), _read(path, reader, odd)) for path in paths)
    return sha256(json.dumps([[name, image[1]] for name, image in images if image is not None]).encode())


def _basis(model: ir.Model, spec: ModelSpec, reader: ImageReader) -> dict[str, Any]:
    """What the histograms depend on besides the images. The method is not part of it: it reads them at the end."""
    return {
        "model": sha256(serialize_model(model)),
        "size": spec.size,
        **prepared(spec),
        "bit depth": reader.bit_depth,
    }


def _show_all(
    collector: Collector,
    images: Mapping[str, Path],
    spec: ModelSpec,
    counted: Counted,
    checkpoint: Checkpoint,
    reader: ImageReader,
    odd: OddFiles,
    progress: Progress,
) -> None:
    """Shows the images that are not counted yet to the collector, and counts them."""
    waiting = [name for name in images if name not in counted.hashes]
    for done, name in enumerate(waiting, 1):
        image = _read(images[name], reader, odd)
        if image is not None:
            frame, digest = image
            show_frame(collector, frame, spec, str(images[name]))
            counted.hashes[name] = digest
            counted.coloured = counted.coloured or bool(np.any(frame != frame[0, 0]))
        progress("Calibrate", len(images) - len(waiting) + done, len(images))
        if done % _EVERY == 0:
            checkpoint.save(counted)


def _measure(
    request: CalibrateRequest,
    inlined: ir.Model,
    spec: ModelSpec,
    histograms: Mapping[str, Histogram],
    images: Mapping[str, Path],
    counted: Counted,
    checkpoint: Checkpoint,
    odd: OddFiles,
    progress: Progress,
) -> None:
    """Measures the images that are not counted yet on a cluster, and counts them."""
    from ..cluster.flow import Cluster
    from ..cluster.measuring import Chunk, Measure, measure_on_cluster
    from ..cluster.parcel import pack_model

    def take(chunk: Chunk) -> None:
        for error in chunk.errors:
            odd.add(error)
        for name, histogram in chunk.histograms.items():
            histograms[name].merge(histogram)
        counted.hashes.update(chunk.hashes)
        counted.coloured = counted.coloured or chunk.coloured
        checkpoint.save(counted)

    assert request.cluster is not None
    waiting = {name: path for name, path in images.items() if name not in counted.hashes}
    depth = None if request.reader is None else request.reader.bit_depth
    measure = Measure(pack_model(str(request.model), serialize_model(inlined)), spec, tuple(histograms), waiting, depth)
    measure_on_cluster(Cluster(request.cluster, request.threads, request.stall), measure, take, progress)


def _read(path: Path, reader: ImageReader, odd: OddFiles) -> tuple[Frame, str] | None:
    """An image's frame and the hash of its file; None if it cannot be read and the run continues with the others."""
    try:
        return reader.load_with_hash(path)
    except ImageError as error:
        odd.add(CalibrationError(error.what, error.hint))
        return None
