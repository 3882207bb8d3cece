"""Images and folders in, label maps and coloured overlays out, one outcome an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError, ImageError, OutputError
from ..files import make_folder
from ..image.frames import images_in, load_image, overlay, save_png
from ..types import Frame, LabelMap, Progress, Runner, no_progress

LABELS, OVERLAY = "_labels.png", "_overlay.png"


@dataclass(frozen=True, slots=True)
class Job:
    """An image and where its two outputs go."""

    image: Path
    labels: Path
    overlay: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image: `shares` is the share of pixels of each class, (classes,); or `error` says why there is none."""

    job: Job
    size: tuple[int, int] | None = None
    shares: NDArray[np.float64] | None = None
    error: DeployError | None = None


def segment(
    runner: Runner,
    jobs: Sequence[Job],
    output: Path,
    *,
    alpha: float = 0.5,
    batch: int = 1,
    progress: Progress = no_progress,
) -> Iterator[Outcome]:
    """Makes the folder `output`, runs the jobs `batch` at a time and yields an Outcome each, in order, when its files are written.

    `labels` gets the class ids as an 8-bit grey PNG, `overlay` the picture with the classes' colours over it (`alpha` 0: the picture
    alone, 1: the colours alone); both at the image's own upright size, each written whole or not at all. An image that
    cannot be decoded yields an Outcome with its error and stops nothing. Raises OutputError where nothing can be written.
    """
    make_folder(output)
    done = 0
    for start in range(0, len(jobs), batch):
        group = jobs[start : start + batch]
        loaded = [_load(job) for job in group]
        frames = [item for item in loaded if not isinstance(item, ImageError)]
        maps = iter(runner.run(frames) if frames else [])
        for job, item in zip(group, loaded, strict=True):
            outcome = Outcome(job, error=item) if isinstance(item, ImageError) else _write(runner, job, item, next(maps), alpha)
            done += 1
            progress("images", done, len(jobs))
            yield outcome


def plan_jobs(inputs: Sequence[Path], output: Path) -> list[Job]:
    """Images and folders (one level, sorted, image suffixes only) to jobs whose outputs in `output` do not meet.

    An image NAME.EXT gives NAME_labels.png and NAME_overlay.png. Where two images share a name, their suffix, then their folder, then a
    number is put into it. An image named twice is done once. Outputs of an earlier run in `output` are not taken for input.
    Raises ImageError where a folder holds no image, OutputError where an output would overwrite an input.
    """
    images = list({image.absolute(): image for path in inputs for image in _images(path, output)}.values())
    names = output_names(images)
    jobs = [Job(image, output / f"{name}{LABELS}", output / f"{name}{OVERLAY}") for image, name in zip(images, names, strict=True)]
    sources = {image.resolve() for image in images}
    for job in jobs:
        for target in (job.labels, job.overlay):
            if target.resolve() in sources:
                raise OutputError(f"{target}, which {job.image} would be written to, is itself an input.", "Choose another --output.")
    return jobs


def output_names(images: Sequence[Path]) -> list[str]:
    """One name an image, none of them twice, also where the file system does not tell capitals apart."""
    forms: tuple[Callable[[Path], str], ...] = (
        lambda image: image.stem,
        lambda image: f"{image.stem}_{image.suffix[1:]}",
        lambda image: f"{image.absolute().parent.name}_{image.stem}",
        lambda image: f"{image.absolute().parent.name}_{image.stem}_{image.suffix[1:]}",
    )
    names: dict[int, str] = {}
    for form in forms:
        count = Counter(form(image).casefold() for image in images)
        taken = {name.casefold() for name in names.values()}
        for index, image in enumerate(images):
            name = form(image)
            if index not in names and count[name.casefold()] == 1 and name.casefold() not in taken:
                names[index] = name
                taken.add(name.casefold())
    taken = {name.casefold() for name in names.values()}
    for index, image in enumerate(images):
        if index not in names:
            names[index] = _numbered(forms[-1](image), taken)
    return [names[index] for index in range(len(images))]


def _numbered(name: str, taken: set[str]) -> str:
    number = 1
    while f"{name}_{number}".casefold() in taken:
        number += 1
    taken.add(f"{name}_{number}".casefold())
    return f"{name}_{number}"


def class_shares(labels: LabelMap, classes: int) -> NDArray[np.float64]:
    """A label map to the share of pixels of each class, (classes,)."""
    return np.bincount(labels.ravel(), minlength=classes)[:classes] / labels.size


def _images(path: Path, output: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    images = images_in(path)
    if path.resolve() == output.resolve():
        stems = {image.stem for image in images}
        images = [image for image in images if not _is_output(image, stems)]
    return images


def _is_output(image: Path, stems: set[str]) -> bool:
    """Whether the file was written by an earlier run over its own folder."""
    return any(image.name.endswith(end) and image.name.removesuffix(end) in stems for end in (LABELS, OVERLAY))


def _load(job: Job) -> Frame | ImageError:
    try:
        return load_image(job.image)
    except ImageError as error:
        return error


def _write(runner: Runner, job: Job, frame: Frame, labels: LabelMap, alpha: float) -> Outcome:
    save_png(job.labels, labels)
    save_png(job.overlay, overlay(frame, labels, runner.spec.palette, alpha))
    return Outcome(job, (frame.shape[0], frame.shape[1]), class_shares(labels, len(runner.spec.classes)))
