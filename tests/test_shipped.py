"""The network that comes with the project: that it segments real frames, and that its INT8 engines with the shipped ranges keep that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtformer_deploy.backends import open_engine
from rtformer_deploy.datasets import open_dataset
from rtformer_deploy.evaluation.evaluate import evaluate
from rtformer_deploy.export.weights_choice import choose_network
from rtformer_deploy.formats.ranges import shipped_ranges
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.image.frames import load_image
from rtformer_deploy.pipeline import Exported, build_engine, export_model
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Backend, BuildOptions, PrecisionName

HELD_OUT = "train:0001TP:3/3"  # the card: 21 frames that were never trained on
LEAST_MIOU = 0.575  # of them; the card says 57.9
LARGEST_LOSS = 0.002  # of INT8
LARGEST_WEIGHTS = 11 * 10**6


@pytest.fixture(scope="module")
def network() -> Exported:
    choice = choose_network(variant="slim", say=lambda _text: None)
    spec = choice.recipe.spec(labels=choice.labels, weights=choice.origin, sha256=choice.sha256)
    return export_model(choice.network, spec)


def opened(made: Exported, backend: Backend, precision: PrecisionName) -> FrameRunner:
    ranges = shipped_ranges(made.spec) if precision == "int8" else None
    engine = build_engine(made.model, made.spec, backend, BuildOptions(precision=precision), ranges=ranges, strict=True)
    return open_engine(engine)


def test_the_files_are_those_that_the_recipe_names(root: Path, network: Exported) -> None:
    recipe = load_recipe("rtformer-slim-camvid")
    weights = root / "models" / "rtformer-slim-camvid.safetensors.xz"
    assert recipe.weights == weights
    assert weights.stat().st_size <= LARGEST_WEIGHTS
    assert network.spec.size == (360, 480)
    ranges = shipped_ranges(network.spec)
    assert ranges is not None
    assert (ranges.method, ranges.images) == ("mse", 367)
    card = (root / "models" / "rtformer-slim-camvid.md").read_text()
    assert "not for commercial use" in card
    assert "Brostow" in (root / "NOTICE").read_text()


def test_it_segments_what_it_was_not_trained_on_and_int8_keeps_that(network: Exported, shared: Path) -> None:
    held_out = open_dataset("camvid", shared / "camvid", HELD_OUT)
    assert len(held_out) == 21
    found = {}
    precisions: tuple[PrecisionName, ...] = ("fp32", "int8")
    for precision in precisions:
        with opened(network, "openvino", precision) as runner:
            found[precision] = evaluate(runner, held_out).scores.miou
    assert found["fp32"] > LEAST_MIOU
    assert found["int8"] > found["fp32"] - LARGEST_LOSS


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_changes_few_pixels_of_real_frames(network: Exported, backend: Backend, shared: Path) -> None:
    frames = [load_image(path) for path in sorted((shared / "camvid" / "images" / "val").iterdir())[::20]]
    with opened(network, backend, "fp32") as plain, opened(network, backend, "int8") as runner:
        wanted, given = plain.run(frames), runner.run(frames)
        logits, near = plain.logits(frames), runner.logits(frames)
    flips = float(np.mean([np.mean(one != other) for one, other in zip(wanted, given, strict=True)]))
    assert 0 < flips < 0.005
    assert np.linalg.norm(near - logits) < 0.03 * np.linalg.norm(logits)
