"""What `segment` does with videos, cameras and addresses, beside its images: where outputs go, and what came of each source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..files import make_folder
from ..image.reader import ImageReader
from ..runtime.frame_runner import FrameRunner
from ..runtime.runner import Runner
from ..stream.answers import AnsweringSink
from ..stream.image_files import ImageFiles
from ..stream.inputs import Inputs
from ..stream.items import Source
from ..stream.live import LiveOptions
from ..stream.loop import Loop, LoopOptions, spec_of_results
from ..stream.record import Watch, record, stopped_by_signals
from ..stream.segment import videos_and_streams
from ..stream.sinks import Look, PictureSink, Sink, VideoSink, Written, refuse_foreign_folder
from ..stream.stages import Stages
from ..stream.video_file import VideoFile
from ..types import ModelSpec
from ..unfinished import clean_up
from .kinds import DRAWING, FLICKER
from .kinds import VIDEO as VIDEO_FILE
from .outputs import Output, refuse_foreign, refuse_meeting
from .segment_answers import Answers, image_names
from .segment_flicker import DATA, PICTURE
from .segment_outputs import MAPS, VIDEO, Clip, Job, names_by_folder

#: Called after every frame with the frames done, how many there will be (None: not known), and how busy the stages are.
Report = Callable[[int, int | None, Stages], None]


def _nobody(loop: Loop) -> None:
    """Takes the loop and does nothing."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one call of `segment` does: images and clips into the folder `output`, and how. `watch` sees every result.

    `look` is how results are drawn, `answers` what is written beside the pictures.
    """

    jobs: Sequence[Job]
    clips: Sequence[Clip]
    output: Path
    reader: ImageReader
    look: Look = field(default_factory=Look)
    options: LoopOptions = field(default_factory=LoopOptions)
    watch: Watch | None = None
    answers: Answers = field(default_factory=Answers)

    @property
    def live(self) -> bool:
        """Whether every source is live, so that only the user ends the run."""
        return not self.jobs and all(clip.source.live for clip in self.clips)


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What came of an image or of a clip: one of the two, and what its sink wrote."""

    written: Written
    job: Job | None = None
    clip: Clip | None = None


@dataclass(frozen=True, slots=True)
class ClipOutputs:
    """Which outputs each clip has, beside answers: the overlay, label maps, the measure of flicker."""

    overlay: bool = True
    labels: bool = False
    flicker: bool = False


def plan_clips(
    inputs: Inputs,
    output: Path,
    live: LiveOptions,
    jobs: Sequence[Job] = (),
    written: ClipOutputs = ClipOutputs(),
    *,
    overwrite: bool = False,
) -> list[Clip]:
    """Videos and live sources -> clips whose outputs in `output` have different names, below the sub-folders that the videos lie in.

    A clip that is called as one of the images (`jobs`), as the two halves of a phone's live photo are, gets its suffix in its name.

    CLIP.mp4 gives CLIP_overlay.mp4, the folder CLIP_labels, CLIP_flicker.json and .svg, as `written` says. Raises OutputError if an output
    would overwrite an input or, without `overwrite`, a file that this program did not write. A folder is replaced only if it holds nothing
    but label maps.
    """
    sources = videos_and_streams(inputs, live)
    below = [folder for _, folder in inputs.videos] + [Path()] * inputs.streams
    places = [source.path if isinstance(source, VideoFile) else Path(source.name) for source in sources]
    taken = [(job.labels.parent.relative_to(output), job.name) for job in jobs]
    names = names_by_folder(places, below, taken)
    clips = []
    for source, folder, name in zip(sources, below, names, strict=True):
        source.name = (folder / name).as_posix()
        place = output / folder / name
        overlay, labels = place.with_name(f"{name}{VIDEO}"), place.with_name(f"{name}{MAPS}")
        clips.append(Clip(source, place, overlay if written.overlay else None, labels if written.labels else None))
    _check_targets(clips, overwrite, written.flicker)
    return clips


