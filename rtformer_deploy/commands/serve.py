"""What `serve` does with files: plans opened under their names, keys and certificates read, and all of it served until a signal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import machine
from ..errors import OutputError, UsageError
from ..files import read_text
from ..formats.external_model import ExternalModel
from ..formats.safetensors_file import stem_of
from ..opening import open_any
from ..runtime.frame_runner import FrameRunner
from ..types import Say

if TYPE_CHECKING:
    from ..cluster.flow import Cluster
    from ..serve.engine_host import EngineHost
    from ..serve.server import Listen
    from ..serve.settings import Access, Limits

KEY_VARIABLE = "RTFORMER_API_KEY"

_PACKAGES = ("fastapi", "uvicorn", "websockets", "python_multipart", "prometheus_client")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SHORTEST_KEY = 16


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open the models: see `opening.open_any`. `lanes` batches of a model run at once."""

    device: int = 0
    threads: int | None = None
    lanes: int = 1
    external: ExternalModel = field(default_factory=ExternalModel)


def require_packages() -> None:
    """Raises MissingPackageError if a package of the extra `serve` is missing."""
    for package in _PACKAGES:
        machine.require(package, "serve", "Serving")


def model_names(models: Sequence[Path], names: Sequence[str]) -> list[str]:
    """A name for each model: the one given, else the file's stem. Raises UsageError if two are equal or one cannot stand in an address."""
    if names and len(names) != len(models):
        raise UsageError(f"{len(names)} names were given for {len(models)} models.", "Give --name once for each model, in their order.")
    chosen = list(names) if names else [stem_of(model) for model in models]
    for name in chosen:
        if not _NAME.fullmatch(name):
            what = f"The name {name!r} cannot stand in an address: it needs 1 to 64 letters, digits, dots, dashes or underscores."
            raise UsageError(what, "Give another one with --name.")
    twice = [name for name, count in Counter(chosen).items() if count > 1]
    if twice:
        raise UsageError(f"Two models have the name {twice[0]}.", "Give each one its own --name.")
    return chosen


def access_of(host: str, key_file: Path | None, no_auth: bool, environment: Mapping[str, str]) -> Access:
    """Who may use the service. Raises UsageError if others could reach it without a key, OutputError for a key file that has none."""
    from ..serve.guard import is_local
    from ..serve.settings import Access

    keys = _keys(key_file, environment)
    local = is_local(host)
    if keys and no_auth:
        raise UsageError("--no-auth was given together with an API key.", f"Leave one out; the key may come from {KEY_VARIABLE}.")
    if not keys and not local and not no_auth:
        hint = f"Give --api-key-file FILE or set {KEY_VARIABLE}, or say --no-auth if everybody may use the service."
        raise UsageError(f"On {host} other machines can reach the service, so it needs an API key.", hint)
    return Access(keys, local)


def serve(
    models: Mapping[str, Path], opening: Opening, listen: Listen, limits: Limits, access: Access, *, leave_s: float, as_json: bool, say: Say
) -> None:
    """Opens the models and serves them until a signal; see `serve.server.run`. `say` gets the lines that a person should read first.

    The certificate and the address are tried before a model is opened.
    """
    from ..serve import log, server
    from ..serve.app import create_app
    from ..serve.service import Service

    context = server.tls(listen)
    with server.bind(listen) as bound:
        hosts = _open(models, opening, say)
        log.set_up(as_json)
        service = Service(hosts, limits, access, codec_threads=machine.usable_cores())
        _tell_unencrypted(listen, access, say)
        started = partial(say, f"Serving {', '.join(models)} on {server.url(listen, bound.getsockname()[1])}")
        server.run(server.Server(create_app(service), service, context, leave_s=leave_s, say_started=started), bound)


def serve_on_cluster(
    models: Mapping[str, Path],
    where: Cluster,
    listen: Listen,
    limits: Limits,
    access: Access,
    *,
    lanes: int,
    copies: tuple[int, int] | None,
    external: ExternalModel,
    as_json: bool,
    say: Say,
) -> None:
    """Serves the models on a Ray cluster until a signal: see `cluster.service.serve_on_cluster`. `copies`: at least and at most."""
    from ..cluster.nodes import check_address
    from ..cluster.parcel import pack
    from ..cluster.service import ClusterService
    from ..cluster.service import serve_on_cluster as run
    from ..serve.server import tls

    check_address(where.address)
    tls(listen)
    if not listen.port:
        raise UsageError("--port 0 cannot be combined with --cluster: every proxy listens on the same port.", "Choose a port.")
    _tell_unencrypted(listen, access, say)
    least, most = copies or (1, None)
    packed = {name: pack(path, where.threads, external) for name, path in models.items()}
    service = ClusterService(where, packed, limits, access, listen, lanes=lanes, least=least, most=most, as_json=as_json)
    run(service, say)


def _tell_unencrypted(listen: Listen, access: Access, say: Say) -> None:
    if access.keys and not access.local and listen.certfile is None:
        say("The API key travels unencrypted. Use --certfile, or a proxy with TLS in front of this service.")


def _open(models: Mapping[str, Path], opening: Opening, say: Say) -> list[EngineHost]:
    from ..serve.engine_host import open_hosts

    hosts = open_hosts({name: _opener(path, opening) for name, path in models.items()}, opening.lanes)
    for host in hosts:
        for note in host.runner.notes:
            say(f"{host.name}: {note}")
    return hosts


def _opener(path: Path, opening: Opening) -> Callable[[], FrameRunner]:
    return partial(open_any, path, device=opening.device, threads=opening.threads, lanes=opening.lanes, external=opening.external)


def _keys(path: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of a file, one a line, else the environment's. No message ever holds a key."""
    if path is not None:
        lines = read_text(path, OutputError, "a file of API keys").splitlines()
        keys = tuple(filter(None, map(str.strip, lines)))
        if not keys:
            raise OutputError(f"{path} holds no API key.", "Write one on a line.")
        source = str(path)
    else:
        keys, source = tuple(filter(None, (environment.get(KEY_VARIABLE, "").strip(),))), KEY_VARIABLE
    for key in keys:
        if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            hint = "Make one, for example: python -c 'import secrets; print(secrets.token_urlsafe())'"
            raise UsageError(f"A key in {source} is not at least {_SHORTEST_KEY} printable ASCII characters without spaces.", hint)
    return keys
