"""A video end to end: what share of its slowest stage's speed the loop reaches, and how fast what people write by hand is beside it.

    python benchmarks/video.py [--video FILE] [--frames 100] [--backend openvino] [--rounds 5] [--json FILE]

Stages alone: decoding, segmenting frames that are decoded already, drawing, encoding. By hand: OpenCV's VideoCapture, ONNX Runtime,
argmax, the label map resized to the nearest value, VideoWriter. All are worker processes that are called in turn, a whole video a call.
Where the stages share the same cores, as on a CPU, they cannot reach the slowest one's speed together: `cpu_bound_fps` says what the
cores allow, which is their number over the CPU seconds that all stages need for a frame.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import harness
import numpy as np
from harness import Json

if TYPE_CHECKING:
    from rtformer_deploy.runtime.frame_runner import FrameRunner
    from rtformer_deploy.stream.items import StreamFrame

OUTPUT = harness.RESULTS / "video.json"
STAGES = ("decode", "segment", "draw", "encode")
WHOLE, WHOLE_ON_PEERS_ENGINE, BY_HAND = "end to end", "end to end on onnxruntime", "by hand"
NAMES = (*STAGES, WHOLE, WHOLE_ON_PEERS_ENGINE, BY_HAND)
HEIGHT, WIDTH, FPS = 720, 1280, 25


# ---------------------------------------------------------------------------------------------------------------- workers


def work(name: str, folder: Path) -> None:
    """A worker: one pass over the video for each call, with the seconds it took and the CPU seconds of this process."""
    run = PASSES[name](folder)

    def answer(index: int) -> Json:
        began, cpu = time.perf_counter(), time.process_time()
        frames = run()
        return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu, "frames": frames}

    harness.answer_calls(answer)


def decode(folder: Path) -> Callable[[], int]:
    return lambda: sum(1 for _ in frames_of(folder))


def segment(folder: Path) -> Callable[[], int]:
    """The engine over decoded frames as the loop calls it: the next frame is submitted before the last one's result is taken."""
    frames, runner = list(frames_of(folder, 32)), open_plan(folder, "engine.plan")
    count: int = case(folder)["frames"]

    def run() -> int:
        waiting = None
        for index in range(count):
            ticket = runner.submit([frames[index % len(frames)].frame])
            if waiting is not None:
                runner.result(waiting)
            waiting = ticket
        assert waiting is not None
        runner.result(waiting)
        return count

    return run


def draw(folder: Path) -> Callable[[], int]:
    from rtformer_deploy import overlay

    frames, runner = list(frames_of(folder, 32)), open_plan(folder, "engine.plan")
    maps = [runner.run([item.frame])[0] for item in frames]
    count: int = case(folder)["frames"]

    def run() -> int:
        for index in range(count):
            overlay(frames[index % len(frames)].frame, maps[index % len(frames)], runner.spec.palette)
        return count

    return run


def encode(folder: Path) -> Callable[[], int]:
    from rtformer_deploy import overlay
    from rtformer_deploy.stream.mp4 import Mp4Writer

    runner = open_plan(folder, "engine.plan")
    items = list(frames_of(folder, 32))
    drawn = [replace(item, picture=overlay(item.frame, runner.run([item.frame])[0], runner.spec.palette)) for item in items]
    count: int = case(folder)["frames"]

    def run() -> int:
        writer = Mp4Writer(folder / "encode.mp4", drawn[0])
        for index in range(count):
            writer.add(replace(drawn[index % len(drawn)], time=Fraction(index, FPS)))
        writer.finish()
        return count

    return run


def whole(folder: Path, plan: str) -> Callable[[], int]:
    """What `segment` does: the loop and its sinks."""
    from rtformer_deploy.stream.loop import Loop
    from rtformer_deploy.stream.record import record
    from rtformer_deploy.stream.sinks import Look, VideoSink
    from rtformer_deploy.stream.video_file import VideoFile

    runner = open_plan(folder, plan)

    def run() -> int:
        source = VideoFile(folder / "video.mp4")
        sink = VideoSink(folder / f"{plan}.mp4", runner.spec, Look(), sound=source.path)
        return sum(event.item is not None for event, _ in record(Loop([source], runner), {source.name: sink}))

    return run


