"""refit and FP8 on a real GPU, as the commands do them. Never run so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("click", reason="needs click")
pytest.importorskip("onnx", reason="needs onnx")

from click.testing import CliRunner, Result
from small_network import small_network, write_small
from smooth_frames import frames

from rtformer_deploy.backends import has_fp8, open_engine
from rtformer_deploy.cli import main
from rtformer_deploy.formats.engine_file import load_engine, load_info
from rtformer_deploy.formats.model_file import save_model
from rtformer_deploy.nvidia.driver import gpus, why_none
from rtformer_deploy.types import Backend

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    print(result.output)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_refitted_plan_computes_what_a_plan_of_its_model_does(backend: Backend, tmp_path: Path, precision: str) -> None:
    small = write_small(tmp_path)
    save_model(small_network(small.dataset, seed=1), tmp_path / "other.onnx")
    plans = {name: tmp_path / f"{name}.plan" for name in ("stripped", "refitted", "again", "built")}
    build = ("build-engine", f"--{precision}", "--backend", backend)
    call(*build, small.model, "--strip", "--output", plans["stripped"])
    call("refit", plans["stripped"], tmp_path / "other.onnx", "-o", plans["refitted"], "--max-flips", "1%")
    call("refit", plans["refitted"], tmp_path / "other.onnx", "-o", plans["again"], "--max-flips", "1%")
    call(*build, tmp_path / "other.onnx", "--output", plans["built"])
    given = frames((96, 128), (48, 64))
    labels = {}
    for name in ("refitted", "again", "built"):
        with open_engine(load_engine(plans[name])) as runner:
            labels[name] = runner.run(given)
    for index in range(len(given)):
        assert np.mean(labels["refitted"][index] != labels["built"][index]) < 0.01
        np.testing.assert_array_equal(labels["again"][index], labels["refitted"][index])


def test_the_layers_of_an_fp8_engine_are_fp8(backend: Backend, tmp_path: Path) -> None:
    if not has_fp8(gpus()[0].compute_capability):
        pytest.skip(f"{gpus()[0]} has no FP8")
    small = write_small(tmp_path)
    call(
        "build-engine", small.model, "--fp8", "--images", small.images, "--backend", backend, "--output", tmp_path / "fp8.plan", "--strict"
    )
    info = load_info(tmp_path / "fp8.plan")
    assert info.precision.state == "verified"
    assert info.flips is not None
    assert info.flips < 0.2
