"""A model with `resize_corners` and `scale`, as STDC's, through every way that a frame takes on a CPU, against STDC's own evaluation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from helpers import frames, tiny_model
from stdc_evaluation import BOUND, FRAME, SIZE, Network, assert_official, corner_spec, largest_difference, official_logits, resized

from rtformer_deploy.backends import build, open_engine
from rtformer_deploy.backends.torch.run import open_network
from rtformer_deploy.errors import ModelError, UsageError
from rtformer_deploy.evaluation.stages import compare_image
from rtformer_deploy.export.parity import check_export
from rtformer_deploy.formats.model_file import read_spec, stamp_spec
from rtformer_deploy.graph.head import set_head
from rtformer_deploy.graph.quick_plugins import use_quick_plugins
from rtformer_deploy.runtime.augmented import AugmentedRunner
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.runtime.scaled import ScaledRunner
from rtformer_deploy.runtime.tiled import TiledRunner
from rtformer_deploy.serve.model import Model
from rtformer_deploy.stream.items import StreamFrame
from rtformer_deploy.stream.loop import Loop, LoopOptions
from rtformer_deploy.stream.segment import segment
from rtformer_deploy.types import BuildOptions, Engine, Frame, Head, ModelSpec

FRAMES = frames(FRAME, SIZE, (90, 61), seed=3)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.set_num_threads(1)
    return Network().eval()


@pytest.fixture
def runner(network: Network) -> Iterator[FrameRunner]:
    with open_network(network, corner_spec(), threads=1) as opened:
        yield opened


def official(network: Network, frame: Frame, spec: ModelSpec | None = None) -> torch.Tensor:
    return official_logits(network, frame, spec or corner_spec(), SIZE)


def model_of(spec: ModelSpec) -> ir.Model:
    """The tiny network in ONNX with the head that the spec asks for, as an export gives it."""
    model = tiny_model(spec.input.shape[0])  # type: ignore[arg-type]
    for node in model.graph:
        node.name = f"module.{node.outputs[0].name}"
    stamp_spec(set_head(model, spec), spec)
    return model


@functools.cache
def engine_of(backend: str, head: Head) -> Engine:
    spec = corner_spec(head)
    return build(model_of(spec), spec, backend, BuildOptions(threads=1))


# The whole way, at the size that the recipe is for and at others.


def test_a_frame_is_segmented_as_stdc_evaluates_it(network: Network, runner: FrameRunner) -> None:
    assert runner.spec.frame_size == FRAME
    for frame, labels in zip(FRAMES, runner.run(FRAMES), strict=True):
        assert_official(labels, official(network, frame))
    half_pixels = dataclasses.replace(corner_spec(), resize_corners=False)
    with open_network(network, half_pixels, threads=1) as other, pytest.raises(AssertionError):
        assert_official(other.run(FRAMES[:1])[0], official(network, FRAMES[0]))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("head", ["lowres", "logits", "labels"])
def test_every_head_of_every_cpu_engine(network: Network, backend: str, head: Head) -> None:
    with open_engine(engine_of(backend, head), threads=1) as opened:
        assert_official(opened.run(FRAMES[:1])[0], official(network, FRAMES[0]))
        assert opened.run(FRAMES)[2].shape == (90, 61)
        if head == "logits":
            assert opened.logits(FRAMES[:1]).shape[2:] == FRAME
            assert largest_difference(opened.logits(FRAMES[:1]), official(network, FRAMES[0])) < BOUND
            back = resized(resized(official(network, FRAMES[1]), FRAME), SIZE)  # the grid is the frame's, not the input's
            assert_official(opened.run(FRAMES)[1], back)


@pytest.mark.parametrize("head", ["lowres", "logits", "labels"])
def test_the_exported_head_is_checked_against_two_steps(network: Network, head: Head) -> None:
    spec = corner_spec(head)
    model = model_of(spec)
    assert read_spec(model) == spec
    assert check_export(network, model, spec).difference < BOUND
    resizes = [node for node in model.graph if node.op_type == "Resize"]
    assert len(resizes) == (0 if head == "lowres" else 2)
    if resizes:
        resizes[0].attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "half_pixel")
        with pytest.raises(ModelError, match="differs from the network"):
            check_export(network, model, spec)


@pytest.mark.parametrize("head", ["logits", "labels"])
def test_scale_alone_gives_the_frames_size_in_one_step(network: Network, head: Head) -> None:
    spec = dataclasses.replace(corner_spec(head), resize_corners=False)
    model = model_of(spec)
    check_export(network, model, spec)
    assert [node.op_type for node in model.graph].count("Resize") == 1
    with open_engine(build(model, spec, "onnxruntime", BuildOptions(threads=1)), threads=1) as opened:
        straight = torch.nn.functional.interpolate(network(torch.zeros(1, 3, *SIZE)), FRAME, mode="bilinear", align_corners=False)
        assert opened.spec.output.shape[-2:] == straight.shape[-2:]
        assert opened.run(FRAMES[:1])[0].shape == FRAME


def test_an_open_batch_keeps_both_steps(network: Network) -> None:
    spec = corner_spec("logits")
    source, output = (dataclasses.replace(each, shape=("batch", *each.shape[1:])) for each in (spec.input, spec.output))
    spec = dataclasses.replace(spec, input=source, output=output)
    assert check_export(network, model_of(spec), spec).difference < BOUND


def test_the_plugins_head_stays_with_half_pixels() -> None:
    """The plugin reads its logits in one step, so it would give other labels."""
    model = use_quick_plugins(model_of(corner_spec("labels")))
    assert [node.op_type for node in model.graph].count("Resize") == 2


# What works on logits.


def test_confidence_and_logits_of_a_stream(network: Network, runner: FrameRunner) -> None:
    loop = Loop([], runner, LoopOptions(smooth=0.5, logits=True, confidence=True))
    result = loop._from_logits(SimpleNamespace(text="a"), StreamFrame(FRAMES[0], "a", 0, None))
    logits = official(network, FRAMES[0])
    assert_official(result.labels, logits)
    assert result.confidence is not None
    assert np.abs(result.confidence - 255 * logits.softmax(1).amax(1)[0].numpy()).max() <= 1


def test_the_service_answers_alike(network: Network, runner: FrameRunner) -> None:
    model: Any = SimpleNamespace(spec=runner.spec, _host=SimpleNamespace(runner=runner))
    found = Model._from_logits(model, FRAMES[2], runner.logits(FRAMES[2:])[0])
    logits = official(network, FRAMES[2])
    assert_official(found.labels, logits)
    assert found.confidence is not None
    assert np.abs(found.confidence - 255 * logits.softmax(1).amax(1)[0].numpy()).max() <= 1


def test_tiles_have_the_frames_size_and_go_through_the_resize(network: Network, runner: FrameRunner) -> None:
    (frame,) = frames((128, 300), seed=4)
    labels = TiledRunner(runner, 16).run([frame])[0]
    for part, place in ((slice(0, 108), slice(0, 108)), (slice(192, 300), slice(192, 300))):  # where one tile lies alone
        tile = frame[:, :192] if part.start == 0 else frame[:, 108:]
        logits = official(network, tile)
        assert_official(labels[:, place], logits[..., :108] if part.start == 0 else logits[..., 84:])
    assert_official(TiledRunner(runner, 16).run(FRAMES[:1])[0], official(network, FRAMES[0]))  # no larger than a tile


def test_views_are_averaged_where_the_frame_reads_them(network: Network, runner: FrameRunner) -> None:
    frame = FRAMES[0]
    labels = AugmentedRunner([runner], flip=True).run([frame])[0]
    mirrored = official(network, np.ascontiguousarray(frame[:, ::-1])).flip(3)
    mean = official(network, frame).softmax(1) + mirrored.softmax(1)
    assert_official(labels, mean)


def test_verify_names_the_resize(network: Network, runner: FrameRunner) -> None:
    with open_engine(engine_of("onnxruntime", "lowres"), threads=1) as same:
        compared = compare_image(runner, same, lambda: FRAMES[2])
        assert [stage.name for stage in compared.stages if stage.differs] == []
    with open_network(network, dataclasses.replace(corner_spec(), resize_corners=False), threads=1) as other:
        resize = next(stage for stage in compare_image(runner, other, lambda: FRAMES[2]).stages if stage.name == "resize")
    assert resize.differs
    assert "A is resized to 64x96 (stretch, from corner to corner), B to 64x96 (stretch)" in resize.detail


# A network without a size of its own.


def test_a_network_sees_each_frame_at_its_scale(network: Network) -> None:
    opened: list[tuple[int, int]] = []

    def open_at(size: tuple[int, int]) -> FrameRunner:
        opened.append(size)
        return open_network(network, corner_spec(size=size), threads=1)

    given = [*FRAMES, FRAMES[0], *frames((33, 47), (10, 200), (50, 50), (51, 51), (1, 3))]
    with ScaledRunner(corner_spec(), 0.5, open_at) as scaled:
        for frame, labels in zip(given[:-1], scaled.run(given)[:-1], strict=True):
            assert_official(labels, official_logits(network, frame, corner_spec()))
        flipped = AugmentedRunner([scaled], flip=True).run([FRAMES[2]])[0]
        with pytest.raises(UsageError, match="2 sizes"):
            scaled.logits(FRAMES[:2])
    assert opened[:8] == [(64, 96), (32, 48), (45, 30), (16, 23), (5, 100), (25, 25), (1, 1), (45, 30)]
    mirrored = official_logits(network, np.ascontiguousarray(FRAMES[2][:, ::-1]), corner_spec()).flip(3)
    assert_official(flipped, official_logits(network, FRAMES[2], corner_spec()).softmax(1) + mirrored.softmax(1))


def test_three_quarters_of_a_frame(network: Network) -> None:
    spec = corner_spec(size=(96, 144), scale=0.75)
    assert spec.frame_size == FRAME
    with open_network(network, spec, threads=1) as opened:
        assert_official(opened.run(FRAMES[:1])[0], official_logits(network, FRAMES[0], spec))


def test_segment_follows_it_from_a_file(network: Network, tmp_path: Any) -> None:
    from PIL import Image

    from rtformer_deploy.formats.model_file import save_model

    Image.fromarray(FRAMES[0]).save(tmp_path / "frame.png")
    save_model(model_of(corner_spec()), tmp_path / "model.onnx")
    with segment(tmp_path / "frame.png", tmp_path / "model.onnx", threads=1) as results:
        assert_official(next(results).labels, official(network, FRAMES[0]))
