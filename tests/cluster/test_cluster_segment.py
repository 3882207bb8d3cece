"""`segment --cluster` without a cluster: what is planned, what is refused, and what the workers make of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import frames
from PIL import Image
from served import tiny_engine

from rtformer_deploy.cli import main
from rtformer_deploy.cluster.flow import Cluster
from rtformer_deploy.cluster.manifest import unfinished
from rtformer_deploy.cluster.nodes import Devices, Node, devices_of
from rtformer_deploy.cluster.parcel import Parcel, pack
from rtformer_deploy.cluster.pipeline import Run
from rtformer_deploy.cluster.reading import Reader
from rtformer_deploy.cluster.rows import Row
from rtformer_deploy.cluster.segmenting import Segmenter, Style
from rtformer_deploy.commands.segment_answers import Answers
from rtformer_deploy.commands.segment_cluster import ClusterRequest, prepare, with_outputs
from rtformer_deploy.commands.segment_outputs import LABELS, OVERLAY
from rtformer_deploy.errors import ClusterError, DeployError, UsageError
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.image.selection import Selection
from rtformer_deploy.serve.server import Listen, bind
from rtformer_deploy.stream.sinks import Look

SIZES = ((40, 60), (64, 96), (31, 50))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan, and a folder of images: two of one name, one in a sub-folder, one that is broken."""
    monkeypatch.chdir(tmp_path)
    save_engine(tiny_engine(), tmp_path / "engine.plan")
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, frame in zip(("a.png", "a.bmp", "sub/c.png"), frames(*SIZES), strict=True):
        Image.fromarray(frame).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tmp_path


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["segment", "engine.plan", *arguments])


def request(output: str = "out", *given: str, style: Style | None = None) -> ClusterRequest:
    where = Cluster("auto", threads=1)
    return ClusterRequest(where, Path("engine.plan"), given or ("in",), output, style or Style(LABELS, OVERLAY))


def on_one_node(run: Run) -> list[Row]:
    """What the workers make of a run, in this process."""
    store, resumed = run.manifest.store, run.manifest.resumed
    reader = Reader(store.text, run.style.ends, resumed=resumed)
    segmenter = Segmenter(lambda: run.parcel.open(1), run.style, store.text, "here")
    return [row for shard, _ in unfinished(run.manifest) for row in segmenter.segment(list(reader.rows(shard)))]


def begin(output: str = "out", *given: str, style: Style | None = None) -> Run:
    parcel = pack(Path("engine.plan"))
    return prepare(request(output, *given, style=style), parcel, lambda line: None)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*.*") if path.is_file() and ".cluster" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def states(rows: list[Row]) -> dict[str, str]:
    return {row["input"]: row["state"] for row in rows}


def test_an_engine_is_opened_with_as_many_lanes_as_are_asked_for(work: Path) -> None:
    with pack(Path("engine.plan")).open(1, lanes=2) as runner:
        assert len(runner.sessions) == 2


def test_the_same_files_as_on_one_machine(work: Path) -> None:
    alone = cli("in", "-o", "alone", "--threads", "1")
    assert alone.exit_code == 1  # the broken one
    rows = on_one_node(begin())
    assert states(rows) == {"a.bmp": "done", "a.png": "done", "broken.png": "failed", "sub/c.png": "done"}
    assert contents(work / "out") == contents(work / "alone")
    assert "in/broken.png" in next(row["reason"] for row in rows if row["state"] == "failed")


def test_every_option_gives_what_one_machine_gives(work: Path) -> None:
    options = ["--palette", "--legend", "--alpha", "0.25", "--confidence", "--polygons", "geojson", "--batch", "2", "--threads", "1"]
    assert cli("in", "-o", "alone", *options, "--only", "class1,unsure", "--min-confidence", "0.5").exit_code == 1
    style = Style(LABELS, OVERLAY, look=Look(0.25, legend=True, palette=True), batch=2)
    asked = Selection((1, len(tiny_engine().info.spec.classes)), None, 0.5)
    wanted = with_outputs(request(style=style), Answers(polygons=("geojson",), confidence=True), asked)
    on_one_node(prepare(wanted, pack(Path("engine.plan")), lambda line: None))
    assert contents(work / "out") == contents(work / "alone")


