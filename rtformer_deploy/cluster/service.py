"""The service on Ray Serve: the same application as on one machine, in as many copies as the queue asks for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from .. import machine
from ..errors import ClusterError, DeployError, first_line
from ..serve import log
from ..serve.app import create_app
from ..serve.engine_host import OpenRunner, open_hosts
from ..serve.server import Listen, url
from ..serve.service import Service
from ..serve.settings import Access, Limits
from ..stream.record import stopped_by_signals
from ..types import Say
from .flow import Cluster
from .nodes import Devices, alive_nodes, check_nodes, devices_of, joined
from .parcel import Parcel, received, send
from .proxy import CALLBACK, VARIABLE

APPLICATION, DEPLOYMENT = "rtformer-deploy", "copies"

_HEALTH_S = 5.0  # between two looks at a copy's engines


@dataclass(frozen=True, slots=True)
class ClusterService:
    """Models under their names, and how they are served over a cluster.

    There are from `least` to `most` copies (None: as many as there is room for). A certificate lies on every node with a proxy.
    """

    cluster: Cluster
    models: Mapping[str, Parcel]
    limits: Limits
    access: Access
    listen: Listen
    lanes: int = 1
    least: int = 1
    most: int | None = None
    as_json: bool = False


class Copy:
    """One copy of the service, in a worker of Ray: its engines, and the application that one machine has."""

    def __init__(self, sent: Mapping[str, bytes], limits: Limits, access: Access, threads: int | None, lanes: int, as_json: bool) -> None:
        log.set_up(as_json)
        self._service = Service(
            open_hosts({name: _opener(ticket, threads, lanes) for name, ticket in sent.items()}, lanes),
            limits,
            access,
            codec_threads=threads or machine.usable_cores(),
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Serve's name for what gives the application."""
        return create_app(self._service)

    async def check_health(self) -> None:
        """Raises DeployError if this copy is to be replaced: an engine is down or hangs."""
        if not self._service.live:
            raise DeployError("An engine of this copy is down or hangs.")


def _opener(ticket: bytes, threads: int | None, lanes: int) -> OpenRunner:
    """What opens a model that was sent; it keeps nothing of it, so that a copy does not hold the plan's bytes twice."""
    return lambda: received(ticket, Parcel).open(threads, lanes)


def serve_on_cluster(service: ClusterService, say: Say) -> None:
    """Serves until Ctrl-C or SIGTERM, then ends in order: what is inside is answered. `say` gets the address once a copy is ready.

    Raises ClusterError if the cluster cannot be reached or has no room, if something else is served there, or if no copy gets ready.
    """
    with joined(service.cluster.address, {VARIABLE: CALLBACK}):
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        nodes = alive_nodes()
        for parcel in service.models.values():
            check_nodes(nodes, parcel, service.cluster.stall_s)
        hungriest = max(service.models.values(), key=lambda parcel: parcel.on_gpu)  # one model on a GPU: every copy needs one
        devices = devices_of(nodes, hungriest, service.cluster.threads)
        _refuse_others(serve)
        try:
            serve.start(proxy_location="HeadOnly" if service.access.local else "EveryNode", http_options=_http(service))
            _run(serve, service, devices)
            listen, stop = service.listen, threading.Event()
            with stopped_by_signals(stop.set):  # now: joining has put Ray's own handler of SIGTERM there
                say(f"Serving {', '.join(service.models)} on {url(listen, listen.port)}")
                while not stop.wait(1.0):
                    _refuse_dead(serve)
                serve.shutdown()
        finally:
            serve.shutdown()


def _run(serve: Any, service: ClusterService, devices: Devices) -> None:
    """Starts the copies and waits for the first. Raises ClusterError."""
    sent = {name: send(parcel) for name, parcel in service.models.items()}
    most = service.most or max(service.least, devices.actors)
    deployment = serve.deployment(serve.ingress()(Copy)).options(
        name=DEPLOYMENT,
        max_ongoing_requests=service.limits.queue,  # the batcher's own bound: it must see what it can put into a batch
        max_queued_requests=service.limits.queue,  # beyond it a proxy answers 503
        autoscaling_config={
            "min_replicas": service.least,
            "initial_replicas": service.least,
            "max_replicas": most,
            "target_ongoing_requests": target_of(service.models.values(), service.limits.queue, service.lanes),
        },
        ray_actor_options={"num_cpus": devices.cpus, "num_gpus": devices.gpus},
        health_check_period_s=_HEALTH_S,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=service.limits.deadline_s + 1,
    )
    bound = deployment.bind(sent, service.limits, service.access, devices.threads, service.lanes, service.as_json)
    try:
        serve.run(bound, name=APPLICATION, route_prefix="/")
    except Exception as error:  # RuntimeError, RayError and others, by what failed
        raise ClusterError(f"No copy of the service got ready: {first_line(error)}.", _why_not(serve)) from error


def target_of(parcels: Any, queue: int, lanes: int) -> float:
    """How many requests a copy should have inside: for each lane a batch that runs and one that waits, and at most the queue."""
    largest = max(parcel.spec_info.batch[2] for parcel in parcels)
    return float(min(queue, 2 * largest * lanes))


def _http(service: ClusterService) -> dict[str, Any]:
    listen = service.listen
    files = {"ssl_certfile": listen.certfile, "ssl_keyfile": listen.keyfile or listen.certfile}
    shown = {name: str(path.absolute()) for name, path in files.items() if path is not None}
    return {"host": listen.host, "port": listen.port, "request_timeout_s": service.limits.transfer_s + service.limits.deadline_s, **shown}


def _applications(serve: Any) -> Mapping[str, Any]:
    applications: Mapping[str, Any] = serve.status().applications
    return applications


def _refuse_others(serve: Any) -> None:
    """Raises ClusterError if something is served on the cluster: its proxies would keep their address and answer for lost copies."""
    names: Sequence[str] = sorted(_applications(serve))
    if names:
        raise ClusterError(f"Ray Serve serves something on this cluster already: {', '.join(names)}.", "End it first: serve shutdown")


def _refuse_dead(serve: Any) -> None:
    """Raises ClusterError if the copies cannot be kept running."""
    status = _applications(serve).get(APPLICATION)
    if status is None or status.status in ("DEPLOY_FAILED", "NOT_STARTED", "DELETING"):
        raise ClusterError("The service on the cluster has ended.", "See `serve status` and the logs of Ray.")


def _why_not(serve: Any) -> str | None:
    """What Serve says about the copies."""
    status = _applications(serve).get(APPLICATION)
    deployment = None if status is None else status.deployments.get(DEPLOYMENT)
    return None if deployment is None or not deployment.message else first_line(DeployError(deployment.message))
