"""What `calibrate` does with files: a model and a folder of images in, Ranges out; a checkpoint beside the output lets it go on."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..calibrate import DEFAULT_METHOD, observer
from ..calibrate.collect import Collector, float_tensors, restore, state
from ..errors import CalibrationError, ImageError, first_line
from ..files import check_writable, read_bytes, sha256, write_atomic
from ..formats.archive import open_stored
from ..formats.external_model import Foreign
from ..formats.model_file import load_model, serialize_model
from ..formats.ranges import save_ranges
from ..graph.functions import inline_functions
from ..image.frames import load_image, preprocess
from ..pipeline import spec_of
from ..types import ModelSpec, Progress, Ranges, Say, no_progress

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
_EVERY = 25  # images between two checkpoints


def calibrate_file(
    model_path: Path,
    images: Path,
    output: Path | None,
    *,
    method: str = DEFAULT_METHOD,
    limit: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    said: Foreign | None = None,
    say: Say = print,
    progress: Progress = no_progress,
) -> Ranges:
    """Measures the ranges of a model's tensors on images, `limit` of them drawn with `seed`; writes them where `output` is given.

    An interrupted run goes on from its checkpoint where model and images are the same. Raises CalibrationError, ModelError, OutputError.
    """
    choose = observer(method)
    if output is not None:
        check_writable(output)
    model = load_model(model_path)
    spec = spec_of(model, model_path.name, said)
    paths = pick_images(images, limit, seed)
    inlined = inline_functions(model)
    collector = Collector(inlined, float_tensors(model, inlined), threads)
    names = [str(path.relative_to(images)) for path in paths]
    identity = sha256(json.dumps([sha256(serialize_model(model)), names]).encode())
    checkpoint = None if output is None else output.with_name(f".{output.name}.calibration.npz")
    start = _resume(collector, checkpoint, identity, say)
    coloured = _show_all(collector, paths, spec, start, checkpoint, identity, progress)
    if not coloured:
        raise CalibrationError(f"Every image in {images} has one colour, so there are no ranges to measure.", "Give images of real scenes.")
    amax = {name: float(np.float32(choose(histogram))) for name, histogram in collector.histograms.items()}
    dead = sorted(name for name, value in amax.items() if value == 0)
    if dead:
        say(f"{len(dead)} tensors were zero on every image; what reads them stays in high precision: {', '.join(dead[:5])}")
    ranges = Ranges(amax, method, len(paths), spec.sha256 or sha256(serialize_model(model)), spec.name)
    if output is not None:
        save_ranges(ranges, output)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return ranges


def pick_images(folder: Path, limit: int | None, seed: int) -> list[Path]:
    """A folder's images, those of its folders too, sorted; `limit` of them drawn with `seed`. Raises CalibrationError for none."""
    if not folder.is_dir():
        raise CalibrationError(f"{folder} is not a folder of images.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not paths:
        raise CalibrationError(f"There are no images in {folder}.", f"Known are: {', '.join(sorted(_SUFFIXES))}.")
    if limit is not None and limit < len(paths):
        chosen = np.random.default_rng(seed).choice(len(paths), limit, replace=False)
        paths = [paths[index] for index in sorted(chosen)]
    return paths


def _show_all(
    collector: Collector,
    paths: Sequence[Path],
    spec: ModelSpec,
    start: tuple[int, bool],
    checkpoint: Path | None,
    identity: str,
    progress: Progress,
) -> bool:
    """Shows the images from `start` on; whether any of them has more than one colour."""
    first, coloured = start
    batch = spec.input.shape[0]
    repeats = batch if isinstance(batch, int) else 1
    for index in range(first, len(paths)):
        try:
            frame = load_image(paths[index])
        except ImageError as error:
            raise CalibrationError(f"The image {paths[index]} cannot be read: {error.what}", "Remove it, or mend it.") from error
        coloured = coloured or bool(np.any(frame != frame[0, 0]))
        ready = preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)
        collector.show(np.repeat(ready[None], repeats, 0), str(paths[index]))
        progress("Calibrate", index + 1, len(paths))
        if checkpoint is not None and (index + 1) % _EVERY == 0:
            buffer = io.BytesIO()
            arrays: dict[str, Any] = {
                "identity": np.array(identity),
                "done": np.array([index + 1, coloured]),
                **state(collector.histograms),
            }
            np.savez(buffer, **arrays)
            write_atomic(checkpoint, buffer.getvalue())
    return coloured


def _resume(collector: Collector, checkpoint: Path | None, identity: str, say: Say) -> tuple[int, bool]:
    """Images done and whether one had colours, from a checkpoint of the same model and images; a broken one is passed over, and said so."""
    if checkpoint is None or not checkpoint.is_file():
        return 0, False
    try:
        data = read_bytes(checkpoint, CalibrationError, "a calibration's checkpoint")
        open_stored(data).close()
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            if str(arrays["identity"]) != identity:
                say(f"{checkpoint} belongs to another model or other images; beginning anew.")
                return 0, False
            restore(collector.histograms, arrays)
            done, coloured = (int(value) for value in arrays["done"])
    except (CalibrationError, zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError, MemoryError) as error:
        say(f"{checkpoint} cannot be read ({first_line(error)}); beginning anew.")
        return 0, False
    say(f"Going on after {done} images.")
    return done, bool(coloured)
