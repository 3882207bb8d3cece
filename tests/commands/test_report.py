"""report: every kind of document is shown, whatever it holds is text, and what cannot be shown is named and stops nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import tiny_spec
from hypothesis import given
from hypothesis import strategies as st
from odd_documents import bounded, other_values

from rtformer_deploy.cli import main
from rtformer_deploy.commands.compare import document as compare_document
from rtformer_deploy.commands.kinds import PAGE, Kind
from rtformer_deploy.commands.report import report_folder
from rtformer_deploy.commands.report_kinds import ROWS, row_of
from rtformer_deploy.comparison.result import Compared, Point
from rtformer_deploy.comparison.result import Table as Told
from rtformer_deploy.evaluation.evaluate import Evaluation
from rtformer_deploy.evaluation.flicker import Flicker
from rtformer_deploy.evaluation.stages import STAGES, Stage
from rtformer_deploy.evaluation.verify import Verification
from rtformer_deploy.files import DOCUMENT_BYTES, json_bytes
from rtformer_deploy.formats.documents import DocumentError
from rtformer_deploy.formats.engine_file import save_info
from rtformer_deploy.formats.ranges import save_ranges
from rtformer_deploy.pictures import blocks
from rtformer_deploy.pictures.blocks import Document
from rtformer_deploy.pictures.folder import render_folder
from rtformer_deploy.runtime.layer_times import LayerTime
from rtformer_deploy.stream.sinks import JSON_START
from rtformer_deploy.timing.paced import Paced
from rtformer_deploy.timing.profile import Profile
from rtformer_deploy.timing.report import Report, Timing
from rtformer_deploy.tuning.points import Point as MixPoint
from rtformer_deploy.types import Candidate, EngineInfo, PrecisionFound, Ranges

ODD = "<script>alert(1)</script>\u202e\"'&"
Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def page(call: Call, *arguments: object, code: int = 0) -> str:
    result = call("report", "results", *arguments)
    assert result.exit_code == code, result.output
    return Path("report.html").read_text() if code == 0 else result.stderr


def bench(name: str = "tiny") -> dict[str, Any]:
    timing = Timing((5.0, 6.0, 7.0, 90.0), 1, 0.1)
    paced = Paced(30.0, 33.3, 1, (5.0, 6.0, 40.0), (0.1, 0.2, 0.3), 0, 0)
    model = {"name": name, "input": [64, 96], "backend": "openvino", "precision_asked": "fp32"}
    environment = {"cpu": f"a CPU of {name}", "cores": 2, "gpus": None, "packages": {"numpy": "2.0"}}
    report = Report(timing, timing, "latency", 1, 1, 0.5, {"height": 4, "width": 6}, model, environment)
    return replace(
        report, stages={"engine": 5.0, "preprocess": 1.0}, paced=paced, peak_memory_mb=12.0, notes=(f"A note on {name}.",)
    ).to_json()


def evaluation(name: str = "tiny") -> dict[str, Any]:
    return Evaluation(name, "camvid", "val", 4, ("road", ODD), np.array([[8, 2], [1, 9]]), "A note.").to_json()


def profile() -> dict[str, Any]:
    layers = tuple(LayerTime(f"layer{index}.{ODD}", "Conv", "jit", "f32", (float(index), index + 0.5)) for index in range(60))
    return Profile("tiny", "openvino", (64, 96), 1, 2, layers, 30.0).to_json()


def tuning() -> dict[str, Any]:
    points = [
        MixPoint("a", "FP32", {"b": "fp32"}, 0.7, 0.0, 10.0, 12.0, 1.0),
        MixPoint("b", ODD, {"b": "int8"}, 0.69, 1.0, 5.0, 7.0, 0.5),
    ]
    told = [point.to_json() | {"pareto": True, "within": True} for point in points]
    about = {"model": "tiny", "backend": "openvino", "dataset": "camvid", "split": "val", "frames": 4, "max_drop": 2.0}
    return about | {"baseline": told[0], "chosen": points[1].to_json(), "points": told, "command": "rtformer-deploy build-engine"}


def comparison() -> dict[str, Any]:
    table = Told("Measured here", ("network", "p50, ms"), (("slim", "1,234.5"), (ODD, "9.5±0.2"), ("failed", "-")), (1,), "A note.")
    points = (Point("slim", 10.0, 9.0, 11.0, 77.1, "published"), Point(ODD, 20.0, 19.0, 21.0, 70.0, "measured", own=True))
    compared = Compared("Paper's picture", (table,), {"compared": "suite", "title": "Paper's picture", "rows": [], "environment": {}},
                        points=points, axes=("frames a second", "mIoU"))  # fmt: skip
    return compare_document(compared)


def verification() -> dict[str, Any]:
    found = Verification("a.onnx", ODD, ("road", "sky"), None, images=2, pixels=100, changed=3, within=2, boundary=0.98, worst="x.png")
    found.stages = {name: (Stage(name, name == "argmax", 0.03, "by 3%"), "x.png") for name in STAGES}
    return found.to_json()


def info() -> EngineInfo:
    spec = tiny_spec()
    candidates = (Candidate("fp32", "kept", "2.00 times INT8's time", 10.0, 0.0), Candidate("int8", "chosen", "the fastest", 5.0, 0.001))
    found = PrecisionFound("int8", "verified", {"int8": 3})
    return EngineInfo(
        spec, "openvino", (spec.input,), (spec.output,), (1, 1, 1), found, "2026.1", None, "ab" * 32, "cd" * 32, flips=0.001,
        notes=(ODD,), candidates=candidates,
    )  # fmt: skip


def flicker() -> dict[str, Any]:
    counted = Flicker(2)
    for index in range(3):
        counted.add(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), index % 2, np.uint8), index / 10)
    return counted.to_json(("road", ODD))


def areas() -> dict[str, Any]:
    area = {"class_id": 0, "class": ODD, "pixels": 12, "share": 0.75}
    return json.loads(JSON_START + f'"frames": [{json.dumps({"frame": "a.png", "time": None, "areas": [area]})}]}}')  # type: ignore[no-any-return]


def write(name: str, data: Mapping[str, Any] | str) -> None:
    path = Path("results", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else json_bytes(data))


def write_all() -> None:
    """A document of every kind."""
    for name, data in {
        "bench.json": bench(), "bench odd.json": bench(ODD), "scores.json": evaluation(), "scores2.json": evaluation(ODD),
        "profile.json": profile(), "tuned/tune.json": tuning(), "verify.json": verification(),
        "comparison.json": comparison(), "clip_flicker.json": flicker(),
        "areas.json": areas(),
        "inspect.json": {"kind": "onnx", "file": {"path": ODD}, "graph": {"custom": False, ODD: ODD}, "problem": None},
        "doctor.json": {"checks": [{"group": "System", "name": ODD, "state": "ok", "detail": "fine", "fix": None}]},
    }.items():  # fmt: skip
        write(name, data)
    save_info(info(), Path("results/engine.plan"))
    save_ranges(Ranges({"input": 2.5, "conv0": 0.0}, "mse", 3, "ab" * 32, "tiny"), Path("results/ranges.json"))


class Tags(HTMLParser):
    """The tags of a page, and the texts of its tables' cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.tags)


