"""What holds for every SVG: the same bytes for the same input, colours that follow the page, text as text, nothing fetched."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtformer_deploy.pictures.confusion import draw_confusion
from rtformer_deploy.pictures.histogram import draw_histogram
from rtformer_deploy.pictures.layers import draw_layers
from rtformer_deploy.pictures.pareto import draw_pareto
from rtformer_deploy.pictures.style import COLOURS
from rtformer_deploy.pictures.text import clean, shorten_middle
from rtformer_deploy.pictures.training import draw_training
from rtformer_deploy.runtime.layer_times import LayerTime
from rtformer_deploy.timing.report import Timing
from rtformer_deploy.tuning.points import Point

SVG = "{http://www.w3.org/2000/svg}"
#: Markup, mathematics, control characters, half a surrogate pair, scripts that the measuring font does not have.
ODD = '_a<b>&"$x^{2 \x00\x1b\n\ud800 漢字 \uffff\u202e'
READ = '_a<b>&"$x^{2 \ufffd\ufffd \ufffd 漢字 \ufffd\ufffd'


def point(name: str, miou: float, ratio: float) -> Point:
    return Point(name, name, {"a": "int8"}, miou, 100 * (0.7 - miou), 10 * ratio, 12 * ratio, ratio)


def confusion(name: str) -> str:
    return draw_confusion(np.array([[8, 2], [0, 0]]), (name, "c"), name)


def layers(name: str) -> str:
    return draw_layers([LayerTime(name, name, "", "", (1.0,)), LayerTime("x", "", "", "", (0.0,))], name, name)


def pareto(name: str) -> str:
    points = [point("FP32", 0.7, 1.0), point(name, 0.69, 0.5), point("INT8", 0.6, 0.4)]
    return draw_pareto(points, points[1], 0.5, name)


def training(name: str) -> str:
    steps = [{"kind": "step", "step": step, "loss": 1 / step, "lr": 1e-3} for step in (1, 2, 3)]
    return draw_training([*steps, {"kind": "scores", "step": 3, "scores": {name: {"miou": 0.5}, "empty": {"miou": None}}}])


def histogram(name: str) -> str:
    return draw_histogram(Timing((1.0, 2.0, 2.0, 9.0), 1, 0.01), name)


ALONE = (confusion, layers, pareto, training)
EVERY = (*ALONE, histogram)
Draw = Callable[[str], str]


@pytest.mark.parametrize("draw", EVERY)
def test_the_same_input_gives_the_same_bytes(draw: Draw) -> None:
    picture = draw("name")
    with matplotlib.rc_context({"axes.grid": True, "font.size": 30, "lines.linewidth": 9}):  # what a matplotlibrc may say
        assert draw("name") == picture


def test_another_process_draws_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.path += sys.argv[1:]; from test_svg import pareto; sys.stdout.write(pareto('name'))"
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    command = [sys.executable, "-c", code, *sys.path]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == pareto("name")


@pytest.mark.parametrize("draw", EVERY)
def test_every_colour_is_a_variable(draw: Draw) -> None:
    picture = draw("name")
    values = {light: name for name, (light, _) in COLOURS.items()}
    shapes = re.sub(r"<style>.*</style>", "", picture)
    for element in re.findall(r"<(?:path|text)[^>]*>", shapes):
        for paint, value in re.findall(r'(fill|stroke)="(#[^"]*)"', element):
            assert f"{paint}: var(--{values[value]}, {value})" in element
        assert len(re.findall("#", element)) == 2 * len(re.findall("var", element))


@pytest.mark.parametrize("draw", ALONE)
def test_a_file_of_its_own_is_light_or_dark(draw: Draw) -> None:
    root = ElementTree.fromstring(draw("name"))
    style = root.findtext(f"{SVG}style")
    assert style is not None
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for name, (bright, dim) in COLOURS.items():
        assert f"--{name}: {bright};" in light
        assert f"--{name}: {dim};" in dark
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


@pytest.mark.parametrize("draw", EVERY)
def test_nothing_is_fetched_or_dated_and_no_id_is_left(draw: Draw) -> None:
    picture = draw("name").replace(' xmlns="http://www.w3.org/2000/svg"', "")
    for word in ("http", "url(", "href", " id=", "<use", "<metadata", "<!DOCTYPE", "{"):
        assert word not in re.sub(r"<style>.*</style>", "", picture)


@pytest.mark.parametrize("draw", ALONE)
def test_odd_names_are_text(draw: Draw) -> None:
    picture = draw(ODD)
    texts = [element.text or "" for element in ElementTree.fromstring(picture.encode()).iter(f"{SVG}text")]
    assert any(READ in text for text in texts) or any(shorten_middle(READ, 16) == text for text in texts)


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    confusion("name")
    assert dict(matplotlib.rcParams) == before
    code = "import sys, rtformer_deploy.pictures.training as t; t.draw_training([]); print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_cleaned_text_is_xml_and_one_line(text: str) -> None:
    read = ElementTree.fromstring(f"<a>{html.escape(clean(text))}</a>".encode()).text or ""
    assert read == clean(text)
    assert len(read.splitlines()) <= 1
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", read)


def test_clean_and_shorten_middle() -> None:
    assert clean(ODD) == READ
    assert clean("a\tb\r\nc") == "a b c"
    assert shorten_middle("abcdefghijklm", 9) == "abc...klm"
    assert shorten_middle("abc", 3) == "abc"
