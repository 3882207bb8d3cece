"""Shards of a manifest through Ray Data: readers, then engines; what comes back is counted here, shard by shard.

Two pools of workers that stay: readers take no CPU of Ray's, so that they start wherever there is a node, and engines take a GPU or some
CPUs each. Ray repeats what a lost node had in work. If its engines find no place elsewhere, Ray waits for ever (ray 44687): then the run
leaves the cluster, joins it again, and goes on with the nodes that are left.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ClusterError, first_line
from ..types import Say
from .manifest import Failure, Manifest, unfinished
from .nodes import Devices, Node, alive_nodes, check_nodes, devices_of, joined
from .parcel import Parcel
from .reading import Reader
from .rows import Row, as_table
from .segmenting import Segmenter, Style

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 16 * 2**20  # bytes of images that are one step of an engine's worker
_MOST_BLOCKS = 4096
_TICK_S = 0.5
_SENT_S = 120.0  # for a plan to reach a node
_LOST_SHARE = 1 / 3  # of the patience, after which a run that lost a node and stands still begins again

#: Called with a line, the images that are done, and all of them.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run over a cluster. `stall_s`: how long nothing may come back. `stop_on_error`: the first image that fails ends it."""

    address: str
    parcel: Parcel
    style: Style
    manifest: Manifest
    threads: int | None = None
    stall_s: float = 300.0
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

    Raises ClusterError if the cluster cannot be reached, cannot run the plan, or if nothing comes back for `stall_s`; OutputError if a
    result cannot be written. What is done stays done.
    """
    shards = {shard: _Shard(expected) for shard, expected in unfinished(run.manifest)}
    head = run.manifest.head
    outcome = Outcome(head.entries, there=head.entries - sum(shard.expected for shard in shards.values()))
    counting = _Counting(run, shards, outcome, report, say)
    while shards:
        with joined(run.address):
            _attempt(run, counting)
    return outcome


def _attempt(run: Run, counting: _Counting) -> None:
    """Works on what is left until all is done, or until a node was lost and nothing goes on; raises as `segment_all`."""
    nodes = alive_nodes()
    devices = devices_of(nodes, run.parcel, run.threads)
    check_nodes(nodes, run.parcel, run.stall_s)
    came: queue.Queue[list[Row] | BaseException | None] = queue.Queue()
    pieces = _pipeline(run, sorted(counting.shards), devices, resumed=run.manifest.resumed or counting.attempts > 0)
    counting.attempts += 1
    threading.Thread(target=_consume, args=(pieces, came), name="cluster rows", daemon=True).start()
    quiet_since = time.monotonic()
    while counting.shards:
        try:
            rows = came.get(timeout=_TICK_S)
        except queue.Empty:
            rows = []
        if isinstance(rows, BaseException):
            if _lost(nodes):
                return
            raise ClusterError(f"The run on the cluster failed: {first_line(rows)}.") from rows
        if rows is None:
            raise ClusterError("The cluster gave fewer images back than it got.", "Start the run again: it makes what is missing.")
        if rows:
            counting.take(rows)
            quiet_since = time.monotonic()
        quiet = time.monotonic() - quiet_since
        if quiet > run.stall_s * _LOST_SHARE and _lost(nodes):
            return
        if quiet > run.stall_s:
            what = f"Nothing came back from the cluster for {run.stall_s:g} s; {len(alive_nodes())} of {len(nodes)} nodes are alive."
            raise ClusterError(what, "See `ray status`, then start the run again: it makes what is missing. --stall S waits longer.")
        counting.show(len(nodes))


def _lost(nodes: Sequence[Node]) -> bool:
    """Whether one of the nodes is not alive any more."""
    return not {node.id for node in nodes} <= {node.id for node in alive_nodes()}


class _Counting:
    """Counts the rows that come back, and writes a shard's result when it is whole."""

    def __init__(self, run: Run, shards: dict[int, _Shard], outcome: Outcome, report: Report, say: Say) -> None:
        self.shards, self._run, self._outcome, self._report, self._say = shards, run, outcome, report, say
        self._noted: set[str] = set()
        self.attempts = 0

    def take(self, rows: Sequence[Row]) -> None:
        """Counts rows. Raises ClusterError for a node that can do no more, and with `stop_on_error` for an image that failed."""
        self._outcome.ended = time.monotonic()
        self._outcome.began = self._outcome.began or self._outcome.ended
        for row in rows:
            if row["state"] == "refused":
                raise ClusterError(f"On the node {row['node']}: {row['reason']}", row["hint"] or None)
            shard = self.shards.get(row["shard"])
            if shard is None or row["index"] in shard.seen:
                continue  # Ray has repeated a step whose rows had come back
            self._count(row, shard)
            if len(shard.seen) == shard.expected:
                self._run.manifest.finish(row["shard"], shard.failures)
                del self.shards[row["shard"]]

    def _count(self, row: Row, shard: _Shard) -> None:
        shard.seen.add(row["index"])
        self._outcome.nodes.add(row["node"])
        if row["note"] and row["note_key"] not in self._noted:
            self._noted.add(row["note_key"])
            self._say(row["note"])
        if row["state"] == "failed":
            failure = Failure(row["index"], row["input"], row["reason"], row["hint"] or None)
            if self._run.stop_on_error:
                raise ClusterError(failure.reason, failure.hint)
            shard.failures.append(failure)
            self._outcome.failures.append(failure)
        elif row["state"] == "there":
            self._outcome.there += 1
        else:
            self._outcome.made += 1

    def show(self, nodes: int) -> None:
        """Brings the bar up to date."""
        outcome = self._outcome
        parts = [f"{outcome.fps:.1f} frames/s", f"{nodes} node{'s' * (nodes != 1)}", f"{len(outcome.failures)} failed"]
        self._report(", ".join(parts), outcome.made + outcome.there + len(outcome.failures), outcome.total)


