"""What every runner must do, whatever runs the engine: right labels for frames of any size, in order, from any thread, or a clear error."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from helpers import Batch, frames, tiny_model, tiny_spec, tiny_weights
from numpy.typing import NDArray

from rtformer_deploy.backends import BACKENDS, build, open_engine
from rtformer_deploy.backends.torch.run import open_network
from rtformer_deploy.errors import EngineError, ImageError, UsageError
from rtformer_deploy.formats.model_file import serialize_model
from rtformer_deploy.image import frames as image
from rtformer_deploy.nvidia.driver import gpus, why_none
from rtformer_deploy.runtime.cpu_session import preprocess_frames
from rtformer_deploy.runtime.frame_runner import FrameRunner
from rtformer_deploy.runtime.session import OutputKind
from rtformer_deploy.types import Backend, BuildOptions, Engine, Frame, Head, LabelMap, Ticket

SIZES = ((64, 96), (50, 70), (131, 200), (1, 1), (97, 33))
TORCH = "torch"  # the network itself, which has no row among the backends
Bounds = tuple[int, int, int]
Open = Callable[..., FrameRunner]
MakeEngine = Callable[[Batch, Bounds, Head], Engine]


@functools.cache
def built(backend: Backend, batch: Batch, bounds: Bounds, head: Head) -> Engine:
    return build(tiny_model(batch, head), tiny_spec(batch, head), backend, BuildOptions(batch=bounds, threads=1))


class Network(torch.nn.Module):
    """The tiny network in PyTorch, with the head that is asked for."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.weights = torch.nn.ParameterList([torch.from_numpy(value) for value in tiny_weights()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, weight in enumerate(self.weights):
            x = torch.nn.functional.conv2d(x.relu() if index else x, weight, stride=2, padding=1)
        if self.head != "lowres":
            x = torch.nn.functional.interpolate(x, scale_factor=8.0, mode="bilinear", align_corners=False)
        return x.argmax(1).to(torch.uint8) if self.head == "labels" else x


@pytest.fixture(params=[*(name for name, row in BACKENDS.items() if row.folder != "tensorrt"), TORCH])
def backend(request: pytest.FixtureRequest) -> str:
    """TensorRT's are in tests/stub_driver/test_stub_contract.py, which runs these tests over the stub of the CUDA driver."""
    name: str = request.param
    return name


@pytest.fixture
def make_engine(backend: str) -> MakeEngine | None:
    """What makes the backend's engine of the tiny network; None for the network itself."""
    if backend == TORCH:
        return None
    row = BACKENDS[backend]
    if row.on_gpu and not gpus():
        pytest.skip(f"needs an NVIDIA GPU: {why_none()}")
    return functools.partial(built, row.name)


@pytest.fixture
def opened(make_engine: MakeEngine | None) -> Iterator[Open]:
    """Opens a runner of the backend: batch (N or "batch"), its bounds, head, lanes. All are closed in the end."""
    runners: list[FrameRunner] = []

    def opener(batch: Batch = 1, bounds: Bounds = (1, 1, 1), head: Head = "lowres", lanes: int = 1) -> FrameRunner:
        if make_engine is None:
            largest = bounds[2] if batch == "batch" else batch
            runner = open_network(Network(head).eval(), tiny_spec(batch, head), batch=largest, threads=1, lanes=lanes)
        else:
            runner = open_engine(make_engine(batch, bounds, head), threads=1, lanes=lanes)
        runners.append(runner)
        return runner

    yield opener
    for runner in runners:
        runner.close()


@functools.cache
def reference_session(head: Head) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(serialize_model(tiny_model(1, head)), providers=["CPUExecutionProvider"])


def reference_output(frame: Frame, head: Head = "lowres") -> NDArray[Any]:
    spec = tiny_spec(1, head)
    output: NDArray[Any] = reference_session(head).run(
        None, {"input": image.preprocess(frame, spec.size, spec.mean, spec.std, spec.resize)[None]}
    )[0][0]
    return output


def reference(frame: Frame) -> LabelMap:
    spec = tiny_spec()
    return image.upsample_argmax_reference(reference_output(frame), frame.shape[:2], spec.size, spec.resize)


