"""Errors of single blocks -> the order in which blocks leave INT8, and a search along it that needs few scores.

The error of a block is measured with that block alone in lower precision. Rounding errors of different blocks are independent, so
what they add to the logits' mean square adds up; at the INT8 end, where every block errs at once, one block's share would be lost among
the others. The errors add up only roughly, so the mIoU of real engines decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from .blocks import Block

Level = Literal["int8", "fp16", "fp32"]
#: The precision of every block, by the block's name.
Mix = dict[str, Level]
Errors = Mapping[tuple[str, Level], float]
#: Whether a mix loses no more than is allowed.
Within = Callable[[Mix], bool]

#: Time for a multiplication, relative: the peak rates of GPUs and CPUs with INT8 units. It only sets the order; timing makes the choice.
_TIME: Mapping[Level, float] = {"int8": 1.0, "fp16": 2.0, "fp32": 4.0}
_LIGHT = 0.02  # of the multiplications: a block that may cost more in conversions than it saves


def ladder(blocks: Sequence[Block], errors: Errors, levels: Sequence[Level]) -> list[Mix]:
    """Nested mixes from everything on the first of `levels` ("int8", ...) to everything on the last.

    Each step raises one block by one level: the block that removes most error for the time it adds. An error without a measurement
    is 0.
    """
    mix: Mix = {block.name: _lowest(block, levels) for block in blocks}
    rungs = [dict(mix)]
    while True:
        lifts = [(block, levels[levels.index(mix[block.name]) + 1]) for block in blocks if mix[block.name] != levels[-1]]
        if not lifts:
            return rungs
        block, level = max(lifts, key=lambda lift: _worth(lift[0], mix[lift[0].name], lift[1], errors))
        mix[block.name] = level
        rungs.append(dict(mix))


def first_within(rungs: Sequence[Mix], within: Within) -> int:
    """The index of the first rung that is within the bound, by bisection: at most 1 + log2 of them are scored.

    The last rung counts as within. If it is the answer, the one before it was scored and is not within.
    """
    if within(rungs[0]):
        return 0
    outside, inside = 0, len(rungs) - 1
    while inside - outside > 1:
        middle = (outside + inside) // 2
        if within(rungs[middle]):
            inside = middle
        else:
            outside = middle
    return inside


def put_back(mix: Mix, blocks: Sequence[Block], level: Level, within: Within, tries: int) -> Mix:
    """Puts lifted blocks back to `level` one by one, those with most work first, as long as the mix stays within.

    At most `tries` mixes are scored.
    """
    heavy = sorted((block for block in blocks if block.convolutions and block.work >= _LIGHT), key=lambda block: -block.work)
    for block in [block for block in heavy if mix[block.name] != level][:tries]:
        lower: Mix = mix | {block.name: level}
        if within(lower):
            mix = lower
    return mix


def without_light(mix: Mix, blocks: Sequence[Block], level: Level) -> Mix:
    """The mix with its light blocks on `level`: converting to INT8 and back may take longer there than INT8 saves."""
    return mix | {block.name: level for block in blocks if block.convolutions and block.work < _LIGHT and mix[block.name] == "int8"}


def _lowest(block: Block, levels: Sequence[Level]) -> Level:
    return levels[0] if block.convolutions or levels[0] != "int8" else levels[1]


def _worth(block: Block, now: Level, then: Level, errors: Errors) -> float:
    removed = errors.get((block.name, now), 0.0) - errors.get((block.name, then), 0.0)
    return removed / max(block.work * (_TIME[then] - _TIME[now]), 1e-12)
