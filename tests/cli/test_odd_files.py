"""Folders with odd files, as a person types them: every command goes on, names them at the end and exits with 1."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import SIZE, frames, tiny_model
from odd_pngs import png16
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.formats.engine_file import load_engine
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.formats.ranges import load_ranges, ranges_hash

Call = Callable[..., Result]

GOOD = ("a.png", "n" * 226 + ".png", "sub/b.JPG", "sub/deep/c.webp", os.fsdecode(b"odd\xff.png"))
BAD = ("broken.png", "empty.jpg", os.fsdecode(b"sub/broken\xff.png"))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line, in a folder with a model and a folder of images, some of them odd."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model("batch"), Path("model.onnx"))
    for name, frame in zip(GOOD, frames(*[SIZE] * len(GOOD)), strict=True):
        path = Path("mixed", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(path)
    for name in BAD:
        Path("mixed", name).write_bytes(b"" if "empty" in name else b"no image")
    Path("mixed/._a.png").write_bytes(b"\0\5\x16\7")
    Path("mixed/x.gif").write_bytes(b"GIF89a")
    Path("mixed/sub/loop").symlink_to("..")
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def names_the_bad(result: Result, what: str) -> None:
    assert result.exit_code == 1, result.output
    assert f"{len(BAD)} of {len(GOOD) + len(BAD)} images {what}:\n" in result.stderr
    for name in ("broken.png is not an image", "empty.jpg is empty", "broken\\udcff.png is not an image"):
        assert name in result.stderr
    output = result.stdout + result.stderr
    assert output.count("Left out of mixed:") == 1
    for reason in ("hidden files (1)", ".gif, which is not read (1)", "links that lead back to a folder above (1)"):
        assert reason in output


def test_segment(call: Call) -> None:
    names_the_bad(call("segment", "model.onnx", "mixed", "-o", "out", "--batch", 3), "could not be segmented")
    for name in GOOD:
        assert Path("out", name).with_name(f"{Path(name).stem}_overlay.png").is_file()
    assert not [path for path in Path("out").rglob("*") if "broken" in path.name]


def test_segment_takes_no_results_for_photographs(call: Call) -> None:
    call("segment", "model.onnx", "mixed/sub", "-o", "mixed/sub/out")
    again = call("segment", "model.onnx", "mixed/sub", "-o", "again")
    assert "pictures that rtformer-deploy wrote (4)" in again.stderr
    assert "1 of 3 images" in again.stderr


def test_calibrate(call: Call) -> None:
    result = call("calibrate", "--images", "mixed", "--threads", 1)
    names_the_bad(result, "could not be read")
    assert "ranges.json holds the ranges of the others." in result.stderr
    assert load_ranges(Path("ranges.json")).images == len(GOOD)


def test_build_engine_and_its_sidecar_warns(call: Call) -> None:
    command = ("build-engine", "--int8", "--images", "mixed", "--backend", "onnxruntime", "--threads", 1)
    result = call(*command)
    names_the_bad(result, "could not be read")
    assert "engine.plan was built with the ranges of the others." in result.stderr
    info = load_engine(Path("engine.plan")).info
    assert info.precision.layers["int8"] > 0
    call("calibrate", "--images", "mixed", "--threads", 1)
    assert info.ranges_sha256 == ranges_hash(load_ranges(Path("ranges.json")))
    [note] = info.notes
    assert f"measured on {len(GOOD)} images alone" in note
    assert "broken.png" in note
    assert json.loads(Path("engine.plan.json").read_text())["notes"] == [note]
    assert "broken.png" in call("inspect", "engine.plan").stdout


def test_verify(call: Call) -> None:
    result = call("verify", "model.onnx", "model.onnx", "mixed", "--json", "found.json")
    names_the_bad(result, "could not be read")
    assert json.loads(Path("found.json").read_text())["images"] == len(GOOD)
    assert "No stage differs." in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("segment", "model.onnx", "mixed", "-o", "out"),
        ("calibrate", "--images", "mixed", "--threads", 1, "-o", "out"),
        ("build-engine", "--int8", "--images", "mixed", "--backend", "onnxruntime", "--threads", 1, "-o", "out"),
        ("verify", "model.onnx", "model.onnx", "mixed", "--json", "out"),
    ],
    ids=lambda command: command[0],
)
def test_stop_on_error_stops_at_once(call: Call, command: tuple[str | int, ...]) -> None:
    result = call(*command, "--stop-on-error")
    assert result.exit_code == 1
    assert "Error: mixed/broken.png is not an image" in result.stderr
    assert "empty.jpg" not in result.stderr
    assert not Path("out").is_file()


def test_an_engine_of_good_images_has_no_note(call: Call) -> None:
    result = call("build-engine", "--int8", "--images", "mixed/sub/deep", "--backend", "onnxruntime", "--threads", 1)
    assert result.exit_code == 0, result.output
    assert load_engine(Path("engine.plan")).info.notes == ()


def twelve_bits(folder: Path) -> None:
    """A picture in 8 bits, and the same in 12 of 16 bits without a word about it."""
    folder.mkdir()
    [frame] = frames(SIZE)
    Image.fromarray(frame).save(folder / "eight.png")
    (folder / "twelve.png").write_bytes(png16(frame.astype(np.uint16) << 4))


def test_a_bit_depth_means_the_same_to_every_command(call: Call) -> None:
    twelve_bits(Path("deep"))
    result = call("segment", "model.onnx", "deep", "-o", "out", "--bit-depth", 12)
    assert result.exit_code == 0, result.output
    assert Path("out/eight_labels.png").read_bytes() == Path("out/twelve_labels.png").read_bytes()
    for name in ("eight", "twelve"):
        Path(name).mkdir()
        Path("deep", f"{name}.png").rename(Path(name, "x.png"))
        done = call("calibrate", "--images", name, "--threads", 1, "-o", f"{name}.json", "--bit-depth", 12)
        assert done.exit_code == 0, done.output
    assert load_ranges(Path("eight.json")).amax == load_ranges(Path("twelve.json")).amax
    done = call("build-engine", "--int8", "--images", "twelve", "--bit-depth", 12, "--backend", "onnxruntime", "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "16-bit samples" not in done.output
    assert call("bench", "model.onnx", "--image", "twelve/x.png", "--bit-depth", 12, "--seconds", 0.02, "--warmup", 0).exit_code == 0
    assert call("verify", "model.onnx", "model.onnx", "twelve", "--bit-depth", 8).exit_code == 1  # 12 bits do not fit into 8


@pytest.mark.parametrize("command", [("segment", "model.onnx", "deep", "-o", "out"), ("verify", "model.onnx", "model.onnx", "deep"),
                                     ("calibrate", "--images", "deep", "--threads", 1),
                                     ("bench", "model.onnx", "--image", "deep/twelve.png", "--seconds", 0.02, "--warmup", 0)])  # fmt: skip
def test_a_depth_that_nothing_states_is_said(call: Call, command: tuple[str | int, ...]) -> None:
    twelve_bits(Path("deep"))
    result = call(*command)
    assert result.exit_code == 0, result.output
    assert "twelve.png holds 16-bit samples and does not say how many of their bits are used: read as 16." in result.stderr
    assert "give --bit-depth 12" in result.stderr
