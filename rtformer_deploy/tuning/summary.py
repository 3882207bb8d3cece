"""A finished run -> the content of its files: tune.json and the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..formats.build_table import TUNED
from ..formats.ranges import ranges_hash
from .measure import Workshop
from .points import Point, front, is_allowed
from .recipe_file import recipe_text
from .run import Tuned


def summary(workshop: Workshop, tuned: Tuned, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A run -> the content of tune.json; `facts` are values that the run itself does not know."""
    best = front(tuned.points)
    return {
        "model": workshop.spec.name,
        "ranges_sha256": ranges_hash(workshop.ranges),
        "backend": workshop.backend,
        "dataset": workshop.dataset.name,
        "split": workshop.dataset.split,
        "frames": len(workshop.dataset),
        "max_drop": tuned.max_drop,
        "baseline": tuned.points[0].to_json(),
        "chosen": None if tuned.chosen is None else tuned.chosen.to_json(),
        "blocks": [
            {
                "name": block.name,
                "work": round(block.work, 4),
                "error": sensitivity.error,
                "flips": sensitivity.flips,
                "convolutions": block.convolutions,
            }
            for block, sensitivity in tuned.blocks
        ],
        "points": [point.to_json() | {"pareto": point in best, "within": is_allowed(point.drop, tuned.max_drop)} for point in tuned.points],
        **facts,
    }


def recipe_of(workshop: Workshop, chosen: Point, baseline: Point, dataset: str, ranges: str, weights_sha256: str) -> str:
    """The chosen mix -> a recipe's text; `dataset` is a name or a path and `ranges` a path, both relative to the recipe."""
    precision_mix = workshop.by_operator(chosen.mix)
    build = {"backend": workshop.backend, "weights_sha256": weights_sha256}
    if precision_mix.precision == "int8":
        build |= {"ranges": ranges, "ranges_sha256": ranges_hash(workshop.ranges)}
    comment = (
        f"{TUNED}: {chosen.name} ({chosen.in_int8} blocks in INT8), tuned on {workshop.backend}.",
        f"mIoU {100 * chosen.miou:.2f} % (FP32 {100 * baseline.miou:.2f} %) on {workshop.dataset.name} {workshop.dataset.split};"
        f" {chosen.ratio:.2f} of FP32's latency.",
    )
    return recipe_text(workshop.spec, dataset, precision_mix, build, workshop.blocks, chosen.mix, comment)
