"""Reading: regular files of a bounded size and nothing else, whatever the reader."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import tiny_model

from rtformer_deploy import files
from rtformer_deploy.cli import main
from rtformer_deploy.commands.inspect import describe
from rtformer_deploy.errors import DeployError, EngineError, RecipeError, WeightsError
from rtformer_deploy.files import PLAN_BYTES, check_readable, read_bytes, read_text
from rtformer_deploy.formats.engine_file import load_engine
from rtformer_deploy.formats.model_file import load_model, save_model
from rtformer_deploy.formats.ranges import load_ranges
from rtformer_deploy.image.decode import load_image
from rtformer_deploy.nn.weights import load_weights, read_metadata
from rtformer_deploy.training.checkpoint import read
from rtformer_deploy.training.log import read_log

READERS: dict[str, Callable[[Path], object]] = {
    "a.pth": load_weights,
    "a.pdparams": load_weights,
    "a.safetensors": load_weights,
    "metadata.safetensors": read_metadata,
    "a.safetensors.xz": load_weights,
    "metadata.safetensors.xz": read_metadata,
    "checkpoint.safetensors": read,
    "model.onnx": load_model,
    "engine.plan": load_engine,
    "ranges.json": load_ranges,
    "image.png": load_image,
    "log.jsonl": read_log,
    "anything": describe,
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def large(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(PLAN_BYTES + 1)  # takes no room on the disk


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX files")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("make", "message"),
    [(Path.mkdir, "it is a folder"), (fifo, "a pipe or a device"), (zeros, "a pipe or a device"), (large, "is too large to be")],
    ids=["folder", "pipe", "device", "large"],
)
def test_a_file_that_is_none_is_refused_before_it_is_read(tmp_path: Path, name: str, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(DeployError, match=message) as error:
        READERS[name](tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, WeightsError, "weights", 5) == b"12345"
    with pytest.raises(WeightsError, match=r"a is too large to be weights: 5 bytes, more than 4\."):
        read_bytes(path, WeightsError, "weights", 4)


def test_text_is_utf8_and_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert read_text(path, RecipeError, "a recipe") == ""
    with pytest.raises(RecipeError, match="is empty; it should be a recipe"):
        read_bytes(path, RecipeError, "a recipe")
    path.write_bytes(b"ab\xff")
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe: it is not UTF-8 text \(invalid start byte at byte 2\)"):
        read_text(path, RecipeError, "a recipe")
    assert read_text(path, RecipeError, "a recipe", errors="replace") == "ab\ufffd"


@pytest.mark.parametrize("name", ["missing", "a\0b"])
def test_a_missing_file_is_one_message(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineError, match="Cannot read an engine plan"):
        check_readable(tmp_path / name, EngineError, "an engine plan")


def test_no_reader_goes_round_the_check(root: Path) -> None:
    """What strangers may have made is read through files.py; these read what the package or the system made."""
    own = {
        "files.py",
        "machine.py",
        "nvidia/nvrtc.py",
        "backends/onnxruntime/build.py",
        "backends/onnxruntime/layers.py",
        "backends/openvino/plan.py",
    }
    package = root / "rtformer_deploy"
    calls = (".read_bytes()", ".read_text(")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if any(call in path.read_text() for call in calls)}
    assert found == own
    assert files.DOCUMENT_BYTES < files.RECORD_BYTES < files.IMAGE_BYTES < files.MODEL_BYTES < files.PLAN_BYTES


def test_documents_are_parsed_in_one_place(root: Path) -> None:
    """JSON and TOML that strangers may have made go through formats/documents.py; these parse what they or a library wrote just before."""
    own = {
        "formats/documents.py",
        "backends/onnxruntime/build.py",
        "backends/onnxruntime/layers.py",
        "calibrate/checkpoint.py",
        "export/recorded.py",
        "training/options.py",
    }
    package = root / "rtformer_deploy"
    calls = ("json.loads(", "json.load(", "json.decode(", "tomllib.load", "tomlkit.parse(", "tomlkit.load")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if any(call in path.read_text() for call in calls)}
    assert found == own


LONG = "a" * 300  # longer than any file system takes


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "m.onnx", LONG, "-o", "out"),
        ("segment", "m.onnx", "nul.txt", "-o", "out"),
        ("segment", "m.onnx", "empty.txt", "-o", "out"),
        ("segment", "m.onnx", "empty.streams", "-o", "out"),
        ("segment", "m.onnx", "", "-o", "out"),
        ("segment", "m.onnx", ".", "-o", "loop"),
        ("evaluate", "m.onnx", "--dataset", "camvid", "--root", LONG),
        ("calibrate", "m.onnx", "--images", LONG),
        ("verify", "m.onnx", "m.onnx", LONG),
        ("train", "--recipe", "rtformer-slim-camvid", "--root", ".", "-o", LONG),
        ("tune", "m.onnx", "--dataset", "camvid", "--root", ".", "-o", LONG),
        ("build-engine", "m.onnx", "-o", LONG),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_names_that_no_file_can_have_are_one_message(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("m.onnx"))
    Path("nul.txt").write_bytes(b"a\0b.png\n")
    Path("empty.txt").touch()
    Path("empty.streams").write_text("# none yet\n")
    Path("loop").symlink_to("loop")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Error: " in result.stderr
    assert {path.name for path in Path().iterdir()} - {"out"} == {"m.onnx", "nul.txt", "empty.txt", "empty.streams", "loop"}


def test_paths_are_looked_at_by_functions_that_take_any_name() -> None:
    """Path.is_dir and its like raise for a name that is too long, Path.resolve for a link to itself; os.path's give an answer."""
    sources = [path for path in Path(files.__file__).parent.rglob("*.py") if path.name != "content.py"]  # its paths are the package's
    entries = ("entry.is_", "inner.is_")  # of os.scandir and iterdir, which exist
    found = [
        f"{path.name}: {line.strip()}"
        for path in sources
        for line in path.read_text().splitlines()
        if re.search(r"\.(is_dir|is_file|exists|resolve)\(\)", line) and not any(each in line for each in entries)
    ]
    assert found == []


def test_inspect_says_of_damaged_weights_that_they_are_weights(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 8)
    with pytest.raises(WeightsError, match="is not a safetensors file, or was cut short"):
        describe(tmp_path / "w.safetensors")
