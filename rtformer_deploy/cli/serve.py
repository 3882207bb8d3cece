"""`serve`: engines over HTTP and WebSocket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, parse
from .terminal import echo

if TYPE_CHECKING:
    from ..formats.external_model import ExternalModel

_MIB = 2**20
#: What Ray Serve's own proxies and workers decide, and is therefore refused with --cluster.
_ONE_MACHINE = ("device", "connections", "drain")


@click.command("serve")
@click.argument("models", type=options.PATH, nargs=-1, required=True, metavar="MODEL...")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Name each model, in their order [default: the file's stem].")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Listen on this address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="N", help="Listen on this port; 0: a free one."
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    metavar="N",
    help="Take N frames at once for each model; refuse more (429).",
)
@click.option(
    "--deadline",
    "deadline_ms",
    type=parse.Number(min=1),
    default=10000,
    show_default=True,
    metavar="MS",
    help="Answer a request within MS milliseconds or refuse it (504).",
)
@click.option(
    "--max-delay-ms",
    type=parse.Number(min=0),
    default=0,
    show_default=True,
    metavar="MS",
    help="Let a frame wait this long for a larger batch.",
)
@click.option("--lanes", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Run N batches of a model at once.")
@click.option(
    "--api-key-file",
    type=options.PATH,
    metavar="FILE",
    help="Let in whoever sends one of the keys in FILE, one a line [default: RTFORMER_API_KEY].",
)
@click.option("--no-auth", is_flag=True, help="Let everybody in, on any host.")
@click.option("--certfile", type=options.PATH, metavar="FILE", help="Serve over TLS with this certificate (PEM).")
@click.option(
    "--keyfile", type=options.PATH, metavar="FILE", help="Read the certificate's key from FILE [default: the certificate's file]."
)
@click.option("--max-body", type=click.IntRange(1, 1024), default=32, show_default=True, metavar="MIB", help="Refuse larger uploads (413).")
@click.option(
    "--max-pixels",
    type=parse.Number(min=0.001, max=89),
    default=33.5,
    show_default=True,
    metavar="MILLIONS",
    help="Refuse pictures of more pixels (413).",
)
@click.option(
    "--transfer-timeout",
    type=parse.Number(min=0.1),
    default=30,
    show_default=True,
    metavar="S",
    help="Give a client this long to send a request and to take its answer.",
)
@click.option(
    "--connections",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="Keep N connections open; refuse more (503).",
)
@click.option(
    "--drain",
    type=parse.Number(min=0),
    default=3,
    show_default=True,
    metavar="S",
    help="After SIGTERM, go on for S seconds as not ready before requests are refused.",
)
@click.option("--log-json", is_flag=True, help="Write the log as JSON lines.")
@click.option("--copies", callback=parse.copies, metavar="N|MIN-MAX", help="Run N copies on a cluster [default: 1 to as many as fit].")
@options.cluster
@options.stall
@options.external
@options.threads
@options.device
@click.pass_context
def command(
    context: click.Context, models: tuple[Path, ...], names: tuple[str, ...], host: str, port: int, queue: int, deadline_ms: float,
    max_delay_ms: float, lanes: int, api_key_file: Path | None, no_auth: bool, certfile: Path | None, keyfile: Path | None, max_body: int,
    max_pixels: float, transfer_timeout: float, connections: int, drain: float, log_json: bool, threads: int | None, device: int,
    external: ExternalModel, copies: tuple[int, int] | None, cluster: str | None, stall: float,
) -> None:  # fmt: skip
    """Serve each MODEL, an engine plan or an ONNX model, over HTTP, with a page for browsers at /.

    POST a picture to /v1/segment (with several models to /v1/segment/NAME), or use the Open Inference Protocol under /v2 or the
    WebSocket /v1/stream. /metrics has figures for Prometheus, /openapi.json describes everything. Other machines can use the service
    only with --host and an API key. Ctrl-C or SIGTERM ends it in order.

    With --cluster copies of the service run on a Ray cluster, as many as the queue asks for, behind Ray Serve's proxies.
    """
    options.check_cluster(context, _ONE_MACHINE)
    from ..commands.serve import Opening, access_of, model_names, require_packages, serve, serve_on_cluster

    require_packages()
    from ..cluster.flow import Cluster
    from ..serve.server import Listen
    from ..serve.settings import Limits

    access = access_of(host, api_key_file, no_auth, os.environ)
    limits = Limits(
        queue=queue,
        deadline_s=deadline_ms / 1000,
        max_delay_s=max_delay_ms / 1000,
        body=max_body * _MIB,
        bodies=max(16 * max_body, 512) * _MIB,
        pixels=round(max_pixels * 1e6),
        transfer_s=transfer_timeout,
        connections=connections,
    )
    named = dict(zip(model_names(models, names), models, strict=True))
    listen = Listen(host, port, certfile, keyfile)
    if cluster is not None:
        where = Cluster(cluster, threads, stall)
        serve_on_cluster(named, where, listen, limits, access, lanes=lanes, copies=copies, external=external, as_json=log_json, say=echo)
        return
    options.refuse_options(context, ("copies",), "is for --cluster.")
    serve(
        named,
        Opening(device, threads, lanes, external),
        listen,
        limits,
        access,
        leave_s=drain,
        as_json=log_json,
        say=echo,
    )
