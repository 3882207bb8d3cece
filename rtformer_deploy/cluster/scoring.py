"""A labelled split over the cluster: each node counts the pixels of some frames, and the confusion matrices are added up.

They are whole numbers, so the sum is the same in any order: bit for bit what one machine counts, if its CPU is like the nodes'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..datasets import Dataset, Sample
from ..errors import ClusterError, DeployError
from ..evaluation.evaluate import Evaluation, conclude, count
from ..evaluation.metrics import Matrix
from ..evaluation.views import Views, predictor
from ..image.labels import LabelMeaning
from ..image.reader import ImageReader
from ..types import Progress
from .flow import Cluster, Rows, dataset_of, drain, node_id, node_name, pieces_of, through
from .nodes import Devices
from .parcel import Parcel, received, send

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK = 8  # frames of a step


@dataclass(frozen=True, slots=True)
class _Split:
    """A dataset without its reader, as it goes to the nodes, which see the same files."""

    name: str
    split: str
    samples: tuple[Sample, ...]
    meaning: LabelMeaning
    bit_depth: int | None

    def dataset(self) -> Dataset:
        return Dataset(self.name, self.split, self.samples, self.meaning, ImageReader(self.bit_depth))


def _split_of(dataset: Dataset) -> _Split:
    samples = tuple(Sample(sample.name, sample.image.absolute(), sample.label.absolute()) for sample in dataset.samples)
    return _Split(dataset.name, dataset.split, samples, dataset.meaning, dataset.reader.bit_depth)


def evaluate_on_cluster(cluster: Cluster, parcel: Parcel, views: Views, dataset: Dataset, progress: Progress) -> Evaluation:
    """Scores a model on a split, as `evaluation.evaluate` does on one machine. Every node must see its files.

    Raises ClusterError as `flow.drain` and for a frame that a node cannot read, DatasetError if there is nothing to score.
    """
    work = _Frames(parcel, views, dataset, progress)
    drain(cluster, parcel, work)
    return conclude(parcel.spec_info.spec, dataset, work.matrix)


class _Frames:
    """Implements `flow.Work` over a split, `_CHUNK` frames a step."""

    def __init__(self, parcel: Parcel, views: Views, dataset: Dataset, progress: Progress) -> None:
        self._parcel, self._views, self._split, self._progress = parcel, views, _split_of(dataset), progress
        self._total = len(dataset)
        self._left = set(range(0, len(dataset), _CHUNK))
        self._done = 0
        classes = len(dataset.labels.names)
        self.matrix: Matrix = np.zeros((classes, classes), np.int64)

    @property
    def left(self) -> bool:
        return bool(self._left)

    def pieces(self, devices: Devices) -> Iterator[pa.Table]:
        chunks = [{"start": start, "stop": min(start + _CHUNK, self._total)} for start in sorted(self._left)]
        given = (send(self._parcel), send(self._split), self._views, devices.threads)
        return pieces_of(through(dataset_of(chunks), _Score, given, devices.actors, cpus=devices.cpus, gpus=devices.gpus))

    def take(self, rows: Rows) -> None:
        """Adds up matrices. Raises ClusterError with the reason of a node that could not count its frames."""
        for row in rows:
            if row["reason"]:
                raise ClusterError(f"On the node {node_name(row['node'])}: {row['reason']}", row["hint"] or None)
            if row["start"] in self._left:
                self._left.remove(row["start"])
                self._done += row["stop"] - row["start"]
                self.matrix += np.frombuffer(row["matrix"], np.int64).reshape(self.matrix.shape)

    def show(self, nodes: int) -> None:
        self._progress("evaluate", self._done, self._total)


class _Score:
    """Counts the pixels of some frames, in a worker of Ray."""

    def __init__(self, parcel: bytes, split: bytes, views: Views, threads: int | None) -> None:
        self._node = node_id()
        self._refusal: DeployError | None = None
        try:
            self._dataset = received(split, _Split).dataset()
            self._runner = predictor(received(parcel, Parcel).open(threads), views)
        except DeployError as error:
            self._refusal = error

    def __call__(self, chunks: pa.Table) -> pa.Table:
        import pyarrow as pa

        rows = [self._score(each["start"], each["stop"]) for each in chunks.to_pylist()]
        return pa.Table.from_pylist(rows)

    def _score(self, start: int, stop: int) -> dict[str, object]:
        row: dict[str, object] = {"start": start, "stop": stop, "matrix": b"", "reason": "", "hint": "", "node": self._node}
        try:
            if self._refusal is not None:
                raise self._refusal
            return row | {"matrix": count(self._runner, self._dataset, range(start, stop)).tobytes()}
        except DeployError as error:
            return row | {"reason": error.what, "hint": error.hint or ""}
