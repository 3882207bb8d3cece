"""`segment`: images, videos, cameras and addresses to label maps and overlays."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from . import options, parse, segment_options
from .terminal import echo

if TYPE_CHECKING:
    from ..commands.segment_answers import Answers
    from ..commands.segment_flicker import FlickerWatch
    from ..commands.segment_outputs import Clip
    from ..commands.segment_streams import Done
    from ..formats.external_model import ExternalModel
    from ..image.reader import ImageReader
    from ..stream.nvdec import Decode
    from ..stream.sinks import Look, Written
    from ..stream.stages import Stages
    from .segment_options import Choice


@click.command("segment")
@click.argument("model", type=options.PATH)
@click.argument("inputs", nargs=-1, metavar="SOURCE...")
@options.output(None, "Write the results into this folder, made if missing.", str)
@segment_options.look
@click.option("--no-overlay", is_flag=True, help="Write no overlay: of an image the label map alone.")
@click.option("--overwrite", is_flag=True, help="Replace files too that rtformer-deploy did not write.")
@click.option("--camera", "cameras", type=click.IntRange(min=0), multiple=True, metavar="N", help="Read camera N of this machine.")
@click.option("--labels", is_flag=True, help="Write the label maps of videos too, one PNG a frame in CLIP_labels/.")
@click.option("--every", type=click.IntRange(min=1), default=1, metavar="N", help="Take one frame of N of videos and streams.")
@click.option("--seconds", type=parse.Number(0, min_open=True), metavar="S", help="Stop after S seconds of each video or stream.")
@click.option("--retry", type=parse.Number(0), default=60, show_default=True, metavar="S", help="Try a lost stream for S seconds.")
@click.option("--smooth", type=parse.Number(0, 1, max_open=True), metavar="A", help="Average the logits over time; earlier frames weigh A.")
@click.option("--flicker", is_flag=True, help="Measure how many pixels change class where a video hardly changes.")
@segment_options.answers
@segment_options.choice
@segment_options.decode
@options.tiles
@options.reader
@options.stop_on_error
@options.external
@options.batch
@options.threads
@options.device
@options.cluster
@options.stall
@click.pass_context
def command(
    context: click.Context, model: Path, inputs: tuple[str, ...], output: str, cameras: tuple[int, ...], labels: bool, every: int,
    seconds: float | None, retry: float, smooth: float | None, flicker: bool, batch: int, threads: int | None, device: int,
    reader: ImageReader, stop_on_error: bool, overwrite: bool, external: ExternalModel, answers: Answers, look: Look,
    choice: Choice, tiles: int | None, decode: Decode, cluster: str | None, stall: float, no_overlay: bool,
) -> None:  # fmt: skip
    """Segment every SOURCE with MODEL, an engine plan or an ONNX model.

    A SOURCE is an image, a folder, a pattern, a list (.txt), a video, an address (rtsp://, http://) or a list of streams (.streams).

    An image gives NAME_labels.png, the class ids (8-bit grey), and NAME_overlay.png, the picture with the classes' colours over it. A
    video or a stream gives CLIP_overlay.mp4, with the video's sound. All have the upright size of what they were made from. The
    sub-folders of a folder are read too, and made again in the output folder. Ctrl-C ends a stream, and its file is finished. A source
    that cannot be read is named at the end and the others are still done; the exit code is then 1.

    With --cluster the images of folders, patterns, lists and stores of objects (s3://, gs://) are segmented on a Ray cluster, into a
    folder that every node sees or into a store. A second start makes what is missing.
    """
    from ..commands.segment import Request, plan
    from ..commands.segment_flicker import FlickerWatch
    from ..commands.segment_streams import Work, ahead_of, run_stoppable
    from ..image.odd_files import OddFiles
    from ..opening import open_any
    from ..runtime.tiled import TiledRunner
    from ..stream.loop import LoopOptions, spec_of_results
    from ..stream.network import is_object, shown
    from .show import status_bar

    if not inputs and not cameras:
        raise click.UsageError("Name a SOURCE, or a camera with --camera.")
    options.check_cluster(context, segment_options.ONE_MACHINE)
    if no_overlay:
        options.refuse_options(context, ("alpha", "legend"), "cannot be combined with --no-overlay.")
    if cluster is not None:
        from ..cluster.flow import Cluster
        from ..cluster.segmenting import Style
        from ..commands.segment_cluster import ClusterRequest
        from ..commands.segment_outputs import LABELS, OVERLAY
        from .segment_cluster import on_cluster

        style = Style(LABELS, "" if no_overlay else OVERLAY, look=look, tiles=tiles, batch=batch, bit_depth=reader.bit_depth)
        where = Cluster(cluster, threads, stall)
        on_cluster(ClusterRequest(where, model, inputs, output, style, external, stop_on_error, overwrite), answers, choice)
        return
    if is_object(output):
        raise UsageError(f"{shown(output)} lies in a store of objects, which a cluster writes.", "Add --cluster.")
    folder = Path(output)
    request = Request(every, seconds, retry, labels, not no_overlay, overwrite, flicker)
    jobs, clips = plan([*inputs, *cameras], folder, request, reader)
    if no_overlay and clips and not (labels or flicker or answers.any):
        raise UsageError(f"Nothing would be written of {clips[0].source.text}.", "Leave --no-overlay out, or add --labels.")
    odd = OddFiles(stop_on_error, total=len(jobs) + len(clips), unit="sources" if clips else "images")
    speed = ""
    with open_any(model, device=device, threads=threads, lanes=1, external=external) as runner, status_bar() as bar:

        def report(done: int, total: int | None, stages: Stages) -> None:
            nonlocal speed
            speed = stages.line()
            bar(speed, done, total)

        loop = LoopOptions(
            min(batch, runner.max_batch),
            ahead_of(runner),
            smooth,
            confidence=answers.confidence,
            selection=choice.of(runner.spec.classes),
            decode=decode,
            say=reader.say,
        )
        spec = spec_of_results(runner.spec, loop)
        answers.check(jobs, clips, folder, spec, overwrite=overwrite)
        watch = FlickerWatch(spec) if flicker else None
        work = Work(jobs, clips, folder, reader, look, loop, watch, answers)
        through = runner if tiles is None else TiledRunner(runner, tiles)
        with contextlib.closing(run_stoppable(through, work, report)) as running:
            for done in running:
                if done.written.error is not None:
                    odd.add(done.written.error)
                _print_done(done, spec.classes, several=odd.total > 1)
                if watch is not None and done.clip is not None and done.written.frames:
                    _print_flicker(watch, done.clip, spec.classes)
    together = [answer.target for answer in answers.of_images(folder, spec) if jobs and len(odd.errors) < odd.total]
    if together:
        echo(f"Wrote {' and '.join(map(str, together))}.")
    if any(clip.source.counts.read for clip in clips):
        echo(f"{speed}.")
    odd.raise_any("could not be segmented")


def _print_done(done: Done, classes: Sequence[str], several: bool) -> None:
    """Prints what was written of an image or a clip: one line, or, for the only image, a table."""
    written = done.written
    if done.clip is not None:
        _print_clip(done.clip, written, classes)
    elif written.shares is None and several:
        echo(f"{_image(done)}: failed", err=True)
    elif several:
        assert done.job is not None
        echo(f"{_image(done)} -> {(done.job.overlay or done.job.labels).name} ({_mostly(written, classes)})")
    elif written.shares is not None:
        _print_shares(_image(done).name, written, classes)


def _image(done: Done) -> Path:
    assert done.job is not None
    return done.job.image


def _mostly(written: Written, classes: Sequence[str]) -> str:
    assert written.shares is not None
    largest = int(written.shares.argmax())
    return f"mostly {classes[largest]}, {written.shares[largest]:.0%}"


def _print_clip(clip: Clip, written: Written, classes: Sequence[str]) -> None:
    """Prints a line for a clip, and another one for frames that are missing."""
    source, counts = clip.source, clip.source.counts
    if written.frames:
        names = ", ".join(path.name for path in written.files) or "no picture"
        frames = "frame" if written.frames == 1 else "frames"
        echo(f"{source.text} -> {names} ({written.frames:,} {frames}, {_mostly(written, classes)})")
    else:
        echo(f"{source.text}: failed", err=True)
    lost = f"the connection was lost {counts.lost} times" if counts.lost > 1 else "the connection was lost once" if counts.lost else None
    notes = [_counted(counts.broken, "broken frame", "passed over"), _counted(counts.dropped, "frame", "dropped for newer ones"), lost]
    if any(notes):
        echo(f"  {'; '.join(filter(None, notes))}.")
    for note in written.notes:
        echo(f"  {note}")


def _counted(number: int, what: str, done: str) -> str | None:
    """How many of what were done so; None for none."""
    return f"{number:,} {what}{'s were' if number > 1 else ' was'} {done}" if number else None


def _print_flicker(watch: FlickerWatch, clip: Clip, classes: Sequence[str]) -> None:
    """Writes a clip's flicker, and prints it class by class."""
    from .show import console, table

    files = watch.save(clip, echo)
    flicker = watch.of(clip)
    counted = zip(classes, flicker.still, flicker.by_class(), strict=True)
    rows = [(name, f"{still:,}", f"{share:.2%}") for name, still, share in counted if share is not None]
    if flicker.share is not None:
        rows.append(("all", f"{flicker.still.sum():,}", f"{flicker.share:.2%}"))
    title = f"Flicker of {clip.source.name}: still pixels (RGB changes by less than {flicker.threshold:g}) that change class"
    console().print(table(title, ("class", "still pixels", "flicker"), rows, right=(1, 2)))
    echo(f"Wrote {' and '.join(map(str, files))}.")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _print_shares(name: str, written: Written, classes: Sequence[str]) -> None:
    """Prints every class in the image with its share of the pixels, the largest first, and the share of those without a class."""
    from .show import console, table

    assert written.shares is not None
    assert written.size is not None
    order = sorted(enumerate(written.shares), key=lambda item: -item[1])
    rows = [(str(index), classes[index], _percent(share)) for index, share in order if share > 0]
    without = 1 - written.shares.sum()
    if without > 1e-9:
        rows.append(("", "no class", _percent(without)))
    height, width = written.size
    console().print(table(f"{name}, {height}x{width}", ("id", "class", "pixels"), rows, right=(0, 2)))
    echo(f"Wrote {' and '.join(map(str, written.files))}.")
