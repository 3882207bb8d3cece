"""The search on made-up errors and drops, and the points: no engine is built."""

from __future__ import annotations

import pytest

from rtformer_deploy.graph.names import home
from rtformer_deploy.tuning.blocks import Block
from rtformer_deploy.tuning.points import Point, choose, front, key_of, summarise
from rtformer_deploy.tuning.records import Latency, Round, Score
from rtformer_deploy.tuning.search import Level, Mix, first_within, ladder, put_back, without_light

BLOCKS = [
    Block("a", ("a.0",), ("a.0", "a.relu"), 0.5),
    Block("b", ("b.0",), ("b.0",), 0.3),
    Block("c", ("c.0",), ("c.0",), 0.19),
    Block("d", ("d.0",), ("d.0",), 0.01),
    Block("rest", (), ("x",), 0.0),
]
ERRORS: dict[tuple[str, Level], float] = {("a", "int8"): 1.0, ("b", "int8"): 3.0, ("c", "int8"): 0.019, ("d", "int8"): 0.5}


def point(name: str, miou: float, ratio: float, mix: Mix | None = None) -> Point:
    return Point(name, name, mix or {}, miou, 100 * (0.7 - miou), 10 * ratio, 12 * ratio, ratio)


def lifted(rungs: list[Mix]) -> list[str]:
    return [f"{name} {rungs[i + 1][name]}" for i in range(len(rungs) - 1) for name in rungs[i] if rungs[i][name] != rungs[i + 1][name]]


def test_blocks_leave_int8_by_error_for_their_work() -> None:
    rungs = ladder(BLOCKS, ERRORS, ("int8", "fp32"))
    assert rungs[0] == {"a": "int8", "b": "int8", "c": "int8", "d": "int8", "rest": "fp32"}
    assert lifted(rungs) == ["d fp32", "b fp32", "a fp32", "c fp32"]
    assert set(rungs[-1].values()) == {"fp32"}


def test_three_levels_lift_one_level_at_a_time() -> None:
    errors = ERRORS | {("a", "fp16"): 0.9, ("rest", "fp16"): 0.4}
    rungs = ladder(BLOCKS, errors, ("int8", "fp16", "fp32"))
    assert rungs[0]["rest"] == "fp16"
    order = lifted(rungs)
    assert len(order) == 2 * 4 + 1
    assert all(order.index(f"{name} fp16") < order.index(f"{name} fp32") for name in "abcd")
    assert order.index("a fp32") < order.index("b fp32")  # only a's FP16 error is worth removing
    assert set(rungs[-1].values()) == {"fp32"}


@pytest.mark.parametrize("needed", range(9))
def test_bisection_scores_few_and_finds_the_first(needed: int) -> None:
    rungs: list[Mix] = [{str(i): "int8"} for i in range(9)]
    asked: list[int] = []

    def within(mix: Mix) -> bool:
        asked.append(int(next(iter(mix))))
        return asked[-1] >= needed

    assert first_within(rungs, within) == needed
    assert len(asked) == len(set(asked)) <= 4
    assert 8 not in asked  # the baseline is not scored again
    if needed == 8:
        assert 7 in asked  # "none but the last" is never said of a rung that was not tried


def test_heavy_blocks_go_back_where_the_bound_allows() -> None:
    levels: Mix = dict.fromkeys("abcd", "fp32") | {"rest": "fp32"}  # type: ignore[assignment]
    tried: list[Mix] = []

    def within(mix: Mix) -> bool:
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
    single, low = Score("f", "FP32", {"a": "fp32"}, 0.7), Score("i", "INT8", {"a": "int8"}, 0.6)
    rounds = [
        Round({"f": Latency(10.0, 12.0), "i": Latency(5.0, 6.0)}),
        Round({"f": Latency(40.0, 41.0), "i": Latency(20.0, 21.0)}),
        Round({"f": Latency(11.0, 13.0), "i": Latency(9.9, 10.0)}),
    ]
    points = summarise([low, single], rounds, single)
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
    assert home("cp.backbone.features.4.conv_list.0.bn") == home("cp.backbone.features.4/Concat") == "cp.backbone.features.4"
    assert home("cp.arm16.conv.bn") == home("cp.arm16/ReduceMean") == "cp.arm16"


def test_a_key_is_the_mixs_own() -> None:
    assert key_of({"a": "int8", "b": "fp32"}) == key_of({"b": "fp32", "a": "int8"}) != key_of({"a": "fp32", "b": "int8"})
