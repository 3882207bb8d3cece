"""What answers cost beside a frame: the confidence map and the polygons against an INT8 frame, in turn on the same frames.

    python benchmarks/answers.py --images DIR [--size 360x480] [--rounds 40] [--json FILE]

One process: RTFormer-Slim for CamVid with its shipped ranges, INT8 on OpenVINO, its whole frame (pixels to labels); then the confidence
map from that frame's logits, and the polygons of its label map at tolerance 0. Medians; the ratio is taken round by round.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import harness
from harness import Json, Size

RECIPE, GOAL = "rtformer-slim-camvid", 0.15
ANSWERS = ("confidence", "polygons")


def measure(images: Path, size: Size, rounds: int, threads: int) -> Json:
    """Times a frame and its answers `rounds` times -> medians in ms, and the answers' share of a frame."""
    from rtformer_deploy import BuildOptions, build_engine, choose_network, export_model, open_engine
    from rtformer_deploy.formats.ranges import shipped_ranges
    from rtformer_deploy.image.confidence import confidence_map
    from rtformer_deploy.image.polygons import polygons_of

    choice = choose_network(recipe=RECIPE)
    spec = choice.recipe.spec(size=size, labels=choice.labels, weights=choice.origin, sha256=choice.sha256)
    exported = export_model(choice.network, spec)
    engine = build_engine(exported.model, spec, "openvino", BuildOptions(precision="int8", threads=threads), ranges=shipped_ranges(spec))
    confidence = partial(confidence_map, size=size, input_size=spec.size, resize=spec.resize, corners=spec.resize_corners, threads=threads)
    frames = harness.frames_at(images, size, 8)
    times: dict[str, list[float]] = {"frame": [], "confidence": [], "polygons": []}
    with open_engine(engine, threads=threads) as runner:
        for turn in range(-3, rounds):
            frame = frames[turn % len(frames)]
            logits, (labels,) = runner.logits([frame])[0], runner.run([frame])
            took = {
                "frame": timed(partial(runner.run, [frame])),
                "confidence": timed(partial(confidence, logits)),
                "polygons": timed(partial(polygons_of, labels)),
            }
            for name, seconds in took.items() if turn >= 0 else ():
                times[name].append(seconds)
    shares = {name: median(one / frame for one, frame in zip(times[name], times["frame"], strict=True)) for name in ANSWERS}
    return {"median_ms": {name: 1000 * median(values) for name, values in times.items()}, "share_of_a_frame": shares, "goal": GOAL}


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    parser = harness.command_line(__doc__, harness.RESULTS / "answers.json")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--size", type=harness.size_of, default=(360, 480), metavar="HxW")
    parser.add_argument("--rounds", type=harness.positive, default=40)
    harness.add_threads(parser)
    asked = parser.parse_args()

    def figures() -> Json:
        case = {"recipe": RECIPE, "size": list(asked.size), "rounds": asked.rounds, "threads": asked.threads}
        return harness.stamped("answers beside an INT8 frame", case | measure(asked.images, asked.size, asked.rounds, asked.threads))

    result = harness.run_script(asked.json, figures)
    if result is None:
        return 1
    for name, share in result["share_of_a_frame"].items():
        print(f"{name}: {result['median_ms'][name]:.2f} ms, {share:.1%} of a frame ({result['median_ms']['frame']:.1f} ms)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
