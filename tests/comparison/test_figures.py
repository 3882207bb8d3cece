"""Rounds -> figures, and how they come back from the journal."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import turn

from rtformer_deploy.comparison.contestant import Turn
from rtformer_deploy.comparison.figures import figures
from rtformer_deploy.comparison.records import Journal, Record, Scored, Timed
from rtformer_deploy.errors import UsageError

ROUNDS = [{"a": turn(10, 20), "b": turn(40, 80, batch=4)}, {"a": turn(20, 25)}]


def test_figures_are_of_a_frame_over_all_rounds() -> None:
    found = figures(ROUNDS, "a", "b")
    assert found is not None
    assert (found.engine.p50_ms, found.engine.steps, found.rounds, found.peak_mb) == (15, 4, 2, 1.0)
    assert found.engine.fps == pytest.approx(1000 / 15)
    assert (found.engine.low_fps, found.engine.high_fps) == (50, 100)
    assert found.frame.fps == pytest.approx(1000 / 22.5)
    assert found.to_json()["engine"]["ratio"] == [1.0, 1.0, 1.0]  # of the round in which both ran: 10 ms a frame each
    assert figures(ROUNDS, "c", "a") is None
    alone = figures(ROUNDS[1:], "a", "b")
    assert alone is not None
    assert alone.to_json()["engine"]["ratio"] is None


def test_the_speed_over_all_lies_between_those_of_the_rounds_though_a_few_steps_are_slow() -> None:
    slow = Turn((10.0, 10.0, 10.0, 90.0), (10.0, 10.0, 10.0, 0.3), 1.0)
    for rounds in ([{"a": slow}], [{"a": slow}, {"a": Turn((10.0, 11.0, 200.0), (7.0, 7.0, 7.3), 1.0)}]):
        found = figures(rounds, "a", "a")
        assert found is not None
        for speed in (found.engine, found.frame):
            assert speed.low_fps <= speed.fps <= speed.high_fps


def test_the_journal_gives_back_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "compare.state.jsonl"
    journal = Journal(path, {"suite": "paper"}, False)
    records: list[Record] = [Scored("a", 0.7, 3), *map(Timed, ROUNDS), Scored("a", 0.8, 4)]
    for each in records:
        journal.add(each)
    again = Journal(path, {"suite": "paper"}, True)
    assert again.rounds() == ROUNDS
    assert again.scores() == {"a": Scored("a", 0.8, 4)}


def test_a_round_of_many_steps_is_not_taken_for_a_line_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "compare.state.jsonl"
    long = turn(1.2345, 2)
    many = type(long)(long.engine_ms * 100_000, long.frame_ms, 1.0)
    Journal(path, {}, False).add(Timed({"a": many}))
    assert path.stat().st_size > 2**20
    assert Journal(path, {}, True).rounds() == [{"a": many}]


@pytest.mark.parametrize(
    "record", ['{"kind": "other"}', '{"kind": "round", "turns": {"a": {"engine_ms": [], "frame_ms": [1], "peak_mb": 1}}}']
)
def test_what_is_no_record_is_refused(tmp_path: Path, record: str) -> None:
    path = tmp_path / "compare.state.jsonl"
    path.write_text('{"kind": "run", "identity": {}}\n' + record + "\n")
    with pytest.raises(UsageError, match="not the state of a compare run"):
        Journal(path, {}, True)