def parts(text: str) -> list[str]:
    return re.findall(r'<h2 id="part-\d+">(.*?)</h2>', text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of a document of every kind."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        write_all()
        report_folder(Path("results"), Path("report.html"))
    return (folder / "report.html").read_text()


def test_every_kind_has_its_part_in_the_order_of_the_table(whole: str) -> None:
    assert parts(whole) == [
        "Environment", "Accuracy", "Latency", "Layers", "Comparison", "Mixes of precisions", "Comparison of two", "Engines",
        "Ranges for INT8", "Flicker", "Class areas", "Descriptions", "Machine check",
    ]  # fmt: skip
    assert len(parts(whole)) == len(ROWS) + 1
    for shown in (
        "custom</th><td>no</td>",
        "tuned/tune.json",
        "70.00",
        "a CPU of tiny",
        "layer59",
        "2.00 times INT8",
        "A note on tiny.",
        "numpy 2.0",
        "to build it",
    ):
        assert shown in whole


def test_nothing_from_a_document_is_markup_and_nothing_is_fetched(whole: str) -> None:
    assert "alert(1)" in whole
    assert "<script>alert" not in whole
    assert "\u202e" not in whole
    tags = Tags(whole)
    assert tags.count("script") == 1
    assert not [name for name in ("img", "link", "iframe", "object", "embed", "form", "base") if tags.count(name)]
    loaded = [value for _, attributes in tags.tags for key, value in attributes.items() if key in ("src", "href", "xlink:href")]
    assert loaded
    assert all(str(value).startswith("#part-") for value in loaded)
    assert not [key for _, attributes in tags.tags for key in attributes if key.startswith("on")]
    assert "default-src 'none'" in whole
    assert "url(" not in whole


def test_the_same_folder_gives_the_same_bytes_from_anywhere(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write("scores.json", evaluation())
    write("tuned/tune.json", tuning())
    first = page(call)
    monkeypatch.chdir("results/tuned")
    assert call("report", "..", "-o", "../../other.html").exit_code == 0
    assert Path("../../other.html").read_text() == first


def test_numbers_are_sorted_as_numbers_and_the_rest_as_text(call: Call) -> None:
    write("bench.json", bench())
    text = page(call)
    assert re.search(r'<th scope="col" class="right">engine p50, ms</th>', text)
    assert '<td class="right" data-value="6.5">6.50</td>' in text
    assert '<th scope="row">bench.json</th>' in text


def test_a_comparisons_tables_are_sorted_by_the_numbers_in_them(call: Call) -> None:
    write("comparison.json", comparison())
    text = page(call)
    assert '<td class="right" data-value="1234.5">1,234.5</td>' in text
    assert '<td class="right" data-value="9.5">9.5±0.2</td>' in text
    assert "A note." in text
    assert "20 frames a second here" in text


def test_what_cannot_be_shown_is_named_with_the_reason_and_stops_nothing(call: Call) -> None:
    write("good.json", bench())
    write("theirs.json", {"a": 1})
    write("list.json", "[1, 2]")
    write("cut.json", json.dumps(bench())[:-40])
    write("deep.json", "[" * 100_000)
    write("newer.json", bench() | {"version": 3})
    write("wrong.json", bench() | {"batch": "many"})
    write("matrix.json", evaluation() | {"confusion": [[1]]})
    write("nan.json", '{"miou": NaN}')
    write("coco.json", JSON_START + '"annotations": [], "images": [], "categories": []}')
    write("empty.json", "")
    Path("results/latin.json").write_bytes(b'{"a": "\xe9"}')
    with open("results/large.json", "wb") as file:
        file.truncate(DOCUMENT_BYTES + 1)
    os.mkfifo("results/pipe.json")
    text = page(call)
    assert parts(text)[-1] == "Left out"
    reasons = dict(re.findall(r'<th scope="row">(\w+\.json)</th>\n<td>(.*?)</td>', text.partition("Left out</h2>")[2]))
    assert reasons.keys() == {
        "theirs.json", "list.json", "cut.json", "deep.json", "newer.json", "wrong.json", "matrix.json", "nan.json", "coco.json",
        "empty.json", "latin.json", "large.json",
    }  # fmt: skip
    assert reasons["theirs.json"] == "it is no report of rtformer-deploy"
    assert reasons["newer.json"].startswith("it is a report of bench of version 3, and only 1 is known")
    assert "batch is &#39;many&#39;" in reasons["wrong.json"]
    assert "confusion is not a matrix of 2 classes" in reasons["matrix.json"]
    assert "nothing" in reasons["coco.json"]
    assert "too large" in reasons["large.json"]
    assert "not UTF-8" in reasons["latin.json"]


def test_a_newer_sidecar_is_left_out_too(call: Call) -> None:
    save_info(info(), Path("results/engine.plan"))
    told = json.loads(Path("results/engine.plan.json").read_text())
    write("newer.plan.json", told | {"version": 9})
    write("broken.plan.json", told | {"batch": [4, 1, 1]})
    text = page(call)
    assert "an engine&#39;s sidecar of version 9" in text
    assert "broken.plan.json" in text


def test_a_folder_without_reports_is_one_message(call: Call) -> None:
    write("theirs.json", {"a": 1})
    message = page(call, code=1)
    assert message.startswith("Error: results holds no report of rtformer-deploy.\n  theirs.json: it is no report of rtformer-deploy\n")
    assert message.count("Error:") == 1
    assert not Path("report.html").exists()
    assert "There is no folder nowhere." in call("report", "nowhere").stderr
    assert "is not a folder" in call("report", "results/theirs.json").stderr


def test_only_a_page_of_ours_is_replaced(call: Call) -> None:
    write("bench.json", bench())
    Path("report.html").write_text("mine")
    assert "the file there is not a page" in page(call, code=1)
    assert Path("report.html").read_text() == "mine"
    assert "itself an input" in page(call, "-o", "results/bench.json", code=1)
    assert call("report", "results", "-o", "results/page.html").exit_code == 0
    assert PAGE.fits(Path("results/page.html"))
    assert call("report", "results", "-o", "results/page.html").exit_code == 0


def test_without_the_extra_it_names_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write("bench.json", bench())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "rtformer-deploy[report]" in page(call, code=1)


def test_very_many_are_in_the_table_and_some_have_pictures(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_DETAILED", 1)
    for index in range(4):
        write(f"{index}.json", bench(f"net {index}"))
    text = page(call)
    assert text.count("<figure") == 2
    assert "3 more are in the table only." in text
    assert "net 3" in text


@bounded(12)
@given(data=st.data())
def test_odd_values_are_shown_or_left_out_with_a_reason(data: st.DataObject) -> None:
    document = data.draw(st.sampled_from([bench(), evaluation(), tuning(), verification(), flicker(), areas()]))
    odd = data.draw(other_values(document))
    try:
        row = row_of(odd if isinstance(odd, dict) else {})
        part = row.section([Document("odd.json", row.read(odd))])
    except DocumentError:
        return
    assert render_folder("title", "subtitle", [part]).startswith("<!doctype html>")


def test_every_kind_of_document_has_one_row() -> None:
    rows: list[Kind] = [row.kind for row in ROWS]
    assert len({kind.name for kind in rows}) == len(rows)