def run_work(runner: Runner, work: Work, report: Report, started: Callable[[Loop], None] = _nobody) -> Generator[Done]:
    """Makes the output folder, runs the work and yields a Done for each image when it is written, and for each clip when it is finished.

    `started` gets the loop before its first frame. Raises OutputError if nothing can be written; then unfinished files are removed.
    """
    spec = spec_of_results(runner.spec, work.options)
    make_folder(work.output)
    for folder in {path.parent for path in (*(job.labels for job in work.jobs), *(clip.place for clip in work.clips))}:
        clean_up(folder)
    sources: list[Source] = [clip.source for clip in work.clips]
    sinks: dict[str, Sink] = {clip.source.name: _video_sink(clip, spec, work) for clip in work.clips}
    if work.jobs:
        images = ImageFiles([job.image for job in work.jobs], reader=work.reader)
        images.name = ""  # no clip is called so
        targets = [(job.labels, job.overlay) for job in work.jobs]
        sources.insert(0, images)
        pictures = PictureSink(targets, spec, work.look, work.answers.of_each_image(work.jobs, work.output))
        answers = work.answers.of_images(work.output, spec)
        sinks[images.name] = AnsweringSink(pictures, answers, image_names(work.jobs, work.output)) if answers else pictures
    loop = Loop(sources, runner, work.options)
    started(loop)
    done = 0
    with contextlib.closing(record(loop, sinks, work.watch)) as recorded:
        for event, written in recorded:
            clip = next((clip for clip in work.clips if clip.source is event.source), None)
            done += event.item is not None or (clip is None and event.unread is not None)
            loop.count_decoding()
            report(done, _total(sources), loop.stages)
            if written is not None:
                yield Done(written, None if clip else work.jobs[written.index], clip)


def run_stoppable(runner: Runner, work: Work, report: Report) -> Generator[Done]:
    """As `run_work`; the first Ctrl-C or SIGTERM ends the sources, and what was written is finished.

    Then it raises KeyboardInterrupt, unless every source is live: such a run ends in no other way.
    """
    loops: list[Loop] = []

    def stop() -> None:
        for loop in loops:
            loop.stop()

    with stopped_by_signals(stop) as came, contextlib.closing(run_work(runner, work, report, loops.append)) as running:
        yield from running
    if came.is_set() and not work.live:
        raise KeyboardInterrupt


def ahead_of(runner: Runner) -> int:
    """How many submissions a runner works on at once."""
    return len(runner.sessions) if isinstance(runner, FrameRunner) else 1


def _video_sink(clip: Clip, spec: ModelSpec, work: Work) -> Sink:
    path = clip.source.path if isinstance(clip.source, VideoFile) else None
    sink = VideoSink(clip.overlay, spec, work.look, labels=clip.labels, sound=path, keep=clip.source.live)
    answers = work.answers.of_clip(clip, spec)
    return AnsweringSink(sink, answers) if answers else sink


def _check_targets(clips: Sequence[Clip], overwrite: bool, flicker: bool) -> None:
    planned = [Output(clip.overlay, VIDEO_FILE) for clip in clips if clip.overlay is not None]
    if flicker:
        planned += [Output(clip.beside(end), kind) for clip in clips for end, kind in ((DATA, FLICKER), (PICTURE, DRAWING))]
    inputs = ((clip.source.path, "itself an input") for clip in clips if isinstance(clip.source, VideoFile))
    refuse_meeting(planned, inputs, "Choose another --output.")
    if not overwrite:
        refuse_foreign(planned, "Choose another --output, or add --overwrite.")
    for clip in clips:
        if clip.labels is not None:
            refuse_foreign_folder(clip.labels)


def _total(sources: Sequence[Source]) -> int | None:
    totals = [source.total for source in sources]
    return None if None in totals else sum(total or 0 for total in totals)
