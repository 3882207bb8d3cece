"""`segment --cluster`: the same images on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ImageError, UsageError
from .terminal import echo

if TYPE_CHECKING:
    from ..cluster.pipeline import Outcome
    from ..commands.segment_answers import Answers
    from ..commands.segment_cluster import ClusterRequest
    from .segment_options import Choice

_MOST_NAMED = 20  # images that failed; the manifest names all of them


def on_cluster(request: ClusterRequest, answers: Answers, choice: Choice) -> None:
    """Runs a request and prints what came of it. Raises ImageError if images failed, and what the run raises."""
    from ..cluster.nodes import check_address
    from ..cluster.pipeline import segment_all
    from ..cluster.stores import shown_place
    from ..commands.segment import plan_on_cluster
    from .show import status_bar

    if "coco" in answers.polygons:
        raise UsageError("--polygons coco is one file about all images, and a cluster writes each image's own.", "Take --polygons geojson.")
    check_address(request.cluster.address)
    run = plan_on_cluster(request, answers, choice.of, lambda line: echo(line, err=True))
    if run.manifest.resumed:
        echo(f"Going on with the run in {shown_place(run.manifest.store.text)}.")
    with status_bar() as bar:
        outcome = segment_all(run, bar, lambda line: echo(line, err=True))
    _print(outcome)


def _print(outcome: Outcome) -> None:
    """One line about the run. Raises ImageError that names images that failed."""
    before = f", {outcome.there:,} were there already" if outcome.there else ""
    nodes = len(outcome.nodes)
    speed = f" on {nodes} node{'s' * (nodes != 1)}, {outcome.fps:.1f} frames/s" if outcome.made else ""
    echo(f"Segmented {outcome.made:,} of {outcome.total:,} images{speed}{before}.")
    if outcome.failures:
        named = [f"  {failure.reason}" for failure in outcome.failures[:_MOST_NAMED]]
        rest = len(outcome.failures) - len(named)
        more = [f"  and {rest:,} more; .cluster/done in the output place names all of them."] if rest else []
        raise ImageError(f"{len(outcome.failures):,} of {outcome.total:,} images could not be segmented:", details=[*named, *more])