def test_label_maps_alone_are_those_of_one_machine(work: Path) -> None:
    assert cli("in", "-o", "alone", "--no-overlay", "--threads", "1").exit_code == 1
    on_one_node(begin(style=Style(LABELS, "")))
    assert contents(work / "out") == contents(work / "alone")
    assert set(contents(work / "out")) == {"a_png_labels.png", "a_bmp_labels.png", "sub/c_labels.png"}
    again = states(on_one_node(begin(style=Style(LABELS, ""))))
    assert again == {"a.bmp": "there", "a.png": "there", "broken.png": "failed", "sub/c.png": "there"}
    with pytest.raises(UsageError, match="overlay differs"):
        begin()


def test_tiles_give_what_one_machine_gives(work: Path) -> None:
    Image.fromarray(frames((100, 140))[0]).save(work / "in/large.png")
    assert cli("in", "-o", "alone", "--tiles", "8", "--threads", "1").exit_code == 1
    on_one_node(begin(style=Style(LABELS, OVERLAY, tiles=8)))
    assert contents(work / "out") == contents(work / "alone")
    with pytest.raises(DeployError, match="Tiles have no logits"):
        begin(style=Style(LABELS, OVERLAY, tiles=8, confidence="_confidence.png"))


def test_a_second_start_makes_what_is_missing(work: Path) -> None:
    on_one_node(begin())  # the driver was killed: no shard has a result
    (work / "out/sub/c_labels.png").unlink()
    cut = work / "out/a_png_overlay.png"
    cut.write_bytes(cut.read_bytes()[:-3])
    run = begin()
    assert run.manifest.resumed
    assert states(on_one_node(run)) == {"a.bmp": "there", "a.png": "done", "broken.png": "failed", "sub/c.png": "done"}


def test_what_lay_there_before_the_run_is_not_trusted(work: Path) -> None:
    cli("in/sub", "-o", "out/sub", "--alpha", "1")
    begin()  # and is killed at once
    assert states(on_one_node(begin()))["sub/c.png"] == "done"
    cli("in", "-o", "alone")
    assert contents(work / "out") == contents(work / "alone")


def test_an_earlier_result_of_an_image_that_fails_now_is_removed(work: Path) -> None:
    Image.fromarray(frames((8, 8))[0]).save(work / "in/broken.png")
    cli("in", "-o", "out")
    (work / "in/broken.png").write_bytes(b"no image")
    on_one_node(begin())
    assert not list((work / "out").glob("broken*"))


def test_a_node_that_can_do_no_more_gives_its_rows_back(work: Path) -> None:
    run = begin()
    (work / "out/sub").write_text("in the way")
    segmenter = Segmenter(lambda: run.parcel.open(1), run.style, "out", "here")
    rows = segmenter.segment(list(Reader("out", run.style.ends, resumed=False).rows(0)))
    assert states(rows)["sub/c.png"] in ("refused", "failed")


def test_a_node_that_does_not_see_the_output_place_refuses(work: Path) -> None:
    """It would write to a folder of its own, and its images would count as done."""
    run = begin()
    rows = list(Reader("out", run.style.ends, resumed=False).rows(0))
    segmenter = Segmenter(lambda: run.parcel.open(1), run.style, str(work / "elsewhere"), "here")
    assert {row["state"] for row in segmenter.segment(rows) if row["data"] or row["reason"]} <= {"refused", "failed"}
    assert "refused" in {row["state"] for row in rows}
    assert not (work / "elsewhere").exists()


