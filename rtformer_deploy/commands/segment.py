"""What `segment` is asked to do -> images and clips with the places of their outputs; sub-folders are mirrored."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..files import check_folder
from ..image.frames import images_in
from ..image.reader import ImageReader, silent
from ..stream.inputs import readable_videos, refuse_objects, sort_inputs
from ..stream.live import LiveOptions
from ..types import Say
from .kinds import PICTURE
from .outputs import Output, refuse_foreign, refuse_meeting
from .segment_outputs import LABELS, OVERLAY, Clip, Job, names_by_folder
from .segment_streams import ClipOutputs, plan_clips

if TYPE_CHECKING:
    from ..cluster.pipeline import Run
    from ..image.selection import Selection
    from .segment_answers import Answers
    from .segment_cluster import ClusterRequest


@dataclass(frozen=True, slots=True)
class Request:
    """How videos and streams are read: `LiveOptions` says what these mean. `labels`: label maps are written of them too.

    `overlay`: overlays are written. `overwrite`: files that this program did not write may be replaced. `flicker`: it is measured of clips.
    """

    every: int = 1
    seconds: float | None = None
    retry_s: float = 60.0
    labels: bool = False
    overlay: bool = True
    overwrite: bool = False
    flicker: bool = False


def plan(given: Sequence[str | Path | int], output: Path, request: Request, reader: ImageReader) -> tuple[list[Job], list[Clip]]:
    """What a user names -> jobs for the images and clips for the rest; a number is a camera.

    Raises as `stream.inputs.sort_inputs`, `plan_jobs` and `plan_clips`.
    """
    inputs = sort_inputs(given)
    if not inputs:
        raise UsageError(
            f"{', '.join(map(str, given))} names nothing to segment.", "Write images, videos or addresses into it, one a line."
        )
    refuse_objects(inputs)
    jobs = plan_jobs(inputs.images, output, reader.say, overlay=request.overlay, overwrite=request.overwrite)
    live = LiveOptions(request.every, request.seconds, patience_s=request.retry_s, stubborn=inputs.streams > 1, say=reader.say)
    written = ClipOutputs(request.overlay, request.labels, request.flicker)
    clips = plan_clips(inputs, output, live, jobs, written, overwrite=request.overwrite)
    return jobs, clips


def plan_on_cluster(request: ClusterRequest, answers: Answers, choose: Callable[[tuple[str, ...]], Selection | None], say: Say) -> Run:
    """A run over a cluster, planned: its images named as `plan` names them, its manifest begun or found; raises as `prepare`.

    `choose` gives the pixels that are asked for, once the model's classes are known.
    """
    from ..cluster.parcel import pack
    from .segment_cluster import prepare, with_outputs

    parcel = pack(request.model, request.cluster.threads, request.external)
    return prepare(with_outputs(request, answers, choose(parcel.spec_info.spec.classes)), parcel, say)


def plan_jobs(inputs: Sequence[Path], output: Path, say: Say = silent, *, overlay: bool = True, overwrite: bool = False) -> list[Job]:
    """Images and folders (with their sub-folders, sorted) to jobs whose outputs in `output` have different names.

    An image NAME.EXT gives NAME_labels.png and, with `overlay`, NAME_overlay.png, in the same sub-folder of `output` as
    in the input folder. If two images there share a name, their suffix, then their folder, then a number is added. An image named twice
    is done once. Outputs of an earlier run are not read as input; `say` gets a line for each folder that has files left out.
    Raises ImageError if a folder holds no image, OutputError if the folder `output` cannot be made or an output would overwrite an input
    or, without `overwrite`, a file that is no picture of this program.
    """
    images_by_path = {image.absolute(): (image, below) for path in inputs for image, below in images_below(path, output, say)}
    images, folders = [image for image, _ in images_by_path.values()], [below for _, below in images_by_path.values()]
    names = names_by_folder(images, folders)
    stems = {image: output / below / name for image, below, name in zip(images, folders, names, strict=True)}
    pairs = {image: [stem.with_name(f"{stem.name}{end}") for end in (LABELS, OVERLAY)] for image, stem in stems.items()}
    jobs = [Job(image, labels, picture if overlay else None) for image, (labels, picture) in pairs.items()]
    planned = [Output(path, PICTURE) for job in jobs for path in (job.labels, job.overlay) if path is not None]
    refuse_meeting(planned, ((image, "itself an input") for image in stems), "Choose another --output.")
    if not overwrite:
        refuse_foreign(planned, "Choose another --output, or add --overwrite.")
    check_folder(output)
    return jobs


def images_below(path: Path, output: Path | None, say: Say) -> list[tuple[Path, Path]]:
    """The images of an input, each with the sub-folder that it lies in. `output` is the folder of the outputs, if it is one."""
    if not os.path.isdir(path):
        return [(path, Path())]
    images = images_in(path, say, readable_videos())
    if output is not None and os.path.realpath(path) == os.path.realpath(output):
        stems = {image.with_suffix("") for image in images}
        images = [image for image in images if not _is_output(image, stems)]
    return [(image, image.parent.relative_to(path)) for image in images]


def _is_output(image: Path, stems: set[Path]) -> bool:
    """Whether the file was written by an earlier run over its own folder, by a version that did not mark its pictures yet."""
    ends = [end for end in (LABELS, OVERLAY) if image.name.endswith(end)]
    return any(image.with_name(image.name.removesuffix(end)) in stems for end in ends)
