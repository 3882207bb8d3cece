"""What the service is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients may ask for; times in seconds, sizes in bytes.

    `queue` requests of one engine are inside at once; `deadline_s` is a request's time from its upload to its answer;
    `max_delay_s` how long a frame waits for a larger batch; `body` one upload and `bodies` all uploads together; `pixels` one
    picture; `transfer_s` the time for a request's headers, for its body and for taking the answer; `connections` all that are open.
    """

    queue: int = 64
    deadline_s: float = 10.0
    max_delay_s: float = 0.0
    body: int = 32 * MIB
    bodies: int = 512 * MIB
    pixels: int = 2**25
    transfer_s: float = 30.0
    connections: int = 256


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the service: whoever sends one of `keys`; without keys, everybody.

    `local`: the service listens on this machine's loopback address only, and without keys it answers only requests that name it so.
    """

    keys: tuple[str, ...] = field(default=(), repr=False)
    local: bool = True
