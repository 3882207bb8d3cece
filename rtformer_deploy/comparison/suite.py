"""Who takes part in the comparison of a suite: its networks, with weights if the user has some, and the user's own models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError, shorten
from ..formats.names import clean_name
from ..formats.safetensors_file import stem_of
from ..formats.suite_file import Suite, SuiteNetwork

#: The seed of random weights.
SEED = 0


@dataclass(frozen=True, slots=True)
class Entrant:
    """A `network` of the suite, with weights from `file` (None: random ones), or a model of the user's own, which is that file."""

    name: str
    network: SuiteNetwork | None = None
    file: Path | None = None

    @property
    def is_own(self) -> bool:
        return self.network is None


def entrants_of(suite: Suite, weights: Sequence[str], add: Sequence[Path]) -> tuple[Entrant, ...]:
    """A suite, weights as "NAME=FILE" and models of the user's own -> who takes part, under names that differ.

    Raises UsageError for weights of a network that the suite does not have, or has with another architecture than its recipe's.
    """
    files = _files(suite, weights)
    entrants = [Entrant(network.name, network, files.get(network.name)) for network in suite.networks]
    for path in add:
        entrants.append(Entrant(_free(clean_name(stem_of(path)), entrants), file=path))
    return tuple(entrants)


def _free(name: str, entrants: Sequence[Entrant]) -> str:
    """The name, with a number if another has it; names of files that a disk may not tell apart count as the same."""
    used = {entrant.name.casefold() for entrant in entrants}
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(each for each in names if each.casefold() not in used)


def _files(suite: Suite, weights: Sequence[str]) -> Mapping[str, Path]:
    names = {network.name.casefold(): network for network in suite.networks}
    files: dict[str, Path] = {}
    for text in weights:
        name, equals, file = text.partition("=")
        network = names.get(name.casefold())
        if not equals or not file:
            raise UsageError(f"--weights {shorten(text)}: a suite has several networks.", "Say whose they are: --weights NAME=FILE.")
        if network is None:
            known = ", ".join(each.name for each in suite.networks)
            raise UsageError(f"--weights {shorten(text)}: the suite {suite.name} has no network of that name.", f"There are: {known}.")
        if network.is_changed:
            raise UsageError(f"--weights {shorten(text)}: {network.name} is not as its recipe says, so it runs with random weights.")
        if network.name in files:
            raise UsageError(f"--weights {network.name}= is there twice.")
        files[network.name] = Path(file)
    return files
