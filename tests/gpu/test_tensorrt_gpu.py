"""TensorRT engines on a real GPU: the same logits and labels as the reference, the precision that was asked for, nothing left behind."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

import numpy as np
import pytest
from gpu_engines import Batch, built, exported, reference
from numpy.typing import NDArray
from smooth_frames import frames

from rtformer_deploy.backends import check_engine, open_engine
from rtformer_deploy.backends.tensorrt.plan import runs_on
from rtformer_deploy.backends.tensorrt.run import precision_after_open
from rtformer_deploy.errors import EngineError
from rtformer_deploy.nvidia.driver import gpus, why_none
from rtformer_deploy.runtime.cpu_session import preprocess_frames
from rtformer_deploy.types import Backend, BuildOptions, Engine, PrecisionName

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]

SIZES = ((256, 512), (200, 333), (512, 1024))
MIB = 2**20


def margins(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """How far the best class leads the second at each pixel of the upsampled logits."""
    import torch

    large = torch.nn.functional.interpolate(torch.from_numpy(logits[None]), size=size, mode="bilinear", align_corners=False)[0]
    best = torch.topk(large, 2, dim=0).values
    return np.asarray(best[0] - best[1])


def test_fp32_equals_the_reference(backend: Backend) -> None:
    with open_engine(built(backend, "fp32")) as runner:
        for frame in frames(*SIZES):
            expected, labels = reference(frame)
            given = runner.logits([frame])[0]
            difference = np.abs(given - expected).max()
            print(f"{backend} fp32 {frame.shape[:2]}: {difference / np.abs(expected).max():.1e} of the largest logit")
            assert difference <= 1e-3 * np.abs(expected).max()
            differs = runner.run([frame])[0] != labels
            # interpolating in another order adds rounding of its own, far below the bound on logits
            assert np.all(margins(expected, frame.shape[:2])[differs] <= 2 * difference + 1e-5 * np.abs(expected).max())


def test_fp16_changes_the_class_of_few_pixels(backend: Backend) -> None:
    with open_engine(built(backend, "fp16")) as runner:
        for frame in frames(*SIZES):
            expected, labels = reference(frame)
            difference = np.abs(runner.logits([frame])[0] - expected).max() / np.abs(expected).max()
            flips = np.mean(runner.run([frame])[0] != labels)
            print(f"{backend} fp16 {frame.shape[:2]}: {difference:.1e} of the largest logit, {flips:.3%} of the pixels flip")
            assert difference > 1e-5, "FP16 that differs so little is FP32"
            assert flips < 0.01


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_layers_have_the_precision_that_was_asked_for(backend: Backend, precision: PrecisionName) -> None:
    found = precision_after_open(built(backend, precision), 0)
    print(f"{backend} {precision}: {found}")
    assert found.state == "verified"
    assert found.layers[precision] > 0


def test_an_fp32_engine_that_was_meant_to_be_fp16_is_found_out(backend: Backend) -> None:
    engine = built(backend, "fp32")
    asked = dataclasses.replace(engine.info.precision, asked="fp16")
    found = precision_after_open(Engine(engine.plan, dataclasses.replace(engine.info, precision=asked)), 0)
    assert found.state == "mismatch"


def test_many_requests_in_flight_give_what_single_ones_give(backend: Backend) -> None:
    engine = built(backend, "fp16")
    given = [frames(SIZES[index % 3], seed=index)[0] for index in range(12)]
    with open_engine(engine) as single:
        expected = [single.run([frame])[0] for frame in given]
    with open_engine(engine, lanes=3) as runner:
        tickets = [runner.submit([frame]) for frame in given]
        order = [7, 0, 3, 11, 1, 2, 4, 5, 6, 8, 9, 10]
        results = {index: runner.result(tickets[index])[0] for index in order}
        together = runner.run(given)
    for index, labels in enumerate(expected):
        np.testing.assert_array_equal(results[index], labels)
        np.testing.assert_array_equal(together[index], labels)


def test_sessions_overlap_and_wait_for_their_own(backend: Backend) -> None:
    engine = built(backend, "fp16")
    with open_engine(engine, lanes=2) as runner:
        first, second = (session.engine for session in runner.sessions)
        expected = []
        for engine_session, seed in ((first, 1), (second, 2)):
            preprocess_frames(frames(SIZES[0], seed=seed), runner.spec, engine_session.input)
            engine_session.start(1)
            expected.append(engine_session.wait().copy())
        assert not np.array_equal(expected[0], expected[1])
        for _ in range(20):
            first.start(1)
            second.start(1)
            np.testing.assert_array_equal(second.wait(), expected[1])
            np.testing.assert_array_equal(first.wait(), expected[0])


def test_a_dynamic_batch(backend: Backend) -> None:
    batch: Batch = (1, 2, 4)
    given = frames(*[SIZES[0]] * 7)
    with open_engine(built(backend, "fp32", batch)) as runner:
        session: Any = runner.sessions[0].engine
        alone = [runner.logits([frame])[0] for frame in given]
        for size in (4, 1, 3, 2, 4):
            preprocess_frames(given[:size], runner.spec, session.input)
            session.start(size)
            output = session.wait()
            assert output.shape[0] == size
            largest = max(np.abs(logits).max() for logits in alone)
            np.testing.assert_allclose(output, np.stack(alone[:size]), atol=1e-3 * largest)
        assert len(runner.run(given)) == 7


def test_an_engine_that_gives_labels(backend: Backend) -> None:
    frame = frames(SIZES[0])[0]
    with open_engine(built(backend, "fp16", head="labels")) as runner:
        labels = runner.run([frame])[0]
    assert labels.dtype == np.uint8
    assert np.mean(labels != reference(frame)[1]) < 0.02


def test_the_input_changes_the_output(backend: Backend) -> None:
    with open_engine(built(backend, "fp16")) as runner:
        first, second = (runner.logits(frames(SIZES[0], seed=seed)) for seed in (1, 2))
        again = runner.logits(frames(SIZES[0], seed=1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)


def test_the_devices_own_time_is_a_part_of_the_whole(backend: Backend) -> None:
    import time

    with open_engine(built(backend, "fp16")) as runner:
        session: Any = runner.sessions[0].engine
        for _ in range(5):
            begin = time.perf_counter()
            session.start(1)
            session.wait()
            whole = 1000 * (time.perf_counter() - begin)
            assert 0 < session.device_ms() < whole


def test_closing_gives_the_gpus_memory_back(backend: Backend) -> None:
    import torch

    def cycle() -> int:
        runner = open_engine(built(backend, "fp16", (1, 2, 4)), lanes=2)
        for seed in range(3):
            runner.submit(frames(SIZES[0], seed=seed))
        runner.close()  # with requests in flight that nobody asked for
        runner.close()
        del runner
        gc.collect()
        torch.cuda.synchronize()
        free: int = torch.cuda.mem_get_info()[0]
        return free

    cycle()
    free = [cycle() for _ in range(4)]
    assert free[0] - free[-1] < 16 * MIB, [value // MIB for value in free]


def test_a_plan_that_was_cut_short_is_refused(backend: Backend) -> None:
    engine = built(backend, "fp32")
    with pytest.raises(EngineError, match="this plan"):
        open_engine(dataclasses.replace(engine, plan=engine.plan[:1000]))


def test_a_plan_for_this_gpu_says_so(backend: Backend) -> None:
    check_engine(built(backend, "fp32").info)


def test_our_rule_for_which_gpus_an_ahead_of_time_plan_runs_on_is_tensorrt_rtxs(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx", exc_type=ImportError)
    from rtformer_deploy.backends import build
    from rtformer_deploy.graph.edit import clone
    from rtformer_deploy.graph.functions import inline_functions

    model, spec = exported("lowres", False)
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.build.gpus", lambda: ())  # as on a machine without one
    engine = build(inline_functions(clone(model)), spec, "tensorrt-rtx", BuildOptions())
    validity, reasons = trt.Runtime(trt.Logger(trt.Logger.ERROR)).get_engine_validity(engine.plan)
    print(f"a plan for {engine.info.gpu} on {gpus()[0]}: {validity} {reasons}")
    assert runs_on(engine.info, gpus()[0]) == (validity != trt.EngineValidity.INVALID)
