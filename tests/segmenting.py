"""`segment` on images, as tests call it: jobs in, one outcome an image out."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtformer_deploy.commands.segment_outputs import Job
from rtformer_deploy.commands.segment_streams import Work, ahead_of, run_work
from rtformer_deploy.errors import DeployError
from rtformer_deploy.image.reader import ImageReader
from rtformer_deploy.runtime.runner import Runner
from rtformer_deploy.stream.loop import LoopOptions
from rtformer_deploy.stream.sinks import Look
from rtformer_deploy.types import Progress, no_progress


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
) -> Generator[Outcome]:
    """Makes the folder `output`, runs the jobs `batch` at a time and yields an Outcome each, in order, when its files are written.

    `labels` gets the class ids as an 8-bit grey PNG, `overlay` the picture with the classes' colours over it (`alpha` 0: the picture
    alone, 1: the colours alone); both at the image's own upright size, each written whole or not at all. An image that
    cannot be read, or whose outputs cannot have their names, yields an Outcome with its error and stops nothing. Raises OutputError
    if nothing can be written.
    """
    work = Work(jobs, (), output, reader or ImageReader(), Look(alpha), LoopOptions(batch, ahead_of(runner)))
    done = run_work(runner, work, lambda count, total, stages: progress("images", count, total or 0))
    with contextlib.closing(done):
        for each in done:
            assert each.job is not None
            yield Outcome(each.job, each.written.size, each.written.shares, each.written.error)
