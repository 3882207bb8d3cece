"""The journal on disk: the lines of earlier versions, runs that were killed, files of other runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtformer_deploy.errors import UsageError
from rtformer_deploy.tuning.journal import Journal
from rtformer_deploy.tuning.records import Latency, Record, Round, Score, Sensitivity

RECORDS: list[Record] = [
    Score("0123456789ab", "FP32", {"ä": "fp32", "rest": "fp32"}, 0.7),
    Sensitivity("ä", "int8", 0.1 + 0.2, 0.01),
    Sensitivity("ä", "fp16", None, 0.25),
    Round({"0123456789ab": Latency(10.5, 12.0)}),
]
#: What every version has written and reads.
LINES = """\
{"kind": "run", "identity": {"model": "1", "limit": 8}}
{"kind": "point", "key": "0123456789ab", "name": "FP32", "levels": {"ä": "fp32", "rest": "fp32"}, "miou": 0.7}
{"kind": "error", "block": "ä", "level": "int8", "error": 0.30000000000000004, "flips": 0.01}
{"kind": "error", "block": "ä", "level": "fp16", "error": null, "flips": 0.25}
{"kind": "round", "latencies": {"0123456789ab": [10.5, 12.0]}}
"""


def filled(path: Path) -> Journal:
    journal = Journal(path, {"model": "1", "limit": 8}, False)
    for record in RECORDS:
        journal.add(record)
    return journal


def test_the_lines_are_those_of_every_version_and_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "tune.state.jsonl"
    filled(path)
    assert path.read_text(encoding="utf-8") == LINES
    again = Journal(path, {"model": "1", "limit": 8}, True)
    assert again.records == RECORDS
    assert (again.scores(), again.sensitivities(), again.rounds()) == (RECORDS[:1], RECORDS[1:3], RECORDS[3:])
    assert path.read_text(encoding="utf-8") == LINES


def test_blocks_are_ordered_by_the_logits_error_or_by_the_pixels() -> None:
    assert [record.rank for record in RECORDS if isinstance(record, Sensitivity)] == [0.1 + 0.2, 0.25]


def test_a_line_that_was_cut_short_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "tune.state.jsonl"
    filled(path)
    with open(path, "a") as file:
        file.write('{"kind": "point", "key": ')  # a kill in the middle of a line
    again = Journal(path, {"model": "1", "limit": 8}, True)
    assert again.records == RECORDS
    again.add(RECORDS[1])
    assert len(Journal(path, {"model": "1", "limit": 8}, True).records) == len(RECORDS) + 1


def test_another_runs_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tune.state.jsonl"
    filled(path)
    with pytest.raises(UsageError, match="holds a run already"):
        Journal(path, {"model": "1", "limit": 8}, False)
    with pytest.raises(UsageError, match="another run: model, limit differ"):
        Journal(path, {"model": "2", "limit": 9}, True)
    assert path.read_text(encoding="utf-8") == LINES


@pytest.mark.parametrize("identity", [{"model": "1"}, {"model": "1", "limit": 8, "images": "x"}])
def test_a_journal_that_knows_other_facts_is_refused(tmp_path: Path, identity: dict[str, object]) -> None:
    path = tmp_path / "tune.state.jsonl"
    filled(path)
    with pytest.raises(UsageError, match="written by another version of rtformer-deploy"):
        Journal(path, identity, True)
    assert path.read_text(encoding="utf-8") == LINES


@pytest.mark.parametrize(
    "text",
    ["no state\n", '{"kind": "error"}\n', '{"kind": "run", "identity": {}}\n{"kind": "point", "key": "k"}\n',
     '{"kind": "run", "identity": {}}\n{"kind": "other"}\n', '{"kind": "run", "identity": {}}\n{"kind": "round", "latencies": 3}\n'],
)  # fmt: skip
def test_what_is_no_journal_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tune.state.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match="not the state"):
        Journal(path, {}, True)
    assert path.read_text() == text
