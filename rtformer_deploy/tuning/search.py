"""Errors of single blocks -> the order in which blocks leave INT8, and the search along it that asks for as few scores as it can.

The error of a block is measured with that block alone in lower precision. Rounding errors of different blocks are independent, so
what they add to the logits' mean square adds up; at the INT8 end, where every block errs at once, one block's share would drown in
the others'. What adds up only nearly is then settled by the mIoU of real engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from .blocks import Block

Level = Literal["int8", "fp16", "fp32"]
Levels = dict[str, Level]
Errors = Mapping[tuple[str, Level], float]
Within = Callable[[Levels], bool]

#: Time for a multiplication, relative: the peak rates of GPUs and CPUs with INT8 units. It orders; what is chosen is measured.
_TIME: Mapping[Level, float] = {"int8": 1.0, "fp16": 2.0, "fp32": 4.0}
_LIGHT = 0.02  # of the multiplications: a block that may cost more in conversions than it saves


def ladder(blocks: Sequence[Block], errors: Errors, steps: Sequence[Level]) -> list[Levels]:
    """Nested mixes from everything on the first of `steps` ("int8", ...) to everything on the last.

    Each lifts one block by one step: the one whose lift removes most error for the time it adds. An error that was not measured is 0.
    """
    levels: Levels = {block.name: _lowest(block, steps) for block in blocks}
    rungs = [dict(levels)]
    while True:
        lifts = [(block, steps[steps.index(levels[block.name]) + 1]) for block in blocks if levels[block.name] != steps[-1]]
        if not lifts:
            return rungs
        block, level = max(lifts, key=lambda lift: _worth(lift[0], levels[lift[0].name], lift[1], errors))
        levels[block.name] = level
        rungs.append(dict(levels))


def first_within(rungs: Sequence[Levels], within: Within) -> int:
    """The index of the first rung that is within the bound, by bisection: at most 1 + log2 of them are scored. The last one counts as
    within; where the answer is the last one, the one before it was scored and was not."""
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


def put_back(levels: Levels, blocks: Sequence[Block], step: Level, within: Within, tries: int) -> Levels:
    """Lifted blocks back to `step` one by one, those with most work first, as long as the mix stays within; at most `tries` are scored."""
    heavy = sorted((block for block in blocks if block.convolutions and block.work >= _LIGHT), key=lambda block: -block.work)
    for block in [block for block in heavy if levels[block.name] != step][:tries]:
        lower: Levels = levels | {block.name: step}
        if within(lower):
            levels = lower
    return levels


def without_light(levels: Levels, blocks: Sequence[Block], step: Level) -> Levels:
    """The mix with its light blocks on `step`: converting to INT8 and back may take longer there than INT8 saves."""
    return levels | {block.name: step for block in blocks if block.convolutions and block.work < _LIGHT and levels[block.name] == "int8"}


def _lowest(block: Block, steps: Sequence[Level]) -> Level:
    return steps[0] if block.convolutions or steps[0] != "int8" else steps[1]


def _worth(block: Block, now: Level, then: Level, errors: Errors) -> float:
    removed = errors.get((block.name, now), 0.0) - errors.get((block.name, then), 0.0)
    return removed / max(block.work * (_TIME[then] - _TIME[now]), 1e-12)
