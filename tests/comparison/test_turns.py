"""Ratios of rounds: what a round that one contestant missed counts for, and which way a ratio points."""

from __future__ import annotations

from rtformer_deploy.comparison.contestant import Turn
from rtformer_deploy.comparison.turns import Ratio, Round, latencies, ratio


def turn(engine: float, frame: float) -> Turn:
    return Turn((engine, engine), (frame, frame, frame), 1.0)


ROUNDS: list[Round] = [
    {"a": turn(10, 20), "b": turn(5, 16)},
    {"a": turn(30, 40), "b": turn(10, 20)},
    {"a": turn(10, 20)},
]


def test_a_ratio_is_the_median_of_the_rounds_in_which_both_ran() -> None:
    assert ratio(ROUNDS, "b", "a", lambda each: each.engine_ms) == Ratio(2.5, 2.0, 3.0)
    assert ratio(ROUNDS, "b", "a", lambda each: each.frame_ms) == Ratio(1.625, 1.25, 2.0)
    assert ratio(ROUNDS, "a", "b", lambda each: each.engine_ms) == Ratio((1 / 2 + 1 / 3) / 2, 1 / 3, 1 / 2)


def test_without_a_round_in_common_there_is_no_ratio() -> None:
    assert ratio(ROUNDS[2:], "b", "a", lambda each: each.frame_ms) is None


def test_latencies_are_those_of_all_rounds() -> None:
    assert latencies(ROUNDS, "b", lambda each: each.engine_ms) == (5, 5, 10, 10)
