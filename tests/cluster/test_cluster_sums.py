"""`evaluate --cluster` and `calibrate --cluster` without a cluster: what nodes count adds up to what one machine counts, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import frames
from PIL import Image
from served import tiny_engine

from rtformer_deploy.cli import main
from rtformer_deploy.cluster import flow, measuring, scoring
from rtformer_deploy.cluster.nodes import Devices
from rtformer_deploy.cluster.parcel import Parcel
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import save_model

pa = pytest.importorskip("pyarrow", reason="needs the extra cluster: pip install 'rtformer-deploy[cluster]'")


class Here:
    """Stands for a cluster of one worker: steps go through it in the wrong order, and one of them twice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: dict[bytes, object] = {}
        for module in (scoring, measuring):
            monkeypatch.setattr(module, "send", self.send)
            monkeypatch.setattr(module, "received", lambda ticket, kind: self.sent[ticket])
            monkeypatch.setattr(module, "dataset_of", lambda rows: rows)
            monkeypatch.setattr(module, "through", lambda rows, worker, given, count, **sizes: (rows, worker(*given)))
            monkeypatch.setattr(module, "pieces_of", lambda both: iter([both[1](pa.Table.from_pylist([row])) for row in both[0]]))
            monkeypatch.setattr(module, "drain", self.drain)
        monkeypatch.setattr(scoring, "node_id", lambda: "here")
        monkeypatch.setattr(scoring, "node_name", lambda node: node)
        monkeypatch.setattr("rtformer_deploy.cluster.nodes.check_address", lambda address: None)

    def send(self, parcel: object) -> bytes:
        ticket = str(len(self.sent)).encode()
        self.sent[ticket] = parcel
        return ticket

    def drain(self, cluster: flow.Cluster, parcel: Parcel, work: flow.Work) -> None:
        pieces = [piece.to_pylist() for piece in work.pieces(Devices(1, 1, 0, 1))]
        for rows in [*reversed(pieces), pieces[0]]:
            work.take(rows)
        work.show(1)
        assert not work.left


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Here(monkeypatch)
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def make_split(folder: Path, count: int) -> None:
    rng = np.random.default_rng(1)
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    for index, frame in enumerate(frames(*[(40 + index, 60) for index in range(count)])):
        Image.fromarray(frame).save(folder / f"data/images/{index:02}.png")
        Image.fromarray(rng.integers(0, 5, frame.shape[:2], np.uint8)).save(folder / f"data/labels/{index:02}.png")
    classes, palette = [f"class{index}" for index in range(5)], [[index, 0, 0] for index in range(5)]
    layout = 'images = "images/{name}.png"\nlabels = "labels/{name}.png"'
    (folder / "some.toml").write_text(f"ignore_index = 7\nclasses = {json.dumps(classes)}\npalette = {palette}\n[layout]\n{layout}\n")


def test_the_scores_of_parts_are_one_machines(here: Path) -> None:
    save_engine(tiny_engine(), here / "engine.plan")
    make_split(here, 19)
    arguments = ("evaluate", "engine.plan", "--dataset", "some.toml", "--root", "data", "--split", "all", "--threads", "1")
    run(*arguments, "--json", "alone.json")
    run(*arguments, "--json", "together.json", "--cluster", "auto")
    assert json.loads((here / "together.json").read_text()) == json.loads((here / "alone.json").read_text())


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile", "minmax"])
def test_the_ranges_of_parts_are_one_machines(here: Path, method: str) -> None:
    from helpers import tiny_model

    save_model(tiny_model(), here / "model.onnx")
    (here / "in").mkdir()
    for index, frame in enumerate(frames(*[(20, 30 + index) for index in range(27)])):
        Image.fromarray(frame).save(here / f"in/{index:02}.png")
    arguments = ("calibrate", "model.onnx", "--images", "in", "--method", method, "--threads", "1")
    run(*arguments, "-o", "alone.json")
    run(*arguments, "-o", "together.json", "--cluster", "auto")
    assert (here / "together.json").read_bytes() == (here / "alone.json").read_bytes()
