"""The measured part of a comparison: rounds of turns, each kept in the journal as it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import DeployError
from ..types import Feedback
from .contestant import Contestant
from .processes import Process
from .records import Journal, Timed
from .turns import Round, take_turns


def measure(
    contestants: Sequence[Contestant],
    frame_size: tuple[int, int],
    rounds: int,
    seconds: float,
    journal: Journal,
    feedback: Feedback,
    last: Callable[[Process], None] = lambda process: None,
) -> tuple[list[Round], dict[str, DeployError]]:
    """Contestants -> all rounds, those of an interrupted run first, and why contestants failed, by name.

    `seconds` is the time for each contestant in a round. A round that was interrupted is measured again.
    `last` is as in `take_turns`.
    """
    failed = take_turns(
        contestants,
        frame_size,
        rounds,
        seconds,
        after=lambda each: journal.add(Timed(each)),
        tell=feedback.progress,
        earlier=journal.rounds(),
        last=last,
    )
    return journal.rounds(), failed