def by_hand(folder: Path) -> Callable[[], int]:
    """The loop that tutorials show, with OpenCV and ONNX Runtime, one step after the other."""
    import cv2
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    [feed] = session.get_inputs()
    height, width = feed.shape[2:]
    palette = np.array(case(folder)["palette"], np.uint8)[:, ::-1]
    mean, std = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)

    def run() -> int:
        capture, writer, count = cv2.VideoCapture(str(folder / "video.mp4")), None, 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            rgb = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
            batch = ((rgb.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
            logits = session.run(None, {feed.name: batch})[0]
            labels = logits[0].argmax(0).astype(np.uint8)
            labels = cv2.resize(labels, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST)
            blended = cv2.addWeighted(frame, 0.5, palette[labels], 0.5, 0)
            if writer is None:
                code = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(folder / "hand.mp4"), code, capture.get(cv2.CAP_PROP_FPS), blended.shape[1::-1])
            writer.write(blended)
            count += 1
        capture.release()
        assert writer is not None
        writer.release()
        return count

    return run


PASSES: Mapping[str, Callable[[Path], Callable[[], int]]] = {
    "decode": decode,
    "segment": segment,
    "draw": draw,
    "encode": encode,
    WHOLE: functools.partial(whole, plan="engine.plan"),
    WHOLE_ON_PEERS_ENGINE: functools.partial(whole, plan="peer.plan"),
    BY_HAND: by_hand,
}


def frames_of(folder: Path, most: int | None = None) -> Iterator[StreamFrame]:
    """The video's frames, decoded as the loop does; at most so many."""
    from rtformer_deploy.stream.items import StreamFrame
    from rtformer_deploy.stream.video_file import VideoFile

    for item in itertools.islice(VideoFile(folder / "video.mp4").items(threading.Event()), most):
        assert isinstance(item, StreamFrame)
        yield item


def open_plan(folder: Path, name: str) -> FrameRunner:
    from rtformer_deploy import open_any

    return open_any(folder / name)


def case(folder: Path) -> Json:
    found: Json = json.loads((folder / "case.json").read_text())
    return found


# ----------------------------------------------------------------------------------------------------------------- driver


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """The shipped network as an ONNX model and as two engines, and the video."""
    from rtformer_deploy import BuildOptions, build_engine, choose_network, export_model, save_engine, save_model
    from rtformer_deploy.graph.edit import clone
    from rtformer_deploy.graph.functions import inline_functions

    choice = choose_network(variant="slim")
    made = export_model(choice.network, choice.recipe.spec(sha256=choice.sha256))
    for backend, name in ((arguments.backend, "engine.plan"), ("onnxruntime", "peer.plan")):
        save_engine(build_engine(made.model, made.spec, backend, BuildOptions()), folder / name)
    flat = clone(made.model)
    inline_functions(flat)
    save_model(flat, folder / "model.onnx")
    frames = write_video(folder / "video.mp4", arguments.video, arguments.frames)
    (folder / "case.json").write_text(json.dumps({"frames": frames, "palette": made.spec.palette}))


def write_video(path: Path, source: Path | None, count: int) -> int:
    """A 720p video: the source's frames again and again, or a walk over the bundled photograph; gives how many frames."""
    import cv2

    from rtformer_deploy.image.samples import sample_frame
    from rtformer_deploy.stream.items import StreamFrame
    from rtformer_deploy.stream.mp4 import Mp4Writer
    from rtformer_deploy.stream.video_file import VideoFile

    if source is not None:
        items = VideoFile(source).items(threading.Event())
        pictures = [item.frame for item in itertools.islice(items, count) if isinstance(item, StreamFrame)]
    else:
        large = sample_frame((HEIGHT * 5 // 4, WIDTH * 5 // 4))
        pictures = [large[step : step + HEIGHT, 2 * step : 2 * step + WIDTH] for step in range(0, 150, 3)]
    pictures = [np.asarray(cv2.resize(picture, (WIDTH, HEIGHT)), np.uint8) for picture in pictures]
    order = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]  # there and back, so that no step is a jump
    writer = None
    for index in range(count):
        item = StreamFrame(pictures[order[index % len(order)]], "video", index, Fraction(index, FPS), Fraction(1, 12800), Fraction(1, FPS))
        writer = writer or Mp4Writer(path, item)
        writer.add(item)
    assert writer is not None
    writer.finish()
    return count


def figures(answers: Mapping[str, Sequence[Json]], cores: int) -> Json:
    """Each contestant's median frames a second and CPU seconds a frame; what share of the slowest stage the loop reaches."""
    fps = {name: statistics.median(each["frames"] / each["seconds"] for each in given) for name, given in answers.items()}
    cpu = {name: statistics.median(each["cpu_seconds"] / each["frames"] for each in given) for name, given in answers.items()}
    slowest = min(STAGES, key=lambda stage: fps[stage])
    bound = cores / sum(cpu[stage] for stage in STAGES)
    return {
        "contestants": {name: {"fps": round(fps[name], 2), "cpu_ms_per_frame": round(1000 * cpu[name], 2)} for name in fps},
        "slowest_stage": slowest,
        "share_of_slowest_stage": round(fps[WHOLE] / fps[slowest], 3),
        "cpu_bound_fps": round(bound, 2),
        "share_of_bound": round(fps[WHOLE] / min(bound, fps[slowest]), 3),
        "times_by_hand": round(fps[WHOLE] / fps[BY_HAND], 3),
        "times_by_hand_on_its_engine": round(fps[WHOLE_ON_PEERS_ENGINE] / fps[BY_HAND], 3),
    }


def measure(arguments: argparse.Namespace) -> Json:
    from rtformer_deploy.machine import usable_cores

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments)
        answers = harness.call_in_turn(__file__, folder, NAMES, 1, arguments.rounds, warmup=1)
        count: int = case(folder)["frames"]
    found = figures(answers, usable_cores())
    print(json.dumps(found, indent=1))
    what = {"video": str(arguments.video and arguments.video.name), "size": [HEIGHT, WIDTH], "frames": count, "backend": arguments.backend}
    return harness.stamped("a 720p video end to end", {**what, "rounds": arguments.rounds, **found})


def main() -> int:
    parser = harness.command_line(__doc__, OUTPUT)
    harness.add_worker(parser)
    parser.add_argument("--video", type=Path, help="a video whose frames are used [default: a walk over the bundled photograph]")
    parser.add_argument("--frames", type=harness.positive, default=100)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--rounds", type=harness.positive, default=5)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.folder)
        return 0
    return 1 if harness.run_script(arguments.json, lambda: measure(arguments)) is None else 0


if __name__ == "__main__":
    sys.exit(main())
