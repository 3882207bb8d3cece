"""Checkpoints of other projects: their keys -> ours, and ours -> theirs, so that messages speak of the file as it is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

#: What data parallel training and trainers put in front of every key.
_WRAPPERS = ("module.", "model.")
#: A trainer that holds network and loss saves the loss's buffers too, such as the weights of the classes.
_LOSS = "loss."
_STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}
_PADDLE_PARTS = frozenset({"_conv", "_batch_norm", *_STATISTICS})

Rename = Callable[[str], str]


def _same(key: str) -> str:
    return key


@dataclass(frozen=True, slots=True)
class Translated:
    """A checkpoint's tensors by our keys, and what became of the rest.

    in_file    one of our keys -> what the file calls it
    paddle     whether the keys are PaddleSeg's
    differing  keys of second copies whose values are not those of the first
    notes      what a person should know: what was left out, what the recipe should say
    hint       the way out if the weights do not fit; None: there is no special one
    """

    weights: dict[str, Tensor]
    in_file: Rename = _same
    paddle: bool = False
    differing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str | None = None

    def noting(self, *notes: str) -> Translated:
        """The same with more notes; empty ones are left out."""
        return dataclasses.replace(self, notes=(*self.notes, *filter(None, notes)))


class Renaming:
    """Renames keys both ways by pairs of dotted names, theirs and ours; the first pair that fits the front of a key counts.

    `*` stands for any part of one name, and the two sides have as many. What follows in the key stays, but for Paddle's running
    statistics, which become torch's.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._ours = [_rule(theirs, ours) for theirs, ours in pairs]
        self._theirs = [_rule(ours, theirs) for theirs, ours in pairs]

    def ours(self, key: str) -> str:
        """One of their keys -> ours; a key that no pair fits stays."""
        return _with_tail(_first(self._ours, key), _STATISTICS)

    def theirs(self, key: str) -> str:
        """One of our keys -> theirs."""
        return _with_tail(_first(self._theirs, key), {ours: theirs for theirs, ours in _STATISTICS.items()})

    def apply(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by their keys -> by ours. A key whose new name is taken stays, so that it is reported as unexpected."""
        renamed: dict[str, Tensor] = {}
        for key, value in state.items():
            new = self.ours(key)
            renamed[key if new in renamed else new] = value
        return renamed


def unwrap(state: Mapping[str, Tensor]) -> Translated:
    """Takes `module.` and `model.` off if they are in front of every key, again and again; drops the buffers of a trainer's loss."""
    prefix, weights, notes = "", dict(state), list[str]()
    while (wrapper := _wrapper(weights)) is not None:
        losses = [key for key in weights if key.startswith(_LOSS)]
        if losses:
            notes.append(f"Left out: {len(losses)} buffers of the trainer's loss ({prefix}{losses[0]}).")
        weights = {key.removeprefix(wrapper): value for key, value in weights.items() if not key.startswith(_LOSS)}
        prefix += wrapper
    return Translated(weights, (lambda key: prefix + key) if prefix else _same, notes=tuple(notes))


def after(first: Translated, second: Translated) -> Translated:
    """Two translations, one after the other, as one."""
    return dataclasses.replace(
        second,
        in_file=lambda key: first.in_file(second.in_file(key)),
        differing=tuple(map(first.in_file, second.differing)),
        notes=(*first.notes, *second.notes),
    )


def is_paddle(keys: Iterable[str]) -> bool:
    """Whether keys have names that only PaddleSeg's layers give."""
    return any(not _PADDLE_PARTS.isdisjoint(key.split(".")) for key in keys)


def _wrapper(state: Mapping[str, Tensor]) -> str | None:
    """The wrapper that is in front of every key; a loss may lie beside it."""
    keys = [key for key in state if not key.startswith(_LOSS)]
    return next((each for each in _WRAPPERS if keys and all(key.startswith(each) for key in keys)), None)


def _rule(source: str, target: str) -> tuple[re.Pattern[str], str]:
    pattern = re.escape(source).replace(r"\*", "([^.]*)")
    places = iter(range(1, 10))
    return re.compile(rf"{pattern}(?=\.|$)"), re.sub(r"\*", lambda _: rf"\g<{next(places)}>", target)


def _first(rules: Sequence[tuple[re.Pattern[str], str]], key: str) -> str:
    for pattern, target in rules:
        match = pattern.match(key)
        if match is not None:
            return match.expand(target) + key[match.end() :]
    return key


def _with_tail(key: str, tails: Mapping[str, str]) -> str:
    front, dot, tail = key.rpartition(".")
    return f"{front}{dot}{tails.get(tail, tail)}"
