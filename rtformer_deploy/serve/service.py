"""The service: its models, its state from ready to stopped, and what all protocols share. Knows no protocol itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from .codec import Codec
from .engine_host import EngineHost
from .metrics import Metrics
from .model import Model
from .refusal import Refusal, stopping
from .settings import Access, Limits

#: "ready"; "leaving": not ready any more, so that balancers look elsewhere, but still answering; "stopping": new requests are refused.
State = Literal["ready", "leaving", "stopping"]

_CLOSE_S = 10.0  # for an engine to finish its last batch and close


class Service:
    """Models by name, one codec and one set of figures for all of them. `codec_threads` decode and encode."""

    def __init__(self, hosts: Iterable[EngineHost], limits: Limits, access: Access, codec_threads: int) -> None:
        self.limits, self.access = limits, access
        self.metrics, self.codec = Metrics(), Codec(codec_threads)
        self.models: Mapping[str, Model] = {host.name: Model(host, self.codec, limits, self.metrics) for host in hosts}
        self.state: State = "ready"
        self.hung = False
        self.stopped = asyncio.Event()  # set once new requests are refused

    @property
    def only(self) -> Model | None:
        """The model, if there is one alone."""
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    @property
    def live(self) -> bool:
        """Whether it makes sense to let this process live: some engine works and none hangs."""
        return not self.dead and not any(model.stuck for model in self.models.values())

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here: every engine works, and the service is not about to stop."""
        return self.state == "ready" and self.live and all(model.down is None for model in self.models.values())

    @property
    def dead(self) -> bool:
        """Whether every engine is down."""
        return all(model.down is not None for model in self.models.values())

    def check_open(self) -> None:
        """Raises a 503 once the service is stopping."""
        if self.state == "stopping":
            raise stopping()

    def model(self, name: str) -> Model:
        """The model of that name. Raises a 404 that lists the names there are."""
        if name not in self.models:
            raise Refusal(404, "There is no model of that name here.", f"There are: {', '.join(self.models)}.")
        return self.models[name]

    def default_model(self, path: str) -> Model:
        """The only model, for addresses without a name. Raises a 404 if there are several; `path` shows how to name one."""
        if self.only is None:
            raise Refusal(404, "Several models are served here, so the address has to name one.", _addresses(path, list(self.models)))
        return self.only

    def start(self) -> None:
        """Starts batching, in the running event loop."""
        for model in self.models.values():
            model.start()

    def leave(self) -> None:
        """Turns readiness off; everything is still answered."""
        self.state = "leaving"

    def stop(self) -> None:
        """Refuses new requests; those that are inside are still answered."""
        self.state = "stopping"
        self.stopped.set()

    async def drained(self) -> None:
        """Waits until nothing is inside; at most as long as a request may take."""
        async with asyncio.timeout(self.limits.deadline_s + 1):
            while any(model.batcher.inside for model in self.models.values()):
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Closes every engine. One that hangs is left behind, and `hung` says so: its thread can be ended with the process only."""
        self.stop()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*(model.close() for model in self.models.values()))
        except TimeoutError:
            self.hung = True
        self.codec.close()


def _addresses(path: str, names: Sequence[str]) -> str:
    return f"Use {', '.join(f'{path}/{name}' for name in names)}."
