"""A frame's whole way over the stub: the real lanes, the real cuda.core, kernels that run, and ONNX Runtime when the stream comes to it.

What comes out is compared bit for bit with the onnxruntime backend's own runner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import stub
from helpers import frames
from stub import StubDriver
from stub_engine import Pair, on_gpu, onnx_engine, open_lanes, tiny_engine
from stub_lab import bytes_at

from rtformer_deploy.errors import EngineError, UsageError
from rtformer_deploy.lanes import kernels as kernels_module
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.types import Engine, Frame, Head, LabelMap

SIZES = ((64, 96), (50, 70), (83, 120))
#: Submissions of every batch and of several sizes, each of which comes back: once without a graph, once to capture it, then from it.
SUBMISSIONS = [frames(*sizes, seed=seed) for seed, sizes in enumerate((SIZES[:1], SIZES[1:2], SIZES[:2], SIZES))]
ROUNDS = 3
KERNELS = [f"{name}_{suffix}" for name in ("preprocess", "upsample_argmax") for suffix in ("f16", "f32")]
Open = Callable[..., Pair]


@pytest.fixture
def opened(driver: StubDriver, cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens lanes whose waits, which ask again and again, let the GPU go on; what they left is closed."""
    monkeypatch.setattr(kernels_module, "compile_kernel_file", stub.compile_kernel_file)
    driver.mode("stepping")
    pairs: list[Pair] = []

    def open_them(lanes: int = 1, *, graphs: bool = True, engine: Engine | None = None) -> Pair:
        pairs.append(open_lanes(driver, cuda, engine or tiny_engine(), lanes, graphs=graphs))
        return pairs[-1]

    yield open_them
    driver.reset()
    driver.mode("stepping")
    for pair in pairs:
        pair.runner.close()
        pair.cpu.close()


def labels_of(runner: FrameRunner, given: Sequence[Any], **options: Any) -> list[LabelMap]:
    """One submission, so that all the frames are one batch."""
    return runner.result(runner.submit(given, **options))


def assert_equal(given: Sequence[LabelMap], right: Sequence[LabelMap]) -> None:
    for one, other in zip(given, right, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("head", ["lowres", "labels"])
@pytest.mark.parametrize("graphs", [True, False])
def test_an_engine_with_fp16_ends_gives_what_it_gives_on_the_cpu(opened: Open, driver: StubDriver, graphs: bool, head: Head) -> None:
    pair = opened(graphs=graphs, engine=tiny_engine(head, io="fp16"))
    assert pair.runner.sessions[0].engine.input.dtype == np.float16
    for given in SUBMISSIONS * ROUNDS:
        assert_equal(labels_of(pair.runner, given), labels_of(pair.cpu, given))
    for given in SUBMISSIONS * (head == "lowres"):
        logits = pair.runner.logits(given)
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, pair.cpu.logits(given))
    kernels = {name for line in driver.log() for name in KERNELS if f"launch {name} " in line}
    assert kernels == {"preprocess_f16", *["upsample_argmax_f16"] * (head == "lowres")}
    assert (driver.calls().get("cuGraphLaunch", 0) > 0) == graphs
    assert pair.runner.notes == ()


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize(("lanes", "threads"), [(1, 1), (1, 4), (2, 2), (3, 1), (4, 3)])
def test_label_maps_are_those_of_the_cpu_bit_for_bit(opened: Open, driver: StubDriver, lanes: int, threads: int, graphs: bool) -> None:
    pair = opened(lanes, graphs=graphs)
    right = [labels_of(pair.cpu, given) for given in SUBMISSIONS]

    def work(first: int) -> None:
        order = [*range(first, len(SUBMISSIONS)), *range(first)]
        for index in order * ROUNDS:
            assert_equal(labels_of(pair.runner, SUBMISSIONS[index]), right[index])

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, first) for first in range(threads)]:
            done.result()
    if not graphs or lanes == threads == 1:  # with several lanes chance decides which of them sees a shape again
        assert (driver.calls().get("cuGraphLaunch", 0) > 0) == graphs
    assert pair.engine.runs >= threads * ROUNDS * len(SUBMISSIONS), "the stub ran the engine for each of them"
    assert pair.runner.notes == ()


def test_a_thread_of_the_gpus_own_gives_the_same(opened: Open, driver: StubDriver) -> None:
    driver.mode("worker")
    pair = opened(2)
    for given in SUBMISSIONS * ROUNDS:
        assert_equal(labels_of(pair.runner, given), labels_of(pair.cpu, given))