def test_a_question_mark_in_a_folders_name_joins_no_two_images(work: Path) -> None:
    for name in ("run?1", "run?2"):
        (work / name).mkdir()
        (work / name / "0.png").write_bytes((work / "in" / "a.png").read_bytes())
    assert begin("out", "run?1", "run?2").manifest.head.entries == 2
    assert begin("twice", "in", "in/a.png").manifest.head.entries == begin("once", "in").manifest.head.entries


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": b"other"}, "arrived with another SHA-256"),
        ({"info": b"{}"}, "arrived with another SHA-256"),
        ({"package": "9.9"}, "the run was started with 9.9"),
    ],
    ids=["plan", "sidecar", "version"],
)
def test_what_arrives_is_checked_before_it_is_opened(work: Path, change: dict[str, object], said: str) -> None:
    whole = begin().parcel
    values = {name: getattr(whole, name) for name in ("name", "plan", "info", "digest", "package")} | change
    segmenter = Segmenter(lambda: Parcel(**values).open(1), Style(LABELS, OVERLAY), "out", "here")
    row: Row = {"state": "read", "input": "a.png", "old": False, "data": b""}
    (back,) = segmenter.segment([row])
    assert back["state"] == "refused"
    assert said in back["reason"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--camera", "0"), "--camera cannot be combined with --cluster"),
        (("in", "--smooth", "0.5"), "--smooth cannot be combined with --cluster"),
        (("in", "--flicker"), "--flicker cannot be combined with --cluster"),
        (("in", "--areas", "csv"), "--areas cannot be combined with --cluster"),
        (("in", "--labels"), "--labels cannot be combined with --cluster"),
        (("in", "--decode", "cpu"), "--decode cannot be combined with --cluster"),
        (("in", "--device", "0"), "--device cannot be combined with --cluster"),
        (("in", "--polygons", "coco"), "--polygons coco is one file"),
        (("clip.mp4",), "clip.mp4 is a video"),
        (("rtsp://me:secret@host/live",), "rtsp://host/live is a stream"),
        (("/dev/video0",), "Camera 0 is a camera"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_cluster_does_not_take_is_refused_by_name(
    work: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], said: str
) -> None:
    (work / "clip.mp4").write_bytes(b"")
    monkeypatch.setattr("rtformer_deploy.cluster.nodes.require", lambda *names: None)  # the same without Ray
    with bind(Listen(port=0)) as something:
        something.listen()
        port = something.getsockname()[1]
        result = cli(*given, "-o", "out", "--cluster", f"127.0.0.1:{port}")
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert "secret" not in result.output
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("s3://bucket/in", "-o", "out"), "Add --cluster"),
        (("in", "-o", "gs://bucket/out"), "Add --cluster"),
        (("in", "-o", "out", "--stall", "3"), "--stall is for --cluster"),
    ],
)
def test_what_is_for_a_cluster_is_refused_without_one(work: Path, arguments: tuple[str, ...], said: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_foreign_files_are_not_replaced(work: Path) -> None:
    (work / "out").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(work / "out/broken_labels.png")
    with pytest.raises(DeployError, match=r"Cannot write broken_labels\.png"):
        begin()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(work / "in/sub/c_labels.png")
    with pytest.raises(DeployError, match="itself an input"):
        begin("in/sub", "in/sub/c.png", "in/sub/c_labels.png")


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"), ("ray://host:1", "is not an address"), ("host", "is not the address")],
)
def test_no_cluster_is_one_message(work: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    monkeypatch.setattr("rtformer_deploy.cluster.nodes.require", lambda *names: None)
    result = cli("in", "-o", "out", "--cluster", address)
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert not (work / "out").exists()


def nodes(*sizes: tuple[int, int]) -> list[Node]:
    return [Node(str(index), f"10.0.0.{index}", cpus, gpus) for index, (cpus, gpus) in enumerate(sizes)]


def test_each_node_keeps_a_cpu_for_reading(work: Path) -> None:
    parcel = pack(Path("engine.plan"))
    assert devices_of(nodes((4, 0), (9, 0), (0, 0)), parcel, 2) == Devices(1 + 4, 2, 0, 2)
    assert devices_of(nodes((1, 0), (1, 0)), parcel, None) == Devices(2, 1, 0, 2)
    assert devices_of(nodes((16, 0)), parcel, None) == Devices(3, 4, 0, 1)
    with pytest.raises(ClusterError, match="No node of the cluster has 8 CPUs"):
        devices_of(nodes((4, 0)), parcel, 8)


@pytest.fixture(autouse=True)
def _without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
