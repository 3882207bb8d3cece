"""The search on made-up errors and drops, the points and the picture: no engine is built."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from rtformer_deploy.errors import UsageError
from rtformer_deploy.graph.names import home
from rtformer_deploy.pictures.pareto import draw_pareto
from rtformer_deploy.tuning.blocks import Block
from rtformer_deploy.tuning.points import Point, choose, front, key_of, summarise
from rtformer_deploy.tuning.search import Level, Levels, first_within, ladder, put_back, without_light
from rtformer_deploy.tuning.state import State

BLOCKS = [
    Block("a", ("a.0",), ("a.0", "a.relu"), 0.5),
    Block("b", ("b.0",), ("b.0",), 0.3),
    Block("c", ("c.0",), ("c.0",), 0.19),
    Block("d", ("d.0",), ("d.0",), 0.01),
    Block("rest", (), ("x",), 0.0),
]
ERRORS: dict[tuple[str, Level], float] = {("a", "int8"): 1.0, ("b", "int8"): 3.0, ("c", "int8"): 0.019, ("d", "int8"): 0.5}


def point(name: str, miou: float, ratio: float, levels: Levels | None = None) -> Point:
    return Point(name, name, levels or {}, miou, 100 * (0.7 - miou), 10 * ratio, 12 * ratio, ratio)


def lifted(rungs: list[Levels]) -> list[str]:
    return [f"{name} {rungs[i + 1][name]}" for i in range(len(rungs) - 1) for name in rungs[i] if rungs[i][name] != rungs[i + 1][name]]


def test_blocks_leave_int8_by_error_for_their_work() -> None:
    rungs = ladder(BLOCKS, ERRORS, ("int8", "fp32"))
    assert rungs[0] == {"a": "int8", "b": "int8", "c": "int8", "d": "int8", "rest": "fp32"}
    assert lifted(rungs) == ["d fp32", "b fp32", "a fp32", "c fp32"]
    assert set(rungs[-1].values()) == {"fp32"}


def test_three_levels_lift_one_step_at_a_time() -> None:
    errors: dict[tuple[str, Level], float] = ERRORS | {("a", "fp16"): 0.9, ("rest", "fp16"): 0.4}
    rungs = ladder(BLOCKS, errors, ("int8", "fp16", "fp32"))
    assert rungs[0]["rest"] == "fp16"
    order = lifted(rungs)
    assert len(order) == 2 * 4 + 1
    assert all(order.index(f"{name} fp16") < order.index(f"{name} fp32") for name in "abcd")
    assert order.index("a fp32") < order.index("b fp32")  # only a's FP16 error is worth removing
    assert set(rungs[-1].values()) == {"fp32"}


@pytest.mark.parametrize("needed", range(9))
def test_bisection_scores_few_and_finds_the_first(needed: int) -> None:
    rungs: list[Levels] = [{str(i): "int8"} for i in range(9)]
    asked: list[int] = []

    def within(levels: Levels) -> bool:
        asked.append(int(next(iter(levels))))
        return asked[-1] >= needed

    assert first_within(rungs, within) == needed
    assert len(asked) == len(set(asked)) <= 4
    assert 8 not in asked  # the baseline is not scored again
    if needed == 8:
        assert 7 in asked  # "none but the last" is never said of a rung that was not tried


def test_heavy_blocks_go_back_where_the_bound_allows() -> None:
    levels: Levels = {block.name: "fp32" for block in BLOCKS}
    tried: list[Levels] = []

    def within(mix: Levels) -> bool:
        tried.append(mix)
        return mix["a"] == "fp32"

    assert put_back(levels, BLOCKS, "int8", within, 2) == levels | {"b": "int8"}
    assert [{name for name in mix if mix[name] == "int8"} for mix in tried] == [{"a"}, {"b"}]
    light = without_light({**levels, "a": "int8", "d": "int8"}, BLOCKS, "fp32")
    assert (light["a"], light["d"]) == ("int8", "fp32")


def test_the_fastest_within_is_chosen_and_ties_go_to_the_better() -> None:
    base, fast = point("FP32", 0.7, 1.0), point("INT8", 0.6, 0.4)
    near, better = point("m1", 0.696, 0.500), point("m2", 0.698, 0.505)
    points = [base, fast, near, better, point("slow", 0.65, 0.9)]
    assert choose(points, 0.5) is better
    assert choose(points, 20) is fast
    assert choose([base, fast], 0.5) is None  # FP32 itself is no mix
    assert choose([base, point("slow", 0.699, 1.3)], 0.5) is base  # INT8 that gains nothing is not chosen
    assert [each.name for each in front(points)] == ["INT8", "m1", "m2", "FP32"]


def test_latencies_are_medians_and_ratios_are_taken_round_by_round() -> None:
    scored: dict[str, tuple[str, Levels, float]] = {"i": ("INT8", {"a": "int8"}, 0.6), "f": ("FP32", {"a": "fp32"}, 0.7)}
    rounds = [{"f": (10.0, 12.0), "i": (5.0, 6.0)}, {"f": (40.0, 41.0), "i": (20.0, 21.0)}, {"f": (11.0, 13.0), "i": (9.9, 10.0)}]
    points = summarise(scored, rounds, "f")
    assert [each.name for each in points] == ["FP32", "INT8"]
    assert points[1].ratio == 0.5
    assert (points[0].latency_ms, points[0].end_to_end_ms) == (11.0, 13.0)
    assert (points[1].latency_ms, points[1].end_to_end_ms) == pytest.approx((5.5, 13.0 * 21 / 41))
    assert points[1].drop == pytest.approx(10)


def test_names_become_modules() -> None:
    assert [home(name) for name in ("layer1.0.bn1", "layer1.0/Add", "conv1.4", "seghead.bn2", "conv0")] == [
        "layer1.0", "layer1.0", "conv1", "seghead", "conv0",
    ]  # fmt: skip
    assert home("/layer4/layer4.0/conv1/Conv") == "layer4.layer4"


def test_the_picture_is_svg_with_every_point_and_names_escaped() -> None:
    points = [point("FP32", 0.7, 1.0), point("a<b", 0.69, 0.5), point("INT8", 0.6, 0.4)]
    root = ElementTree.fromstring(draw_pareto(points, points[1], 0.5, "x & y"))
    marks = [item for item in root.iter() if item.tag.endswith("circle")]
    assert len(marks) == 3
    assert sum(item.get("fill") == "#2ca02c" for item in marks) == 1
    texts = [item.text for item in root.iter() if item.tag.endswith("text")]
    assert {"a<b", "x & y", "FP32"} <= set(texts)
    one = [point("FP32", 0.7, 1.0)] * 2
    assert "nan" not in draw_pareto(one, None, 0.0, "all alike")


def test_the_state_goes_on_and_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tune.state.jsonl"
    state = State(path, {"model": "1", "limit": 8}, False)
    state.add({"kind": "error", "block": "ä", "error": 0.1 + 0.2})
    with open(path, "a") as file:
        file.write('{"kind": "point", "key": ')  # a kill in the middle of a line
    again = State(path, {"model": "1", "limit": 8}, True)
    assert list(again.of("error")) == [{"kind": "error", "block": "ä", "error": 0.1 + 0.2}]
    again.add({"kind": "point", "key": "k"})
    assert len(State(path, {"model": "1", "limit": 8}, True).records) == 2
    with pytest.raises(UsageError, match="holds a run already"):
        State(path, {"model": "1", "limit": 8}, False)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="another run: model, limit differ"):
        State(path, {"model": "2", "limit": 9}, True)
    assert path.read_bytes() == before
    path.write_text("no state\n")
    with pytest.raises(UsageError, match="not the state"):
        State(path, {}, True)
    path.write_text('{"kind": "error"}\n')
    with pytest.raises(UsageError, match="not the state"):
        State(path, {}, True)


def test_a_key_is_the_levels_own() -> None:
    assert key_of({"a": "int8", "b": "fp32"}) == key_of({"b": "fp32", "a": "int8"}) != key_of({"a": "fp32", "b": "int8"})