def _consume(pieces: Iterator[pa.Table], came: queue.Queue[list[Row] | BaseException | None]) -> None:
    """Rows from the cluster into a queue: what reads them must be able to lose patience."""
    try:
        for piece in pieces:
            came.put(piece.to_pylist())
        came.put(None)
    except BaseException as error:  # whatever Ray raises; the other thread decides
        came.put(error)


def _pipeline(run: Run, shards: Sequence[int], devices: Devices, *, resumed: bool) -> Iterator[pa.Table]:
    """The rows of the shards, as the nodes give them back."""
    import ray
    import ray.data

    _quiet()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK
    manifest, style = run.manifest, run.style
    sent = ray.cloudpickle.dumps(ray.put(run.parcel))  # a ticket for the parcel, which goes to each node once
    output = manifest.store.text
    blocks = min(len(shards), _MOST_BLOCKS)
    read = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=blocks).map_batches(
        _ReadShards,
        fn_constructor_args=(output, style.ends, resumed),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0,
        compute=ray.data.ActorPoolStrategy(size=max(1, devices.readers)),
    )
    done = read.map_batches(
        _SegmentRows,
        fn_constructor_args=(sent, style, output, tuple(manifest.head.sources), devices.threads),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=devices.cpus,
        num_gpus=devices.gpus or None,
        compute=ray.data.ActorPoolStrategy(size=devices.actors),
    )
    pieces: Iterator[pa.Table] = iter(done.iter_batches(batch_size=None, batch_format="pyarrow"))
    return pieces


def _quiet() -> None:
    """Ray Data tells every step at INFO, and that its own bars are off at WARNING."""
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _received(sent: bytes) -> Parcel:
    """A ticket for a parcel -> the parcel. Raises ClusterError if it does not come."""
    import ray

    try:
        parcel: Parcel = ray.get(ray.cloudpickle.loads(sent), timeout=_SENT_S)
    except ray.exceptions.RayError as error:
        raise ClusterError(f"The plan did not reach this node: {first_line(error)}.", "Start the run again.") from error
    return parcel


class _ReadShards:
    """A Reader in a worker of Ray."""

    def __init__(self, output: str, ends: Sequence[str], resumed: bool) -> None:
        self._reader = Reader(output, ends, resumed=resumed)

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        for shard in shards.column("shard").to_pylist():
            for row in self._reader.rows(shard):
                yield as_table([row])


class _SegmentRows:
    """A Segmenter in a worker of Ray."""

    def __init__(self, sent: bytes, style: Style, output: str, sources: Sequence[str], threads: int | None) -> None:
        import ray

        node = str(ray.util.get_node_ip_address())
        self._segmenter = Segmenter(lambda: _received(sent).open(threads), style, output, sources, node)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return as_table(self._segmenter.segment(rows.to_pylist()))
