"""Shards of a manifest through the cluster: readers, then engines; what comes back is counted here, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ClusterError
from ..types import Say
from .flow import Cluster, Rows, dataset_of, drain, node_id, node_name, pieces_of, through
from .manifest import Failure, Manifest, unfinished
from .nodes import Devices
from .parcel import Parcel, received, send
from .reading import ReadShards
from .rows import Row, as_table
from .segmenting import Segmenter, Style

if TYPE_CHECKING:
    import pyarrow as pa

#: Called with a line, the images that are done, and all of them.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of `segment` over a cluster. `stop_on_error`: the first image that fails ends it."""

    cluster: Cluster
    parcel: Parcel
    style: Style
    manifest: Manifest
    stop_on_error: bool = False


@dataclass(slots=True)
class Outcome:
    """What came of a run: images made now, made before, and those that failed; the nodes that made some; seconds of making."""

    total: int
    made: int = 0
    there: int = 0
    failures: list[Failure] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    began: float | None = None
    ended: float = 0.0

    @property
    def fps(self) -> float:
        """Images a second, from the first that came back to the last."""
        seconds = self.ended - (self.began or 0.0)
        return self.made / seconds if self.began is not None and seconds > 0 else 0.0


@dataclass(slots=True)
class _Shard:
    """A shard on its way: how many rows will come back, which have, and which of them failed."""

    expected: int
    seen: set[int] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)


def segment_all(run: Run, report: Report, say: Say) -> Outcome:
    """Segments what the manifest has not got yet, on the nodes of a cluster. `say` gets remarks about images, once each.

    Raises ClusterError as `flow.drain`, and OutputError if a result cannot be written. What is done stays done.
    """
    work = Images(run, report, say)
    drain(run.cluster, run.parcel, work)
    return work.outcome


class Images:
    """Implements `flow.Work` over a manifest: a shard's result is written when all its rows are back."""

    def __init__(self, run: Run, report: Report, say: Say) -> None:
        self._run, self._report, self._say = run, report, say
        self._shards = {shard: _Shard(expected) for shard, expected in unfinished(run.manifest)}
        entries = run.manifest.head.entries
        self.outcome = Outcome(entries, there=entries - sum(shard.expected for shard in self._shards.values()))
        self._noted: set[str] = set()
        self._resumed = run.manifest.resumed

    @property
    def left(self) -> bool:
        return bool(self._shards)

    def pieces(self, devices: Devices) -> Iterator[pa.Table]:
        run, store, ends = self._run, self._run.manifest.store, self._run.style.ends
        shards = dataset_of([{"shard": shard} for shard in sorted(self._shards)])
        read = through(shards, ReadShards, (store.text, ends, self._resumed), devices.readers)
        self._resumed = True  # if this is called again, some outputs are there
        given = (send(run.parcel), run.style, store.text, devices.threads)
        return pieces_of(through(read, _SegmentRows, given, devices.actors, cpus=devices.cpus, gpus=devices.gpus))

    def take(self, rows: Rows) -> None:
        """Counts rows. Raises ClusterError for a node that can do no more, and with `stop_on_error` for an image that failed."""
        self.outcome.ended = time.monotonic()
        self.outcome.began = self.outcome.began or self.outcome.ended
        for row in rows:
            if row["state"] == "refused":
                raise ClusterError(f"On the node {node_name(row['node'])}: {row['reason']}", row["hint"] or None)
            shard = self._shards.get(row["shard"])
            if shard is None or row["index"] in shard.seen:
                continue  # Ray has repeated a step whose rows had come back
            self._count(row, shard)
            if len(shard.seen) == shard.expected:
                self._run.manifest.finish(row["shard"], shard.failures)
                del self._shards[row["shard"]]

    def _count(self, row: Row, shard: _Shard) -> None:
        outcome = self.outcome
        shard.seen.add(row["index"])
        if row["note"] and row["note_key"] not in self._noted:
            self._noted.add(row["note_key"])
            self._say(row["note"])
        if row["state"] == "failed":
            failure = Failure(row["index"], row["input"], row["reason"], row["hint"] or None)
            if self._run.stop_on_error:
                raise ClusterError(failure.reason, failure.hint)
            shard.failures.append(failure)
            outcome.failures.append(failure)
        elif row["state"] == "there":
            outcome.there += 1
        else:
            outcome.made += 1
            outcome.nodes.add(row["node"])

    def show(self, nodes: int) -> None:
        outcome = self.outcome
        parts = [f"{outcome.fps:.1f} frames/s", f"{nodes} node{'s' * (nodes != 1)}", f"{len(outcome.failures)} failed"]
        self._report(", ".join(parts), outcome.made + outcome.there + len(outcome.failures), outcome.total)


class _SegmentRows:
    """A Segmenter in a worker of Ray."""

    def __init__(self, ticket: bytes, style: Style, output: str, threads: int | None) -> None:
        self._segmenter = Segmenter(lambda: received(ticket, Parcel).open(threads), style, output, node_id())

    def __call__(self, rows: pa.Table) -> pa.Table:
        return as_table(self._segmenter.segment(rows.to_pylist()))
