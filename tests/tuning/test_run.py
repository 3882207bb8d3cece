"""The run as it goes on a GPU, on a workshop that makes its numbers up: when FP32 comes in, what is measured, what is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rtformer_deploy.commands.tune import check_gate
from rtformer_deploy.errors import GateError
from rtformer_deploy.tuning import run as run_module
from rtformer_deploy.tuning.blocks import Block
from rtformer_deploy.tuning.measure import Error
from rtformer_deploy.tuning.run import ROUNDS, Run, Tuned
from rtformer_deploy.tuning.search import Levels
from rtformer_deploy.tuning.state import State
from rtformer_deploy.types import no_progress

BLOCKS = [
    Block("a", ("a.0",), ("a.0",), 0.4),
    Block("b", ("b.0",), ("b.0",), 0.3),
    Block("c", ("c.0",), ("c.0",), 0.2),
    Block("rest", (), ("x",), 0.1),
]
TIME = {"int8": 1.0, "fp16": 2.0, "fp32": 8.0}


class MadeUp:
    """A workshop whose mixes lose the sum of their blocks' losses (points), and take the sum of their work."""

    backend = "tensorrt"
    on_gpu = True

    def __init__(self, losses: Mapping[tuple[str, str], float]) -> None:
        self.blocks, self.losses, self.alone = BLOCKS, losses, list[Levels]()

    def loss(self, levels: Levels) -> float:
        return sum(self.losses.get((name, level), 0.0) for name, level in levels.items())

    def engine(self, levels: Levels) -> Levels:
        self.alone.append(levels)
        return levels

    def miou(self, key: str, levels: Levels, progress: object) -> float:
        return 0.7 - self.loss(levels) / 100

    def frames(self, count: int) -> list[Any]:
        return []

    def latencies(self, points: Mapping[str, Levels], seconds: float, tell: Callable[[int], None]) -> dict[str, tuple[float, float]]:
        taken = {key: sum(block.work * TIME[levels[block.name]] for block in BLOCKS) for key, levels in points.items()}
        return {key: (value, value + 1) for key, value in taken.items()}


class MadeUpReference:
    """Errors as the losses are."""

    def __init__(self, workshop: MadeUp, engine: Levels, frames: object) -> None:
        self.workshop = workshop

    def error(self, engine: Levels) -> Error:
        return Error(self.workshop.loss(engine) / 1000, 0.0)


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Tuned, MadeUp, list[dict[str, Any]]]]:
    monkeypatch.setattr(run_module, "Reference", MadeUpReference)

    def searched(losses: Mapping[tuple[str, str], float], max_drop: float = 0.5) -> tuple[Tuned, MadeUp, list[dict[str, Any]]]:
        workshop, state = MadeUp(losses), State(tmp_path / "state", {}, False)
        stand_in: Any = workshop
        run = Run(stand_in, state, limit=1, max_drop=max_drop, seconds=1, say=lambda text: None, progress=no_progress)
        return run.search(), workshop, state.records

    return searched


def test_fp32_stays_out_where_fp16_is_within(search: Any) -> None:
    tuned, _, records = search({("a", "int8"): 0.1, ("b", "int8"): 3, ("c", "int8"): 0.2, ("a", "fp16"): 0.01})
    assert tuned.chosen.levels == {"a": "int8", "b": "fp16", "c": "int8", "rest": "fp16"}
    assert tuned.points[0].name == "FP32"
    assert all("fp32" not in point.levels.values() for point in tuned.points[1:])
    assert {each["level"] for each in records if each["kind"] == "error"} == {"int8"}
    assert sum(each["kind"] == "round" for each in records) == ROUNDS


def test_fp32_comes_in_where_fp16_is_not(search: Any) -> None:
    losses = {("a", "int8"): 0.1, ("b", "int8"): 3, ("b", "fp16"): 2, ("c", "int8"): 1, ("c", "fp16"): 0.1}
    tuned, workshop, _ = search(losses)
    assert tuned.chosen.levels == {"a": "int8", "b": "fp32", "c": "fp16", "rest": "fp16"}
    assert tuned.chosen.drop == pytest.approx(0.2)
    single = [levels for levels in workshop.alone if list(levels.values()).count("fp32") == 3]
    assert {(name, level) for levels in single for name, level in levels.items() if level != "fp32"} == {
        ("a", "int8"), ("b", "int8"), ("c", "int8"), ("a", "fp16"), ("b", "fp16"), ("c", "fp16"), ("rest", "fp16"),
    }  # fmt: skip


def test_all_int8_is_chosen_where_it_is_within(search: Any) -> None:
    tuned, _, _ = search({("a", "int8"): 0.1})
    assert tuned.chosen.name == "INT8"
    assert tuned.chosen.ratio == pytest.approx((0.9 + 0.2) / 8)


def test_no_mix_within_is_the_gate(search: Any) -> None:
    tuned, _, _ = search({(name, level): 5 for name in ("a", "b", "c", "rest") for level in ("int8", "fp16")})
    assert tuned.chosen is None
    with pytest.raises(GateError, match=r"No mix is within --max-drop 0.5: the nearest, mix \d+, loses 5.00 points"):
        check_gate(tuned)
