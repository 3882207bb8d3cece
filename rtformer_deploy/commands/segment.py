"""Images and folders in, label maps and coloured overlays out, one outcome an image; sub-folders are mirrored."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError, ImageError, OutputError
from ..files import check_folder, clean_up, make_folder, remove
from ..image.frames import images_in, overlay, save_png
from ..image.png import is_ours
from ..image.reader import ImageReader, silent
from ..types import Frame, LabelMap, Progress, Runner, Say, no_progress
from .kinds import PICTURE
from .outputs import Output, refuse_foreign, refuse_meeting

LABELS, OVERLAY = "_labels.png", "_overlay.png"
#: Why one file cannot be written while its neighbours can: its name is too long or not allowed, or a folder already has that name.
_ITS_OWN = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST})


@dataclass(frozen=True, slots=True)
class Job:
    """An image and where its two outputs go."""

    image: Path
    labels: Path
    overlay: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one image: `shares` is the share of pixels of each class, (classes,); or `error` says why there is none."""

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
    reader: ImageReader | None = None,
    progress: Progress = no_progress,
) -> Iterator[Outcome]:
    """Makes the folder `output`, runs the jobs `batch` at a time and yields an Outcome each, in order, when its files are written.

    `labels` gets the class ids as an 8-bit grey PNG, `overlay` the picture with the classes' colours over it (`alpha` 0: the picture
    alone, 1: the colours alone); both at the image's own upright size, each written whole or not at all. An image that
    cannot be read, or whose outputs cannot have their names, yields an Outcome with its error and stops nothing. Raises OutputError
    if nothing can be written.
    """
    make_folder(output)
    for folder in {job.labels.parent for job in jobs}:
        clean_up(folder)
    reader, done = reader or ImageReader(), 0
    for start in range(0, len(jobs), batch):
        group = jobs[start : start + batch]
        loaded = [_load(job, reader) for job in group]
        frames = [item for item in loaded if not isinstance(item, ImageError)]
        maps = iter(runner.run(frames) if frames else [])
        for job, item in zip(group, loaded, strict=True):
            outcome = Outcome(job, error=item) if isinstance(item, ImageError) else _write(runner, job, item, next(maps), alpha)
            if outcome.error is not None:
                _remove_earlier(job)
            done += 1
            progress("images", done, len(jobs))
            yield outcome


def plan_jobs(inputs: Sequence[Path], output: Path, say: Say = silent, *, overwrite: bool = False) -> list[Job]:
    """Images and folders (with their sub-folders, sorted) to jobs whose outputs in `output` have different names.

    An image NAME.EXT gives NAME_labels.png and NAME_overlay.png, in the same sub-folder of `output` as
    in the input folder. If two images there share a name, their suffix, then their folder, then a number is added. An image named twice
    is done once. Outputs of an earlier run are not read as input; `say` gets a line for each folder that has files left out.
    Raises ImageError if a folder holds no image, OutputError if the folder `output` cannot be made or an output would overwrite an input
    or, without `overwrite`, a file that is no picture of this program.
    """
    images_by_path = {image.absolute(): (image, below) for path in inputs for image, below in _images(path, output, say)}
    together: dict[str, list[tuple[Path, Path]]] = {}
    for image, below in images_by_path.values():
        together.setdefault(str(below).casefold(), []).append((image, below))
    names: dict[Path, str] = {}
    for group in together.values():
        images = [image for image, _ in group]
        names.update(zip(images, output_names(images), strict=True))
    stems = {image: output / below / names[image] for image, below in images_by_path.values()}
    jobs = [Job(image, stem.with_name(f"{stem.name}{LABELS}"), stem.with_name(f"{stem.name}{OVERLAY}")) for image, stem in stems.items()]
    planned = [Output(path, PICTURE) for job in jobs for path in (job.labels, job.overlay)]
    refuse_meeting(planned, ((image, "itself an input") for image in stems), "Choose another --output.")
    if not overwrite:
        refuse_foreign(planned, "Choose another --output, or add --overwrite.")
    check_folder(output)
    return jobs


def output_names(images: Sequence[Path]) -> list[str]:
    """A unique name for each image, also on file systems that ignore case."""
    forms: tuple[Callable[[Path], str], ...] = (
        lambda image: image.stem,
        lambda image: f"{image.stem}_{image.suffix[1:]}",
        lambda image: f"{image.absolute().parent.name}_{image.stem}",
        lambda image: f"{image.absolute().parent.name}_{image.stem}_{image.suffix[1:]}",
    )
    names: dict[int, str] = {}
    for form in forms:
        count = Counter(form(image).casefold() for image in images)
        names_in_use = {name.casefold() for name in names.values()}
        for index, image in enumerate(images):
            name = form(image)
            if index not in names and count[name.casefold()] == 1 and name.casefold() not in names_in_use:
                names[index] = name
                names_in_use.add(name.casefold())
    names_in_use = {name.casefold() for name in names.values()}
    for index, image in enumerate(images):
        if index not in names:
            names[index] = _numbered(forms[-1](image), names_in_use)
    return [names[index] for index in range(len(images))]


def _numbered(name: str, names_in_use: set[str]) -> str:
    number = 1
    while f"{name}_{number}".casefold() in names_in_use:
        number += 1
    names_in_use.add(f"{name}_{number}".casefold())
    return f"{name}_{number}"


def class_shares(labels: LabelMap, classes: int) -> NDArray[np.float64]:
    """A label map to the share of pixels of each class, (classes,)."""
    return np.bincount(labels.ravel(), minlength=classes)[:classes] / labels.size


def _images(path: Path, output: Path, say: Say) -> list[tuple[Path, Path]]:
    """The images of an input, each with the sub-folder that it lies in."""
    if not path.is_dir():
        return [(path, Path())]
    images = images_in(path, say)
    if path.resolve() == output.resolve():
        stems = {image.with_suffix("") for image in images}
        images = [image for image in images if not _is_output(image, stems)]
    return [(image, image.parent.relative_to(path)) for image in images]


def _is_output(image: Path, stems: set[Path]) -> bool:
    """Whether the file was written by an earlier run over its own folder, by a version that did not mark its pictures yet."""
    ends = [end for end in (LABELS, OVERLAY) if image.name.endswith(end)]
    return any(image.with_name(image.name.removesuffix(end)) in stems for end in ends)


def _remove_earlier(job: Job) -> None:
    """Removes the pictures that an earlier run made of an image that fails now: they would pass for its result."""
    for path in filter(is_ours, (job.labels, job.overlay)):
        remove(path)


def _load(job: Job, reader: ImageReader) -> Frame | ImageError:
    try:
        return reader.load(job.image)
    except ImageError as error:
        return error


def _write(runner: Runner, job: Job, frame: Frame, labels: LabelMap, alpha: float) -> Outcome:
    try:
        make_folder(job.labels.parent)
        save_png(job.labels, labels)
        save_png(job.overlay, overlay(frame, labels, runner.spec.palette, alpha))
    except OutputError as error:
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in _ITS_OWN):
            raise
        return Outcome(job, error=error)
    return Outcome(job, (frame.shape[0], frame.shape[1]), class_shares(labels, len(runner.spec.classes)))