def assert_same(labels: Sequence[LabelMap], given: Sequence[Frame]) -> None:
    """Each label map has its frame's size and the reference's classes; where they differ it is a tie that rounding settled."""
    assert len(labels) == len(given)
    for label_map, frame in zip(labels, given, strict=True):
        assert label_map.dtype == np.uint8
        assert label_map.shape == frame.shape[:2]
        differs = label_map != reference(frame)
        assert not np.any(differs & (margin(frame) > 1e-4))


def margin(frame: Frame) -> NDArray[np.float32]:
    """How far the best class leads the second at each pixel, as a share of the largest logit."""
    logits = reference_output(frame)
    height, width = frame.shape[:2]
    large = np.sort(np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_LINEAR) for channel in logits]), axis=0)
    lead: NDArray[np.float32] = (large[-1] - large[-2]) / np.abs(logits).max()
    return lead


@pytest.mark.parametrize(
    ("batch", "bounds"),
    [(1, (1, 1, 1)), (2, (1, 1, 1)), ("batch", (1, 2, 4)), ("batch", (3, 3, 3))],
    ids=["batch 1", "static 2", "dynamic 1 to 4", "dynamic 3"],
)
def test_frames_of_any_size_get_the_reference_labels(opened: Open, batch: Batch, bounds: tuple[int, int, int]) -> None:
    runner = opened(batch, bounds)
    given = frames(*SIZES)
    assert len({label for frame in given for label in np.unique(reference(frame))}) > 2
    assert_same(runner.run(given), given)
    assert_same(runner.run(given[:1]), given[:1])
    assert runner.run([]) == []


def test_a_frame_of_the_runners_own_is_as_good_as_any(opened: Open) -> None:
    runner = opened("batch", (1, 2, 2))
    given = frames(*SIZES)
    for _ in range(3):
        own = [runner.frame(frame.shape[:2]) for frame in given]
        for mine, frame in zip(own, given, strict=True):
            assert mine.shape == frame.shape
            assert mine.dtype == np.uint8
            assert mine.flags.c_contiguous
            assert mine.flags.writeable
            mine[...] = frame
        assert_same(runner.run(own), given)
        assert_same(runner.run([own[2][10:90], given[0]]), [given[2][10:90], given[0]])
    sides: Any = np.array((3, 4))
    assert runner.frame(sides).shape == (3, 4, 3)


def test_label_maps_that_are_kept_do_not_change(opened: Open) -> None:
    runner = opened("batch", (1, 2, 2), lanes=2)
    parts = [frames((64, 96), (40 + index % 2, 60), seed=index) for index in range(6)]
    kept = [runner.result(runner.submit(part)) for part in parts]
    for labels, part in zip(kept, parts, strict=True):
        assert_same(labels, part)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (5, 6, 3), (5.0, 6), 5])
def test_a_size_that_is_none(opened: Open, size: Any) -> None:
    with pytest.raises(ImageError, match=r"is no frame's size; a size is \(height, width\), both at least 1"):
        opened().frame(size)


def test_a_size_that_is_too_large(opened: Open) -> None:
    with pytest.raises(ImageError, match="A frame of 1000000x1000000 is too large"):
        opened().frame((10**6, 10**6))


def test_logits_are_the_engines_own(opened: Open) -> None:
    runner = opened("batch", (1, 2, 2))
    given = frames(*SIZES)
    logits = runner.logits(given)
    expected = np.stack([reference_output(frame) for frame in given])
    assert logits.dtype == np.float32
    assert logits.shape == expected.shape == (5, 5, 8, 12)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    runner.run(given[:1])
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert runner.logits([]).shape == (0, 5, 8, 12)


@pytest.mark.parametrize("lanes", [1, 3])
def test_results_are_kept_whatever_the_order_they_are_taken_in(opened: Open, lanes: int) -> None:
    runner = opened("batch", (1, 2, 2), lanes=lanes)
    parts = [frames((64, 96), (40 + index, 60), seed=index) for index in range(6)]
    tickets = [runner.submit(part) for part in parts]
    assert [ticket.number for ticket in tickets] == sorted({ticket.number for ticket in tickets})
    for index in (5, 0, 3, 1, 4, 2):
        assert_same(runner.result(tickets[index]), parts[index])


