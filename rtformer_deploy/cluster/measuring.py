"""A folder of images over the cluster: each node counts what a model's tensors hold on some of them, and the histograms are added up.

They hold whole numbers over bins that do not depend on the order, so the sum is bit for bit what one machine counts, if its CPU is like
the nodes'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibrate.collect import Collector, restore, show_frame, state
from ..calibrate.histogram import BINS, Histogram
from ..errors import CalibrationError, DeployError, ImageError
from ..formats.model_file import parse_model
from ..image.reader import ImageReader
from ..types import ModelSpec, Progress
from .flow import Cluster, Rows, dataset_of, drain, pieces_of, through
from .nodes import Devices
from .parcel import Parcel, received, send

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 25  # images of a step, as between two checkpoints on one machine


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a node has counted: histograms by tensor, images with their files' hashes, whether one is coloured, and what went wrong."""

    histograms: Mapping[str, Histogram]
    hashes: Mapping[str, str]
    coloured: bool
    errors: tuple[DeployError, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured: the `tensors` of a parcel's model (one without functions) on `images`, name -> path, which every node sees."""

    parcel: Parcel
    spec: ModelSpec
    tensors: tuple[str, ...]
    images: Mapping[str, Path]
    bit_depth: int | None = None


def measure_on_cluster(cluster: Cluster, measure: Measure, take: Callable[[Chunk], None], progress: Progress) -> None:
    """Measures a model on images; `take` gets each chunk once, in any order. Raises ClusterError as `flow.drain`, CalibrationError."""
    if measure.images:
        drain(cluster, measure.parcel, _Images(measure, take, progress))


class _Images:
    """Implements `flow.Work` over images, `_CHUNK` a step."""

    def __init__(self, measure: Measure, take: Callable[[Chunk], None], progress: Progress) -> None:
        self._measure, self._take, self._progress = measure, take, progress
        names = list(measure.images)
        self._left = {start: names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)}
        self._done = 0

    @property
    def left(self) -> bool:
        return bool(self._left)

    def pieces(self, devices: Devices) -> Iterator[pa.Table]:
        images = self._measure.images
        paths = {start: [str(images[name].absolute()) for name in names] for start, names in self._left.items()}
        steps = [{"start": start, "names": names, "paths": paths[start]} for start, names in self._left.items()]
        given = (send(self._measure.parcel), self._measure.spec, self._measure.tensors, self._measure.bit_depth, devices.threads)
        return pieces_of(through(dataset_of(steps), _Count, given, devices.actors, cpus=devices.cpus))

    def take(self, rows: Rows) -> None:
        for row in rows:
            if row["reason"]:
                raise CalibrationError(row["reason"], row["hint"] or None)
            if row["start"] in self._left:
                self._done += len(self._left.pop(row["start"]))
                self._take(_chunk(row, self._measure.tensors))

    def show(self, nodes: int) -> None:
        self._progress("Calibrate", self._done, len(self._measure.images))


def _chunk(row: Mapping[str, Any], tensors: Sequence[str]) -> Chunk:
    histograms = {name: Histogram() for name in tensors}
    counts = np.frombuffer(row["counts"], np.int64).reshape(len(tensors), BINS)
    restore(histograms, {"counts": counts, "sizes": np.frombuffer(row["sizes"], np.float64).reshape(len(tensors), -1)})
    errors = tuple(CalibrationError(what, hint or None) for what, hint in zip(row["wrong"], row["hints"], strict=True))
    return Chunk(histograms, dict(zip(row["counted"], row["hashes"], strict=True)), row["coloured"], errors)


class _Count:
    """Counts what the tensors hold on some images, in a worker of Ray."""

    def __init__(self, ticket: bytes, spec: ModelSpec, tensors: Sequence[str], bit_depth: int | None, threads: int | None) -> None:
        self._spec, self._tensors, self._reader = spec, tuple(tensors), ImageReader(bit_depth)
        self._refusal: DeployError | None = None
        try:
            self._collector = Collector(parse_model(received(ticket, Parcel).whole()), self._tensors, threads)
        except DeployError as error:
            self._refusal = error

    def __call__(self, steps: pa.Table) -> pa.Table:
        import pyarrow as pa

        rows = [self._count(each["start"], each["names"], each["paths"]) for each in steps.to_pylist()]
        texts = {name: pa.list_(pa.string()) for name in ("counted", "hashes", "wrong", "hints")}
        kinds = {
            "start": pa.int64(),
            "counts": pa.large_binary(),
            "sizes": pa.large_binary(),
            "coloured": pa.bool_(),
            "reason": pa.string(),
        }
        return pa.Table.from_pylist(rows, pa.schema({**kinds, "hint": pa.string(), **texts}))

    def _count(self, start: int, names: Sequence[str], paths: Sequence[str]) -> dict[str, Any]:
        row: dict[str, Any] = {"start": start, "counts": b"", "sizes": b"", "coloured": False, "reason": "", "hint": ""}
        row |= {name: [] for name in ("counted", "hashes", "wrong", "hints")}
        try:
            if self._refusal is not None:
                raise self._refusal
            self._collector.histograms = {name: Histogram() for name in self._tensors}
            for name, path in zip(names, paths, strict=True):
                self._show(name, Path(path), row)
        except DeployError as error:
            return row | {"reason": error.what, "hint": error.hint or ""}
        arrays = state(self._collector.histograms)
        return row | {"counts": arrays["counts"].tobytes(), "sizes": arrays["sizes"].tobytes()}

    def _show(self, name: str, path: Path, row: dict[str, Any]) -> None:
        try:
            frame, digest = self._reader.load_with_hash(path)
        except ImageError as error:
            row["wrong"].append(error.what)
            row["hints"].append(error.hint or "")
            return
        show_frame(self._collector, frame, self._spec, str(path))
        row["counted"].append(name)
        row["hashes"].append(digest)
        row["coloured"] = row["coloured"] or bool(np.any(frame != frame[0, 0]))
