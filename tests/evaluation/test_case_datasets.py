"""The small datasets of ../shared/cases/data, read, and scored with the shipped network: a trait changes nothing, or is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtformer_deploy.datasets import Dataset, open_dataset
from rtformer_deploy.errors import DatasetError
from rtformer_deploy.evaluation.evaluate import evaluate
from rtformer_deploy.image.reader import ImageReader
from rtformer_deploy.opening import open_any
from rtformer_deploy.runtime.frame_runner import FrameRunner


@pytest.fixture(scope="module")
def cases(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the scripts have run."""
    folder = tmp_path_factory.mktemp("cases")
    for name in ("d01_exif_dataset", "d02_gray16_dataset", "d05_layouts"):
        script = shared / "cases" / "data" / f"{name}.py"
        if not script.is_file():
            pytest.skip(f"needs {script}")
        subprocess.run([sys.executable, script], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def network(root: Path) -> FrameRunner:
    pytest.importorskip("torch")
    return open_any(root / "models" / "rtformer-slim-camvid.safetensors.xz")


def opened(folder: Path, said: list[str] | None = None) -> Dataset:
    """A case's val split."""
    files = {"side": "side.toml", "d01": "mini.toml", "d02": "mini.toml"}
    own = "list.toml" if folder.name.startswith("l_") else files.get(folder.name, files.get(folder.parent.name, "png.toml"))
    return open_dataset(str(folder.parent / own), folder, "val", ImageReader(say=(list[str]() if said is None else said).append))


def score(network: FrameRunner, folder: Path, said: list[str] | None = None) -> float:
    """The mean IoU of a case in percent."""
    return 100 * evaluate(network, opened(folder, said)).scores.miou


@pytest.mark.slow
@pytest.mark.parametrize("turn", ["exif3", "exif6"])
def test_turned_photographs_score_as_upright_ones(cases: Path, network: FrameRunner, turn: str) -> None:
    """But for what JPEG does to turned blocks."""
    miou = score(network, cases / "d01" / "ref")
    assert miou > 65
    assert score(network, cases / "d01" / turn) == pytest.approx(miou, abs=0.2)


@pytest.mark.slow
def test_16_bit_grey_scores_as_8_bit_grey(cases: Path, network: FrameRunner) -> None:
    said: list[str] = []
    assert score(network, cases / "d02" / "g16", said) == score(network, cases / "d02" / "g8")
    assert len(said) == 1
    assert "does not say how many of their bits are used" in said[0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("appledouble", "hidden files"), ("ipynb", "hidden files"), ("seqs", ""), ("upper", ""), ("mixed", ""), ("side", ""),
        ("l_ok", ""), ("l_bom", ""), ("l_abs", ""), ("l_tab", ""), ("l_space", ""), ("l_win", ""), ("l_dup", "more than once"),
        ("lab_pal", ""), ("lab_pal4bit", ""), ("lab_rgb", ""), ("lab_grey3", ""), ("lab_16", ""), ("lab_la", ""),
    ],
)  # fmt: skip
def test_layouts_that_change_nothing(cases: Path, name: str, told: str) -> None:
    said: list[str] = []
    found, plain = opened(cases / "d05" / name, said), opened(cases / "d05" / "plain")
    assert len(found) == len(plain) == 3
    for index in range(len(plain)):
        for one, other in zip(found.load(index), plain.load(index), strict=True):
            np.testing.assert_array_equal(one, other)
    assert bool(said) == bool(told)
    assert all(told in line for line in said)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("l_utf16", "is written in UTF-16"), ("l_gbk", "it may be GBK"), ("l_comma", "where the comma is"),
        ("lab_half", r"is 160x128, but its label .* is 80x64"), ("alllinks", "holds no 'val' split"),
    ],
)  # fmt: skip
def test_layouts_that_are_refused(cases: Path, name: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        opened(cases / "d05" / name).load(0)


def test_masks_of_1_bit_are_0_and_1(cases: Path) -> None:
    _, label = opened(cases / "d05" / "lab_bit").load(0)
    _, whole = opened(cases / "d05" / "plain").load(0)
    assert (label == (whole == 3)).all()
