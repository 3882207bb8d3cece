"""The picture and the page of a comparison: what was measured here and what others published cannot be taken for each other."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from rtformer_deploy.comparison.result import Compared, Point, Table
from rtformer_deploy.pictures import PAGE_MARK
from rtformer_deploy.pictures.comparison import render_comparison
from rtformer_deploy.pictures.scatter import draw_scatter
from rtformer_deploy.pictures.style import BACK, BLUE, GREEN

SVG = "{http://www.w3.org/2000/svg}"
COMPARED = Compared(
    title="a < b & c",
    tables=(Table("What <they> are", ("network", "FPS"), (("a<b", "12.5"), ("own", "-")), (1,), "a note"),),
    facts={"environment": {"cpu": "an abacus", "cores": 2, "gpus": None}},
    notes=("read <this>",),
    points=(Point("a<b", 12.5, 12.0, 13.0, 76.3, "published"), Point("own", 30.0, 29.0, 31.0, 70.0, "measured", own=True)),
    axes=("frames a second", "mIoU, %"),
)


def marks(picture: str) -> dict[str | None, tuple[str | None, str | None]]:
    """Each tip with the fill and the edge of its mark."""
    groups = ElementTree.fromstring(picture).iter(f"{SVG}g")
    found = {group.findtext(f"{SVG}title"): group.find(f"{SVG}path") for group in groups}
    return {tip: (path.get("fill"), path.get("stroke")) for tip, path in found.items() if path is not None}


def test_a_ring_was_published_and_a_filled_mark_measured() -> None:
    picture = draw_scatter(COMPARED)
    assert marks(picture) == {
        "a<b: 12.5 frames a second here, mIoU 76.30 %, published": (BACK, BLUE),
        "own: 30 frames a second here, mIoU 70.00 %, measured": (GREEN, GREEN),
    }
    shown = [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    assert {"a<b", "own", "a < b & c", "mIoU published by others, at their sizes", "mIoU measured here"} <= set(shown)


def test_points_that_are_all_alike_are_drawn() -> None:
    picture = draw_scatter(replace(COMPARED, points=COMPARED.points[:1] * 3))
    assert "nan" not in picture
    assert "mIoU measured here" not in picture  # nothing was


def test_the_page_holds_everything_and_escapes_it() -> None:
    page = render_comparison(COMPARED)
    assert page.startswith("<!doctype html>")
    assert PAGE_MARK in page
    for text in ("a &lt; b &amp; c", "What &lt;they&gt; are", '<th scope="row">a&lt;b</th>', "a note", "read &lt;this&gt;", "an abacus"):
        assert text in page, text
    assert "<svg" in page
    assert "gpus" not in page
    assert "<svg" not in render_comparison(replace(COMPARED, points=()))