@pytest.mark.parametrize("lanes", [2, 4])
def test_submissions_in_flight_at_once(opened: Open, lanes: int) -> None:
    pair = opened(lanes)
    for _ in range(ROUNDS):
        tickets = [pair.runner.submit(given) for given in SUBMISSIONS]
        for ticket, given in reversed(list(zip(tickets, SUBMISSIONS, strict=True))):
            assert_equal(pair.runner.result(ticket), labels_of(pair.cpu, given))
    everything = [frame for given in SUBMISSIONS for frame in given]
    assert_equal(pair.runner.run(everything), pair.cpu.run(everything))


@pytest.mark.parametrize("graphs", [True, False])
def test_logits(opened: Open, graphs: bool) -> None:
    pair = opened(2, graphs=graphs)
    for given in SUBMISSIONS * ROUNDS:
        np.testing.assert_array_equal(pair.runner.logits(given), pair.cpu.logits(given))


@pytest.mark.parametrize("graphs", [True, False])
def test_an_engine_that_gives_labels_itself(opened: Open, graphs: bool) -> None:
    pair = opened(engine=tiny_engine("labels"), graphs=graphs)
    for given in SUBMISSIONS * ROUNDS:
        assert_equal(labels_of(pair.runner, given), labels_of(pair.cpu, given))


def test_fewer_frames_than_the_smallest_batch(opened: Open) -> None:
    pair = opened(engine=tiny_engine(batch=(2, 2, 3)))
    for given in SUBMISSIONS * ROUNDS:
        assert_equal(labels_of(pair.runner, given), labels_of(pair.cpu, given))


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("on_device", [True, False])
def test_frames_and_label_maps_on_the_gpu(opened: Open, gpu: Any, on_device: bool, graphs: bool) -> None:
    pair = opened(2, graphs=graphs)
    caller = gpu.create_stream()
    for given in SUBMISSIONS * ROUNDS:
        there = [on_gpu(gpu, frame, caller) for frame in given]
        labels = labels_of(pair.runner, there, stream=caller, on_device=on_device)
        assert_equal([_on_host(one) for one in labels] if on_device else labels, labels_of(pair.cpu, given))


def test_host_frames_to_label_maps_on_the_gpu(opened: Open) -> None:
    pair = opened()
    for given in SUBMISSIONS * ROUNDS:
        assert_equal([_on_host(one) for one in labels_of(pair.runner, given, on_device=True)], labels_of(pair.cpu, given))


def _on_host(labels: Any) -> LabelMap:
    """A complete label map in the stub's memory."""
    shown = labels.__cuda_array_interface__
    assert shown["typestr"] == "|u1"
    return bytes_at(shown["data"][0], int(np.prod(shown["shape"]))).reshape(shown["shape"]).copy()


def test_rtformer_slim_from_pixels_to_labels(opened: Open) -> None:
    from exports import exported

    from rtformer_deploy.pipeline import prepare_model
    from rtformer_deploy.types import BuildOptions

    prepared = prepare_model(exported(batch="batch").model, "onnxruntime", BuildOptions())
    pair = opened(engine=onnx_engine(prepared, (1, 1, 2)))
    given: list[list[Frame]] = [frames((64, 128), seed=1), frames((90, 160), (64, 128), seed=2)]
    right = [labels_of(pair.cpu, some) for some in given]
    assert len(np.unique(right[0][0])) > 1
    for _ in range(ROUNDS):
        for some, labels in zip(given, right, strict=True):
            assert_equal(labels_of(pair.runner, some), labels)
    np.testing.assert_array_equal(pair.runner.logits(given[1]), pair.cpu.logits(given[1]))


def test_what_the_engine_refuses_is_that_requests_error(opened: Open) -> None:
    pair = opened()
    with pytest.raises(UsageError, match="1 to 3"):
        pair.runner.submit(frames(*[SIZES[0]] * 4))
    (lane,) = pair.runner.sessions
    with pytest.raises(EngineError, match="takes up to 3 images, not 5"):
        lane.engine.start(5)
    assert_equal(labels_of(pair.runner, SUBMISSIONS[0]), labels_of(pair.cpu, SUBMISSIONS[0]))


def test_an_error_that_breaks_the_context_fails_the_runner(opened: Open, driver: StubDriver) -> None:
    pair = opened()
    frame = frames(SIZES[0])[0]
    pair.runner.run([frame])
    driver.break_context(700, after=3)
    with pytest.raises(EngineError, match="has failed"):
        pair.runner.run([frame])
