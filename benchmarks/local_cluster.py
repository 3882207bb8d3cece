"""A Ray cluster of several nodes on this machine, one of which can be killed; and `segment` on it, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

STORE_BYTES = 200_000_000
WAIT_S = 600.0
_ATTEMPTS = 4


class NodeEndedError(Exception):
    """A node was not there: Ray gives one up whose helpers start slowly."""


class LocalCluster:
    """`nodes` nodes with `cpus` logical CPUs each; the first one is the head. Leaving the context stops every process of it."""

    def __init__(self, nodes: int, cpus: int) -> None:
        self._count, self._cpus = nodes, cpus
        self._cluster: Any = None
        self._nodes: list[Any] = []

    def __enter__(self) -> LocalCluster:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")  # a busy machine is slow
        for attempt in range(_ATTEMPTS):
            before = set(_children())
            try:
                self._start()
                return self
            except BaseException as error:
                self._end(before)
                if not isinstance(error, NodeEndedError) or attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt raises")

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster, self._nodes = Cluster(), []
        while len(self._nodes) < self._count:
            self.add_node()

    def _end(self, before: set[psutil.Process]) -> None:
        """Ends what a failed start has left."""
        with contextlib.suppress(Exception):
            self._cluster.shutdown()
        for child in set(_children()) - before:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def __exit__(self, *exc: object) -> None:
        """Stops the nodes. A killed one's workers end by themselves, which takes them some seconds."""
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self) -> None:
        """Starts one more node."""
        more: dict[str, Any] = {"include_dashboard": False} if not self._nodes else {}
        with _patience():
            node = self._cluster.add_node(wait=False, num_cpus=self._cpus, num_gpus=0, object_store_memory=STORE_BYTES, **more)
        self._nodes.append(node)

    def kill_node(self) -> None:
        """Kills the newest node, without a word to the others."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Waits longer for a node than Ray's 30 seconds, which are too short on a machine that is busy."""
    from ray._private import services

    get_node = services.get_node

    def patient(*arguments: Any, **options: Any) -> Any:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return get_node(*arguments, **options)
            except RuntimeError as error:
                if any(child.name() == "raylet" and child.status() == psutil.STATUS_ZOMBIE for child in _children()):
                    raise NodeEndedError("a node ended while it started: see Ray's logs") from error
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    services.get_node = patient
    try:
        yield
    finally:
        services.get_node = get_node


def segment(*arguments: object, environment: Mapping[str, str] | None = None, log: Path | None = None) -> subprocess.Popen[str]:
    """`rtformer-deploy segment` in a process of its own; what it prints goes to `log`, or to a pipe."""
    command = [sys.executable, "-m", "rtformer_deploy", "segment", *map(str, arguments)]
    out: Any = subprocess.PIPE if log is None else log.open("w")
    with contextlib.ExitStack() as stack:
        if log is not None:
            stack.callback(out.close)
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})})


def outputs(folder: Path) -> dict[str, bytes]:
    """The finished outputs in a folder, by their names."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in finished(folder)}


def finished(folder: Path) -> Iterator[Path]:
    """The paths of the finished outputs in a folder."""
    for path in folder.rglob("*.png"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = WAIT_S) -> None:
    """Waits until a condition holds while a process runs. Raises RuntimeError if the process ends, or time does, before."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with {process.returncode} before it was disturbed")
        if time.monotonic() > end:
            raise RuntimeError(f"nothing happened for {seconds:g} s")
        time.sleep(0.02)


def _children() -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process().children(recursive=True)
    return children