def test_one_session_free_is_one_session_used(opened: Open) -> None:
    runner = opened(lanes=2)
    assert len(runner.sessions) == 2
    first, second = (runner.submit(frames((64, 96), seed=seed)) for seed in (1, 2))
    runner.result(second)
    third = runner.submit(frames((64, 96), seed=3))
    assert_same(runner.result(third), frames((64, 96), seed=3))
    assert_same(runner.result(first), frames((64, 96), seed=1))


@pytest.mark.parametrize("lanes", [1, 2])
def test_threads_share_a_runner(opened: Open, lanes: int) -> None:
    runner = opened(lanes=lanes)

    def work(seed: int) -> None:
        for index in range(25):
            given = frames((24 + seed, 32 + index), seed=100 * seed + index)
            if index % 2:
                assert_same(runner.run(given), given)
            else:
                assert_same(runner.result(runner.submit(given)), given)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, seed) for seed in range(4)]:
            future.result()


def test_a_head_that_gives_full_size_logits(opened: Open) -> None:
    runner = opened(head="logits")
    given = frames((64, 96), (100, 130))
    spec = tiny_spec(head="logits")
    for labels, frame in zip(runner.run(given), given, strict=True):
        expected = image.upsample_argmax_reference(reference_output(frame, "logits"), frame.shape[:2], spec.size, spec.resize)
        assert np.mean(labels != expected) <= 1e-3
    assert runner.logits(given).shape == (2, 5, 64, 96)


def test_a_head_that_gives_labels_refuses_logits(opened: Open) -> None:
    runner = opened(head="labels")
    given = frames((64, 96), (100, 130))
    spec = tiny_spec(head="labels")
    for labels, frame in zip(runner.run(given), given, strict=True):
        expected = image.resize_labels(reference_output(frame, "labels"), frame.shape[:2], spec.size, spec.resize)
        assert labels.dtype == np.uint8
        assert np.mean(labels != expected) <= 1e-3
    with pytest.raises(EngineError, match="built with --head labels: it gives labels and has no logits"):
        runner.logits(given)


def test_a_ticket_is_taken_once(opened: Open) -> None:
    runner = opened()
    ticket = runner.submit(frames((64, 96)))
    runner.result(ticket)
    with pytest.raises(UsageError, match=f"Ticket {ticket.number} is unknown here, or its result was taken already"):
        runner.result(ticket)
    with pytest.raises(UsageError, match="Ticket 1000 is unknown here"):
        runner.result(Ticket(1000))


def test_a_submission_fits_the_largest_batch(opened: Open) -> None:
    runner = opened("batch", (1, 2, 2))
    with pytest.raises(UsageError, match="3 frames were submitted at once; this engine takes 1 to 2"):
        runner.submit(frames(*SIZES[:3]))
    with pytest.raises(UsageError, match="0 frames were submitted at once"):
        runner.submit([])
    assert_same(runner.run(frames(*SIZES)), frames(*SIZES))


@pytest.mark.parametrize(
    ("frame", "given"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 \(0, 8, 3\)"),
        ("photo.jpg", "str"),
    ],
    ids=["float", "grey", "alpha", "empty", "path"],
)
def test_a_frame_that_is_none(opened: Open, frame: Any, given: str) -> None:
    runner = opened("batch", (1, 2, 2))
    good = frames((64, 96))
    for call in (runner.run, runner.submit, runner.logits):
        with pytest.raises(ImageError, match=rf"Frame 1 is {given}; a frame is RGB uint8 \(H, W, 3\)"):
            call([*good, frame])
    assert_same(runner.run(good), good)


def test_a_closed_runner_is_closed(opened: Open) -> None:
    given = frames((64, 96))
    with opened() as runner:
        ticket = runner.submit(given)
    runner.close()
    for call in (runner.run, runner.submit, runner.logits):
        with pytest.raises(UsageError, match="This runner was closed"):
            call(given)
    with pytest.raises(UsageError, match="This runner was closed"):
        runner.result(ticket)
    with pytest.raises(UsageError, match="This runner was closed"):
        runner.frame((64, 96))


