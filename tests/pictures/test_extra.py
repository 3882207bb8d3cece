"""Without the extra `report`: what needs it is refused before the work, and what does not need it works."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers import frames, hide, tiny_model
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.image.frames import load_image


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("command", "option"),
    [("bench", "--html"), ("profile", "--svg"), ("evaluate --dataset camvid --root none", "--picture")],
)
def test_a_picture_is_refused_before_anything_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str) -> None:
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, "matplotlib")
    result = run(*command.split(), "no-such-model.onnx", option, "out")
    assert result.exit_code == 1
    message = f"Error: {option} needs the package matplotlib, which is not installed.\nRun: pip install 'rtformer-deploy[report]'\n"
    assert result.output == message
    assert list(tmp_path.iterdir()) == []


def test_a_page_needs_jinja2_and_an_svg_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("model.onnx"))
    hide(monkeypatch, "jinja2")
    assert "--html needs the package jinja2" in run("bench", "model.onnx", "--html", "b.html").output
    drawn = run("profile", "model.onnx", "--rounds", "1", "--svg", "p.svg")
    assert drawn.exit_code == 0, drawn.output
    assert Path("p.svg").is_file()


def test_without_a_picture_and_for_a_png_nothing_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("model.onnx"))
    Image.fromarray(frames((50, 70))[0]).save("street.png")
    hide(monkeypatch, "matplotlib", "jinja2")
    for call in (
        ["bench", "model.onnx", "--seconds", "0.05", "--warmup", "0", "--json", "b.json"],
        ["profile", "model.onnx", "--rounds", "1", "--json", "p.json"],
        ["verify", "model.onnx", "model.onnx", "street.png", "--picture", "v.png"],
    ):
        result = run(*call)
        assert result.exit_code == 0, result.output
    assert load_image(Path("v.png")).shape == (50, 70, 3)
