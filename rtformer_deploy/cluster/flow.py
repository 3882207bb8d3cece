"""Work through Ray Data until all of it has come back: on what the cluster offers, with patience that ends, and again after a lost node.

Ray repeats what a lost node had in work. If its workers find no place elsewhere, Ray waits for ever (ray 44687): then the run leaves the
cluster, joins it again, and goes on with the nodes that are left.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ClusterError, first_line
from .nodes import Devices, Node, alive_nodes, check_nodes, devices_of, joined
from .parcel import Parcel

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

_BLOCK = 16 * 2**20  # bytes of images that are one step of a worker
_MOST_BLOCKS = 4096
_TICK_S = 0.5
_LOST_SHARE = 1 / 3  # of the patience, after which a run that lost a node and stands still begins again

#: What comes back: each step's rows, names to values.
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where work goes: the address as `nodes.joined` takes it, threads of an engine (None: as many as suit the nodes), and patience.

    `stall_s`: how long nothing may come back.
    """

    address: str
    threads: int | None = None
    stall_s: float = 300.0


class Work(Protocol):
    """What is to be done: its rows are made on the cluster, and counted here."""

    @property
    def left(self) -> bool:
        """Whether something has not come back yet."""
        ...

    def pieces(self, devices: Devices) -> Iterator[pa.Table]:
        """What is left, as the nodes give it back. Called again after a node was lost."""
        ...

    def take(self, rows: Rows) -> None:
        """Counts rows; some may come twice. Raises DeployError to end the run."""
        ...

    def show(self, nodes: int) -> None:
        """Brings a bar up to date."""
        ...


def drain(cluster: Cluster, parcel: Parcel, work: Work) -> None:
    """Does all of the work on the cluster. Raises ClusterError if the cluster cannot be reached, cannot run the parcel, or stands still."""
    while work.left:
        with joined(cluster.address):
            _attempt(cluster, parcel, work)


def _attempt(cluster: Cluster, parcel: Parcel, work: Work) -> None:
    """Works until all is done, or until a node was lost and nothing goes on; raises as `drain`."""
    nodes = alive_nodes()
    devices = devices_of(nodes, parcel, cluster.threads)
    check_nodes(nodes, parcel, cluster.stall_s)
    came: queue.Queue[Rows | BaseException | None] = queue.Queue()
    threading.Thread(target=_consume, args=(work.pieces(devices), came), name="cluster rows", daemon=True).start()
    quiet_since = time.monotonic()
    while work.left:
        try:
            rows = came.get(timeout=_TICK_S)
        except queue.Empty:
            rows = []
        if isinstance(rows, BaseException):
            if _lost(nodes):
                return
            raise ClusterError(f"The run on the cluster failed: {first_line(rows)}.") from rows
        if rows is None:
            raise ClusterError("The cluster gave less back than it got.", "Start the run again: it makes what is missing.")
        if rows:
            work.take(rows)
            quiet_since = time.monotonic()
        quiet = time.monotonic() - quiet_since
        if quiet > cluster.stall_s * _LOST_SHARE and _lost(nodes):
            return
        if quiet > cluster.stall_s:
            what = f"Nothing came back from the cluster for {cluster.stall_s:g} s; {len(alive_nodes())} of {len(nodes)} nodes are alive."
            raise ClusterError(what, "See `ray status`, then start the run again: it makes what is missing. --stall S waits longer.")
        work.show(len(nodes))


def node_id() -> str:
    """Ray's id of the node that this worker runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def node_name(node: str) -> str:
    """A node's address, as a person knows it."""
    return next((each.name for each in alive_nodes() if each.id == node), node)


def dataset_of(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Rows as a dataset of Ray, in as many blocks as may go to different workers."""
    import ray.data

    for name in ("ray.data", "ray"):  # every step is told at INFO, and at WARNING that its own bars are off
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK
    return ray.data.from_items(list(rows), override_num_blocks=min(len(rows), _MOST_BLOCKS))


def through(dataset: Dataset, worker: type, arguments: Iterable[object], count: int, *, cpus: int = 0, gpus: int = 0) -> Dataset:
    """A dataset through a pool of `count` workers that stay; each block is one step.

    Workers without CPUs (readers) start wherever there is a node. Tasks would do so too, but each would start a process of its own.
    """
    import ray.data

    return dataset.map_batches(
        worker,
        fn_constructor_args=tuple(arguments),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=cpus,
        num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=max(1, count)),
    )


def pieces_of(dataset: Dataset) -> Iterator[pa.Table]:
    """A dataset's blocks, as they come."""
    pieces: Iterator[pa.Table] = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    return pieces


def _lost(nodes: Sequence[Node]) -> bool:
    """Whether one of the nodes is not alive any more."""
    return not {node.id for node in nodes} <= {node.id for node in alive_nodes()}


def _consume(pieces: Iterator[pa.Table], came: queue.Queue[Rows | BaseException | None]) -> None:
    """Rows from the cluster into a queue: what reads them must be able to lose patience."""
    try:
        for piece in pieces:
            came.put(piece.to_pylist())
        came.put(None)
    except BaseException as error:  # whatever Ray raises; the other thread decides
        came.put(error)
