"""Turns and rounds: who is called when, what a round that one contestant missed counts for, and which way a ratio points."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from comparing import FakeProcess, turn, without_processes
from helpers import StoppedError

from rtformer_deploy.comparison.contestant import Contestant
from rtformer_deploy.comparison.turns import Ratio, Round, between, frame_times, ratio, take_turns
from rtformer_deploy.errors import DeployError

ROUNDS: list[Round] = [
    {"a": turn(10, 20), "b": turn(5, 16)},
    {"a": turn(30, 40), "b": turn(10, 20)},
    {"a": turn(10, 20)},
]


def test_a_ratio_is_the_median_of_the_rounds_in_which_both_ran() -> None:
    assert ratio(ROUNDS, "b", "a", "engine") == Ratio(2.5, 2.0, 3.0)
    assert ratio(ROUNDS, "b", "a", "frame") == Ratio(1.625, 1.25, 2.0)
    assert ratio(ROUNDS, "a", "b", "engine") == Ratio((1 / 2 + 1 / 3) / 2, 1 / 3, 1 / 2)


def test_without_a_round_in_common_there_is_no_ratio() -> None:
    assert ratio(ROUNDS[2:], "b", "a", "frame") is None


def test_a_step_of_several_frames_counts_for_each_of_them() -> None:
    assert frame_times(turn(12, 20, batch=4), "engine") == (3, 3)
    assert ratio([{"a": turn(10, 20), "b": turn(20, 20, batch=4)}], "b", "a", "engine") == Ratio(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (2, 1), (5, 1), (6, 1), (9, 2), (20, 6), (30, 10)])
def test_the_interval_of_a_median_is_that_of_the_sign_test(count: int, rank: int) -> None:
    """The ranks are those of the usual tables for a confidence of 95 %."""
    values = [float(value) for value in range(1, count + 1)]
    assert between(values[::-1]) == (rank, count + 1 - rank)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    return without_processes(monkeypatch)


def run(
    names: str, rounds: int, earlier: list[Round] | None = None, after: Callable[[Round], None] | None = None
) -> tuple[list[Round], dict[str, DeployError]]:
    measured: list[Round] = []
    contestants = [Contestant(name, f"{name}.plan") for name in names]
    failed = take_turns(contestants, (8, 8), rounds, 0.01, after or measured.append, earlier=earlier or [])
    return measured, failed


def test_every_round_calls_all_in_another_order(processes: type[FakeProcess]) -> None:
    rounds, failed = run("abc", 3)
    assert processes.called == [*"abc", *"bca", *"cab"]
    assert [sorted(each) for each in rounds] == [list("abc")] * 3
    assert failed == {}
    assert sorted(processes.closed) == list("abc")


def test_one_that_fails_leaves_the_others_their_rounds(processes: type[FakeProcess]) -> None:
    processes.breaks = {"a": 0, "b": 2}
    rounds, failed = run("abc", 3)
    assert [sorted(each) for each in rounds] == [["b", "c"], ["c"], ["c"]]
    assert {name: error.what for name, error in failed.items()} == {
        "a": "a cannot be opened.",
        "b": "The process of b crashed (SIGSEGV).",
    }
    assert sorted(processes.closed) == ["b", "c"]


def test_rounds_of_an_interrupted_run_count(processes: type[FakeProcess]) -> None:
    rounds, _ = run("ab", 3, earlier=[{"a": turn(1, 1), "b": turn(1, 1)}])
    assert len(rounds) == 2
    assert processes.called == [*"ba", *"ab"]  # as the second and third round of a run that was not interrupted


def test_a_run_that_is_whole_opens_nothing(processes: type[FakeProcess]) -> None:
    whole: Round = {"a": turn(1, 1), "b": turn(1, 1)}
    assert run("ab", 2, earlier=[whole, whole]) == ([], {})
    assert processes.opened == []


def test_one_that_comes_late_gets_as_many_rounds_in_turn_with_the_others(processes: type[FakeProcess]) -> None:
    rounds, _ = run("ab", 2, earlier=[{"a": turn(1, 1)}, {"a": turn(1, 1)}])
    assert [sorted(each) for each in rounds] == [["a", "b"]] * 2


def test_an_interruption_ends_all_processes(processes: type[FakeProcess]) -> None:
    def stop(each: Round) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        run("abc", 3, after=stop)
    assert sorted(processes.closed) == list("abc")


def test_if_all_fail_nothing_is_measured(processes: type[FakeProcess]) -> None:
    processes.breaks = {"a": 0, "b": 0}
    rounds, failed = run("ab", 3)
    assert (rounds, list(failed)) == ([], ["a", "b"])
