"""Each picture shows what it was given, and draws something from nothing."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from rtformer_deploy.pictures.changes import CLEAR, NEAR, draw_changes
from rtformer_deploy.pictures.confusion import draw_confusion
from rtformer_deploy.pictures.histogram import draw_histogram
from rtformer_deploy.pictures.layers import draw_layers
from rtformer_deploy.pictures.pareto import draw_pareto
from rtformer_deploy.pictures.report import render
from rtformer_deploy.pictures.style import GREEN
from rtformer_deploy.pictures.training import draw_training
from rtformer_deploy.runtime.layer_times import LayerTime
from rtformer_deploy.timing.report import Report, Timing
from rtformer_deploy.tuning.points import Point

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str, kind: str = "text") -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}{kind}")]


def point(name: str, miou: float, ratio: float) -> Point:
    return Point(name, name, {"a": "int8"}, miou, 100 * (0.7 - miou), 10 * ratio, 12 * ratio, ratio)


def test_a_confusion_matrix_names_every_class_twice() -> None:
    picture = draw_confusion(np.array([[8, 2], [0, 0]]), ("a<b", "c"), "title & more")
    shown = texts(picture)
    assert shown.count("a<b") == 2
    assert {"80", "20", "title & more"} <= set(shown)
    assert set(texts(picture, "title")) == {"a<b taken for a<b: 80.0 %", "a<b taken for c: 20.0 %"}


def test_a_large_confusion_matrix_has_tips_instead_of_numbers() -> None:
    matrix = np.full((40, 40), 1)
    matrix[3, 4] = 361
    picture = draw_confusion(matrix, [f"class {number}" for number in range(40)], "title")
    assert "90" not in texts(picture)
    assert "class 3 taken for class 4: 90.2 %" in texts(picture, "title")
    assert "class 3 taken for class 5: 0.2 %" not in texts(picture, "title")
    assert draw_confusion(np.array([[0]]), ("only",), "title").count("only") == 2


def test_layers_have_a_bar_a_time_and_a_tip_each() -> None:
    layers = [LayerTime(f"<&{index}>", f"kind {index}", "kernel", "fp32", (float(index),)) for index in range(12)]
    picture = draw_layers(layers, "a < b", "note & more")
    assert set(texts(picture, "title")) == {f"<&{index}>, kind {index}, kernel, fp32, {index:.3f} ms" for index in range(12)}
    assert {"other", "a < b", "note & more", "<&11>", "11.000 ms"} <= set(texts(picture))
    ElementTree.fromstring(draw_layers([], "", ""))


def test_points_have_their_names_and_the_chosen_one_is_green() -> None:
    points = [point("FP32", 0.7, 1.0), point("a<b", 0.69, 0.5), point("INT8", 0.6, 0.4)]
    picture = draw_pareto(points, points[1], 0.5, "x & y")
    tips = {group.findtext(f"{SVG}title"): group.find(f"{SVG}path") for group in ElementTree.fromstring(picture).iter(f"{SVG}g")}
    assert len(tips) == 3
    green = [tip for tip, path in tips.items() if path is not None and path.get("fill") == GREEN]
    assert green == ["a<b, 1 blocks in INT8: 69.00 %, 5 ms"]
    assert {"a<b", "x & y", "FP32", "FP32 - 0.5 points"} <= set(texts(picture))


def test_points_that_are_all_alike_are_drawn() -> None:
    picture = draw_pareto([point("FP32", 0.7, 1.0)] * 2, None, 0.0, "all alike")
    assert "nan" not in picture
    assert "FP32" in texts(picture)


def test_of_many_points_the_chosen_one_and_the_baseline_have_names() -> None:
    crowd = [point(f"mix {number}", 0.69, 0.5) for number in range(30)]
    shown = texts(draw_pareto([point("FP32", 0.69, 0.5), *crowd], crowd[20], 0.5, "a crowd"))
    assert {"FP32", "mix 20"} <= set(shown)
    assert sum(text.startswith("mix") for text in shown) < 10


def test_a_training_log_shows_every_split() -> None:
    steps = [{"kind": "step", "step": step, "loss": 2 / step, "lr": 1e-3} for step in range(1, 11)]
    scores = {"kind": "scores", "step": 10, "scores": {split: {"miou": 0.5} for split in ("val", "held-out", "c", "d", "e")}}
    shown = texts(draw_training([{"kind": "start", "step": 0}, *steps, scores]))
    assert {"loss", "learning rate", "step", "mIoU val, %", "mIoU held-out, %", "mIoU e, %"} <= set(shown)
    ElementTree.fromstring(draw_training([]))


@pytest.mark.parametrize("latencies", [(5.0,) * 3, (1.0,), (0.031, 0.0312, 0.0313), (1.0,) * 300 + (900.0,)])
def test_a_histogram_has_a_tip_for_every_bar(latencies: tuple[float, ...]) -> None:
    picture = draw_histogram(Timing(latencies, 1, 1.0), "in words")
    root = ElementTree.fromstring(picture)
    assert root.get("aria-label") == "in words"
    counts = [int(title.text.rpartition(": ")[2]) for title in root.iter("title") if title.text]
    assert sum(counts) in (len(latencies), len(latencies) - 1)


def test_changed_pixels_are_marked_on_a_grey_frame() -> None:
    changed = np.array([[True, True, False]])
    picture = draw_changes(np.full((1, 3, 3), 100, np.uint8), changed, np.array([[True, False, True]]))
    assert picture[0].tolist() == [list(NEAR), list(CLEAR), [45, 45, 45]]


@pytest.fixture
def report() -> Report:
    timing = Timing((1.0, 2.0, 3.0), 1, 0.006)
    frame, model = {"height": 4, "width": 6, "source": "sample"}, {"name": "tiny", "input": [64, 96], "gpu": None}
    return Report(timing, timing, "latency", 1, 1, 0.5, frame, model, {"cpu": "a CPU"})


def test_the_page_escapes_what_it_is_given_and_can_be_encoded(report: Report) -> None:
    odd = "<b>&\"'\x00\ud800"
    model, frame, machine = {**report.model, "name": odd}, {**report.frame, "source": odd}, {"cpu": odd, odd: [odd]}
    page = render(replace(report, notes=(odd,), stages={odd: 1.0}, conventions={odd: odd}, model=model, frame=frame, environment=machine))
    assert page.startswith("<!doctype html>")
    assert page.encode().count(b"&lt;b&gt;&amp;&#34;&#39;\xef\xbf\xbd\xef\xbf\xbd") == 12
    assert "<b>" not in page


def test_the_page_leaves_out_what_is_not_known(report: Report) -> None:
    page = render(report)
    for absent in ("Stages", "Paced", "GPU meanwhile", "Notes", "None", '<th scope="row">gpu'):
        assert absent not in page
    assert page == render(report)