class OnDevice:
    """What says that it is a frame on the GPU."""

    __cuda_array_interface__ = MappingProxyType({"shape": (64, 96, 3), "typestr": "|u1", "data": (4096, False), "version": 3})


def test_what_lies_on_a_gpu_is_for_engines_on_a_gpu(opened: Open, backend: str) -> None:
    runner = opened()
    given = frames((64, 96))
    elsewhere = backend == TORCH or not BACKENDS[backend].on_gpu
    refusals: list[tuple[list[Any], dict[str, Any]]] = [([OnDevice()], {}), (given, {"stream": 7}), (given, {"on_device": True})]
    for wrong, keywords in refusals if elsewhere else ():
        with pytest.raises(
            UsageError, match=r"An engine on a CPU takes no frames on the GPU, no stream and no on_device.*\n.*NumPy arrays"
        ):
            runner.submit(wrong, **keywords)
    if not elsewhere:
        with pytest.raises(UsageError, match="CUDA knows no device memory at its address"):
            runner.submit([OnDevice()])
        with pytest.raises(UsageError, match="A stream orders frames that are on the GPU"):
            runner.submit(given, stream=7)
    assert_same(runner.run(given), given)


def test_the_engine_alone_gives_what_logits_gives(opened: Open) -> None:
    runner = opened("batch", (2, 2, 3))
    given = frames((64, 96), (50, 70))
    wanted = runner.logits(given)
    for session in runner.sessions:
        assert session.engine.input.shape == (3, 3, 64, 96)
        preprocess_frames(given, runner.spec, session.engine.input)
        session.engine.start(runner.engine_batch(len(given)))
        np.testing.assert_allclose(session.engine.wait(), wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_stages_of_a_session_can_be_taken_apart(opened: Open) -> None:
    runner = opened("batch", (1, 2, 2))
    given = frames((64, 96), (50, 70))
    session = runner.sessions[0]
    for _ in range(3):
        session.load(session.check(given, "labels", None))
        session.begin("labels")
        session.synchronize()
        assert_same(session.take(), given)
        assert_same(session.take(), given)  # as after an interrupt


def test_an_error_belongs_to_its_ticket_alone(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = opened()
    session = runner.sessions[0]
    take, begin = session.take, session.begin
    given = frames((64, 96))
    bad = runner.submit(given)

    def failing() -> Any:
        take()
        raise RuntimeError("out of luck")

    def restoring(kind: OutputKind) -> None:
        monkeypatch.setattr(session, "take", take)
        begin(kind)

    monkeypatch.setattr(session, "take", failing)
    monkeypatch.setattr(session, "begin", restoring)
    good = runner.submit(given)  # every session is busy: this finishes the first, which fails
    assert_same(runner.result(good), given)
    with pytest.raises(EngineError, match="The engine failed on this request: out of luck"):
        runner.result(bad)
    assert_same(runner.run(given), given)


def test_an_error_in_one_part_of_a_run_leaves_nothing_behind(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = opened()
    given = frames((64, 96), (64, 96))
    with monkeypatch.context() as patch:
        patch.setattr(runner.sessions[0], "begin", _raising)
        with pytest.raises(RuntimeError, match="no start"):
            runner.run(given)
    assert_same(runner.run(given), given)


def _raising(kind: OutputKind) -> None:
    raise RuntimeError("no start")


def test_close_waits_for_what_is_in_flight(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = opened()
    session = runner.sessions[0]
    take, close = session.take, session.close
    reached, go = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> Any:
        reached.set()
        go.wait(10)
        labels = take()
        order.append("waited")
        return labels

    def closing() -> None:
        order.append("closed")
        close()

    monkeypatch.setattr(session, "take", slow)
    monkeypatch.setattr(session, "close", closing)
    given = frames((64, 96))
    with ThreadPoolExecutor(2) as pool:
        labels = pool.submit(runner.result, runner.submit(given))
        assert reached.wait(10)
        closed = pool.submit(runner.close)
        go.set()
        closed.result(10)
        assert_same(labels.result(10), given)
    assert order == ["waited", "closed"]
