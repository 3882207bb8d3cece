"""A Ray cluster as this process sees it: joined and left again, its nodes asked whether they can run the plan, its devices counted."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ClusterError, DeployError, UsageError, first_line
from ..machine import require
from .parcel import Parcel, check_node

_ANSWER_S = 5.0  # for the address to take a connection
_USUAL_THREADS = 4  # of an engine, if nobody says how many: several small ones do more than a large one


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive: Ray's id, its address, its logical CPUs and GPUs."""

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run uses: `actors` engines, each with `cpus` CPUs, as threads, or `gpus` GPUs; `readers` that fetch images for them."""

    actors: int
    cpus: int
    gpus: int
    readers: int

    @property
    def threads(self) -> int | None:
        return None if self.gpus else self.cpus


@contextlib.contextmanager
def joined(address: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """This process as a driver of the cluster, until the block ends; then what it started there is stopped.

    `address` is HOST:PORT, or "auto" for the cluster that this machine belongs to. `environment` is for what is started there. Raises
    ClusterError if there is none, MissingPackageError without Ray.
    """
    check_address(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ warns of every actor that may start again
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own note about its next version
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that outlives the run must not join again on its own
    import ray

    try:
        runtime = {"env_vars": dict(environment)} if environment else None
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime)
    except Exception as error:  # ConnectionError, RuntimeError and others, by what is wrong
        raise _no_cluster(address, first_line(error)) from error
    try:
        yield
    finally:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a thread that still reads is cut off, which is no failure
        ray.shutdown()


def check_address(address: str) -> None:
    """Raises ClusterError if no cluster can be at an address, UsageError if it is none, MissingPackageError without Ray."""
    require("ray", "cluster", "--cluster")
    if "://" in address:
        raise UsageError(f"{address} is not an address that --cluster takes.", "Run the command on a node of the cluster, with auto.")
    if address != "auto":
        _knock(address)


def _knock(address: str) -> None:
    """Raises ClusterError if nothing listens at HOST:PORT: Ray itself would wait for long."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"{address!r} is not the address of a cluster.", "Write auto, or HOST:PORT as in 10.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, why: str) -> ClusterError:
    where = "this machine belongs to no Ray cluster" if address == "auto" else f"no Ray cluster answers at {address}"
    return ClusterError(
        f"Cannot join a cluster: {where} ({why}).", "Start one (ray start --head), and run the command on one of its nodes."
    )


def alive_nodes() -> list[Node]:
    """The nodes of the cluster that are alive."""
    import ray

    return [_node(facts) for facts in ray.nodes() if facts["Alive"]]


def _node(facts: Mapping[str, Any]) -> Node:
    resources = facts["Resources"]
    return Node(facts["NodeID"], facts["NodeManagerAddress"], int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def devices_of(nodes: Sequence[Node], parcel: Parcel, threads: int | None) -> Devices:
    """What the nodes offer a plan: an engine for each GPU, or for each group of `threads` CPUs.

    A CPU of each node stays free for reading, if it has more than one engine needs. Raises ClusterError if there is no place for an engine.
    """
    if parcel.on_gpu:
        gpus = sum(node.gpus for node in nodes)
        if not gpus:
            raise ClusterError(f"{parcel.name} runs on a GPU, and no node of the cluster has one.", "Build it for the CPU, or add a node.")
        return Devices(gpus, 0, 1, sum(bool(node.gpus) for node in nodes))
    working = [node.cpus for node in nodes if node.cpus]
    count = threads or max(1, min([_USUAL_THREADS, *(cpus - 1 for cpus in working)]))
    actors = [max((cpus - 1) // count, int(cpus >= count)) for cpus in working]
    if not sum(actors):
        raise ClusterError(f"No node of the cluster has {count} CPUs for an engine.", "Give fewer with --threads, or add a node.")
    return Devices(sum(actors), count, 0, sum(bool(number) for number in actors))


def check_nodes(nodes: Sequence[Node], parcel: Parcel, patience_s: float) -> None:
    """Raises ClusterError that names the nodes that cannot run a plan, and why, or that do not answer within `patience_s`.

    A node that has no place for an engine is not asked.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    check = ray.remote(num_cpus=0, max_retries=0)(_why_not)
    on_gpu = parcel.on_gpu  # it parses the sidecar
    asked = [node for node in nodes if (node.gpus if on_gpu else node.cpus)]
    places = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in asked]
    answers = [check.options(scheduling_strategy=place).remote(parcel.package, parcel.info, parcel.name) for place in places]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=patience_s)
    reasons = {
        node.name: _answer(answer) if answer in ready else ("it does not answer", None) for node, answer in zip(asked, answers, strict=True)
    }
    refused = {name: reason for name, reason in reasons.items() if reason is not None}
    if refused:
        details = [f"  {name}: {what}" for name, (what, _) in refused.items()]
        hint = next((hint for _, hint in refused.values() if hint), None)
        raise ClusterError(f"{len(refused)} of {len(asked)} nodes cannot run {parcel.name}:", hint, details=details)


def _why_not(package: str, info: bytes, name: str) -> tuple[str, str | None] | None:
    try:
        check_node(package, info, name)
    except DeployError as error:
        return error.what, error.hint
    return None


def _answer(answer: Any) -> tuple[str, str | None] | None:
    import ray

    try:
        reason: tuple[str, str | None] | None = ray.get(answer)
    except ray.exceptions.RayError as error:
        text = str(error)
        if "ModuleNotFoundError" in text or "No module named" in text:
            return "rtformer-deploy is not installed there", "Install the same version on every node."
        return first_line(error), None
    return reason
