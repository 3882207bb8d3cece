"""The TensorRT engine alone with a fake TensorRT over real cuda.core: its calls, lifetimes, messages about what does not open."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from fake_tensorrt import network
from helpers import frames
from tensorrt_lab import ALLOCATED, FREED, SIZES, TensorRTLab, assert_labels
from tensorrt_plans import GPU, half_ends, make_engine, make_info, set_gpus

from rtformer_deploy.backends import check_engine, open_engine
from rtformer_deploy.backends.here import complete_precision
from rtformer_deploy.backends.tensorrt.run import precision_after_open
from rtformer_deploy.errors import EngineError, MissingPackageError, UsageError
from rtformer_deploy.image.frames import upsample_argmax
from rtformer_deploy.lanes.buffers import import_cuda
from rtformer_deploy.nvidia.driver import GpuInfo, current_context
from rtformer_deploy.runtime.cpu_session import preprocess_frames
from rtformer_deploy.runtime.session import DeviceTimed
from rtformer_deploy.timing.bench import bench
from rtformer_deploy.types import PrecisionFound


def fill(session: Any, batch: int, seed: int) -> np.ndarray[Any, Any]:
    """Random images into the session's input -> the output that the engine makes of them."""
    session.input[:batch] = np.random.default_rng(seed).standard_normal((batch, *session.input.shape[1:]), np.float32)
    return network(session.input[:batch])


def test_frames_go_through_the_engine(machine: TensorRTLab) -> None:
    given = frames(*SIZES)
    with open_engine(make_engine(), lanes=2) as runner:
        assert_labels(runner.run(given), given)


def test_an_engine_that_gives_labels(machine: TensorRTLab) -> None:
    machine.io = {"input": "FLOAT", "labels": "UINT8"}
    with open_engine(make_engine("labels")) as runner:
        labels = runner.run(frames((64, 96)))[0]
        runner.sessions[0].engine.start(1)
        assert runner.sessions[0].engine.wait().dtype == np.uint8
    assert labels.shape == (64, 96)
    assert len(np.unique(labels)) > 1


def test_an_engine_with_fp16_ends(machine: TensorRTLab) -> None:
    """From opening to the label maps, the logits, the engine alone and bench."""
    machine.io = {"input": "HALF", "logits": "HALF"}
    engine, given = make_engine(), frames(*SIZES[:2])
    engine = dataclasses.replace(engine, info=half_ends(engine.info))
    with open_engine(engine) as runner:
        session, images = runner.sessions[0].engine, np.empty((2, 3, 64, 96), np.float16)
        preprocess_frames(given, runner.spec, images, 1)
        expected = network(images.astype(np.float32)).astype(np.float16)
        logits = runner.logits(given)
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, expected.astype(np.float32))
        for labels, frame, values in zip(runner.run(given), given, expected, strict=True):
            np.testing.assert_array_equal(labels, upsample_argmax(values.astype(np.float32), frame.shape[:2], runner.spec.size))
        session.input[:2] = images
        session.start(2)
        np.testing.assert_array_equal(session.wait().view(np.uint16), expected.view(np.uint16))
        assert bench(runner, given, seconds=0.01, warmup=0).batch == 2
    assert session.input.dtype == np.float16
    assert session.input.size == 0


def test_the_types_of_a_plan_are_those_of_its_sidecar(machine: TensorRTLab) -> None:
    engine = make_engine()
    with pytest.raises(EngineError, match=r"'input': 'float32'.*its engine.plan.json says .*'input': 'float16'") as caught:
        open_engine(dataclasses.replace(engine, info=half_ends(engine.info)))
    assert "--fp16 --io fp16 " in str(caught.value.hint)


def run(session: Any, batch: int) -> Any:
    session.start(batch)
    return session.wait()


def test_a_batch_is_set_once_and_a_run_is_one_copy_each_way(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), graphs=False) as runner:
        session: Any = runner.sessions[0].engine
        run(session, 3)  # the host's side of the output is made when it is first asked for
        expected = fill(session, 2, seed=1)
        one_run = {"queued copy pinned to device": 1, "TensorRT: execute 2": 1, "queued call back": 1, "queued copy device to pinned": 1}
        settings = {"TensorRT: shape 2": 1, "TensorRT: address input": 1, "TensorRT: address logits": 1}
        assert machine.calls(lambda: run(session, 2)) == {**settings, **one_run}
        assert machine.calls(lambda: run(session, 2)) == one_run
        np.testing.assert_allclose(session.wait(), expected, rtol=1e-6)


def test_each_batch_gets_its_own_shape_and_copies_only_itself(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        session: Any = runner.sessions[0].engine
        whole = run(session, 3)
        for batch in (1, 3, 1, 2, 2, 3):
            expected = fill(session, batch, seed=batch)
            whole[:] = -7
            output = run(session, batch)
            assert output.shape == (batch, 5, 8, 12)
            np.testing.assert_allclose(output, expected, rtol=1e-6)
            assert np.all(whole[batch:] == -7)
        assert machine.count("TensorRT: shape 1") == 2
        assert machine.count("TensorRT: shape 2") == 1
        assert machine.count("TensorRT: shape 3") == 2, "from its graph on, a batch keeps its context"


def test_start_returns_before_anything_has_run(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        session: Any = runner.sessions[0].engine
        expected = fill(session, 1, seed=1)
        session.start(1)
        assert machine.runs_done == 0
        np.testing.assert_allclose(session.wait(), expected, rtol=1e-6)
        np.testing.assert_allclose(session.wait(), expected, rtol=1e-6)  # as after an interrupt
        assert machine.runs_done == 1


def test_waiting_waits_for_its_own_request_alone(machine: TensorRTLab) -> None:
    with open_engine(make_engine(), lanes=3) as runner:
        engines: Any = [session.engine for session in runner.sessions]
        expected = [fill(engine, 1, seed) for seed, engine in enumerate(engines)]
        for engine in engines:
            engine.start(1)
        for done, index in enumerate((1, 2, 0), 1):
            np.testing.assert_allclose(engines[index].wait(), expected[index], rtol=1e-6)
            assert machine.runs_done == done, "the others have not run yet"
        np.testing.assert_allclose(engines[1].wait(), expected[1], rtol=1e-6)


def memory_type(machine: TensorRTLab, address: int) -> int:
    found = ctypes.c_uint()
    assert machine.driver.library.cuPointerGetAttribute(ctypes.byref(found), 2, ctypes.c_uint64(address)) == 0
    return found.value


def test_the_input_starts_as_zeros_and_is_the_pinned_memory(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        session = runner.sessions[0].engine
        assert session.input.shape == (3, 3, 64, 96)
        assert session.input.dtype == np.float32
        assert not session.input.any()
        assert memory_type(machine, session.input.ctypes.data) == 1  # CU_MEMORYTYPE_HOST


def test_closing_waits_then_gives_up_the_context_then_the_memory_then_the_stream(machine: TensorRTLab) -> None:
    runner = open_engine(make_engine())
    session: Any = runner.sessions[0].engine
    fill(session, 3, seed=1)
    session.start(3)

    def close() -> None:
        session.close()
        gc.collect()

    tensors = ["queued free", "freed pinned"] * 2
    assert machine.during(close) == ["TensorRT: destroy context", *tensors, "destroyed a stream"]
    assert machine.runs_done == 1
    assert machine.driver.calls()["cuEventDestroy_v2"] == machine.driver.calls()["cuEventCreate"] > 0
    assert session.input.shape == (0, 3, 64, 96)
    assert machine.during(runner.close) == []
    with pytest.raises(EngineError, match="Nothing was started"):
        session.wait()


def test_tickets_that_nobody_took_do_not_hinder_closing(machine: TensorRTLab) -> None:
    runner = open_engine(make_engine(), lanes=2)
    for seed in range(5):
        runner.submit(frames((64, 96), seed=seed))
    runner.close()
    assert machine.count(*FREED) == machine.count(*ALLOCATED) > 8
    assert machine.count("destroyed a stream") == 2


def test_any_thread_may_use_a_session(machine: TensorRTLab, gpu: Any) -> None:
    with open_engine(make_engine(), device=1) as runner:
        session: Any = runner.sessions[0].engine
        expected = fill(session, 1, seed=1)
        gpu.set_current()  # somebody else's work on another GPU
        others = current_context()
        starter = threading.Thread(target=session.start, args=(1,))
        starter.start()
        starter.join()
        np.testing.assert_allclose(session.wait(), expected, rtol=1e-6)
        assert current_context() == others, "the caller's own context is current again"
        closer = threading.Thread(target=session.close)
        closer.start()
        closer.join()
    assert machine.count("destroyed a stream") == 1


def test_the_devices_own_time(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        timed: Any = runner.sessions[0].engine
        assert isinstance(runner.sessions[0].engine, DeviceTimed)
        timed.start(1)
        timed.wait()
        machine.run_s = 2e-3
        for batch in (2, 3):
            begin = time.perf_counter()
            timed.start(batch)
            timed.wait()
            assert 2.0 * batch <= timed.device_ms() <= 1000 * (time.perf_counter() - begin)


def test_a_refused_execution_is_that_requests_error(machine: TensorRTLab) -> None:
    with open_engine(make_engine()) as runner:
        session: Any = runner.sessions[0].engine
        runner.run(frames((64, 96)))
        machine.runs = False
        with pytest.raises(EngineError, match=r"could not start the engine:\n  the kernel went missing"):
            runner.run(frames((64, 96)))
        assert machine.driver.pending() == 0
        with pytest.raises(EngineError, match="Nothing was started"):
            session.wait()
        machine.runs = True
        assert len(runner.run(frames((64, 96)))) == 1


@pytest.mark.parametrize(
    ("refuses", "message"),
    [("takes_shape", "does not take a batch of 2; it gave no reason"), ("takes_address", "does not take the memory for input")],
)
def test_a_refused_shape_or_address_is_said_and_tried_again_next_time(machine: TensorRTLab, refuses: str, message: str) -> None:
    with open_engine(make_engine(), graphs=False) as runner:  # one context for all batches
        session = runner.sessions[0].engine
        for batch in (3, 1):  # refused at first, then after a batch that was taken
            setattr(machine, refuses, False)
            with pytest.raises(EngineError, match=message):
                session.start(2)
            setattr(machine, refuses, True)
            expected = fill(session, batch, seed=batch)
            session.start(batch)
            np.testing.assert_allclose(session.wait(), expected, rtol=1e-6)
        session.start(1)
        setattr(machine, refuses, False)
        with pytest.raises(EngineError, match=message):
            session.start(2)
        setattr(machine, refuses, True)
        expected = fill(session, 1, seed=5)
        session.start(1)  # the context still holds the shape that was tried last
        assert machine.journal()[-7:-5] == ["TensorRT: shape 1", "TensorRT: address input"]
        np.testing.assert_allclose(session.wait(), expected, rtol=1e-6)


def test_no_memory_for_the_third_context_gives_up_the_first_two(machine: TensorRTLab) -> None:
    machine.contexts_left = 2
    with pytest.raises(EngineError, match="could not make an execution context"):
        open_engine(make_engine(), lanes=3)
    gc.collect()
    assert machine.count(*FREED) == machine.count(*ALLOCATED) == 4
    assert machine.count("destroyed a stream") == 3, "the third lane's, which came before its context, too"


def test_what_cuda_refuses_names_the_gpu_and_the_way_out(machine: TensorRTLab) -> None:
    machine.driver.memory_limit(machine.driver.used() + 1000)
    with pytest.raises(
        EngineError, match=r"cannot be opened on NVIDIA Fake \(8.6\): CUDA_ERROR_OUT_OF_MEMORY.*\nBuild it again here: rtformer"
    ):
        open_engine(make_engine())


def test_a_plan_that_does_not_deserialize_has_tensorrts_words(machine: TensorRTLab) -> None:
    machine.opens = False
    with pytest.raises(EngineError, match=r"tensorrt 10.3.0 cannot open this plan:\n  Serialization assertion failed\nBuild it again"):
        open_engine(make_engine())


def test_a_plan_that_is_not_what_its_sidecar_says(machine: TensorRTLab) -> None:
    machine.io = {"input": "FLOAT", "logits": "HALF"}
    with pytest.raises(EngineError, match=r"'logits': 'float16'.*its engine.plan.json says .*'logits': 'float32'"):
        open_engine(make_engine())


@pytest.mark.parametrize("allowed", [True, False])
def test_only_a_version_compatible_plan_may_bring_code(machine: TensorRTLab, allowed: bool) -> None:
    with open_engine(make_engine(options={"version_compatible": allowed})):
        assert f"TensorRT: deserialize plan host code {allowed}" in machine.journal()


@pytest.mark.parametrize(
    ("reasons", "words"),
    [(1, "another version of TensorRT-RTX"), (2 | 4, "compute capability, and the NVIDIA driver is too old"), (128, "the reason 128")],
)
def test_what_rtx_calls_invalid_is_explained(machine: TensorRTLab, reasons: int, words: str) -> None:
    machine.validity = ("INVALID", reasons)
    engine = make_engine(backend="tensorrt-rtx", builder_version="tensorrt-rtx 10.3.0", gpu="compute capability 8.0, 8.6")
    with pytest.raises(
        EngineError, match=rf"does not open this plan here: .*{words}.*\nBuild it again here: .*--backend tensorrt-rtx --fp16"
    ):
        open_engine(engine)
    machine.validity = ("SUBOPTIMAL", 0)
    with open_engine(engine) as runner:
        assert len(runner.run(frames((64, 96)))) == 1


# Before anything is opened.


def test_a_missing_cuda_core_names_the_extra(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    monkeypatch.setattr("rtformer_deploy.backends.tensorrt.run.import_cuda", import_cuda)
    with pytest.raises(MissingPackageError, match=r"needs the package cuda-core, .*\nRun: pip install 'rtformer-deploy\[gpu\]'"):
        check_engine(make_info())


@pytest.mark.parametrize(
    ("built", "compatible", "opens"),
    [
        ("tensorrt 10.3.0", False, True),
        ("tensorrt 10.16.1", False, False),
        ("tensorrt 10.16.1", True, True),
        ("tensorrt 11.0.0", True, False),
        ("tensorrt 10.3.0 (bindings over TensorRT-RTX: an RTX plan)", True, False),
    ],
)
def test_a_plan_of_another_version(machine: TensorRTLab, built: str, compatible: bool, opens: bool) -> None:
    info = make_info(builder_version=built, options={"version_compatible": compatible})
    if opens:
        check_engine(info)
        return
    with pytest.raises(EngineError) as caught:
        check_engine(info)
    assert f"was built by {built}; here is tensorrt 10.3.0" in caught.value.what
    assert "rtformer-deploy build-engine MODEL.onnx --backend tensorrt --fp16 --min 1 --opt 2 --max 3" in str(caught.value.hint)


def test_a_plan_of_another_gpu(machine: TensorRTLab) -> None:
    with pytest.raises(EngineError) as caught:
        check_engine(make_info(gpu="NVIDIA H100 (9.0)"))
    assert caught.value.what.startswith("The plan was built for NVIDIA H100 (9.0); here is NVIDIA Fake (8.6), NVIDIA Fake (8.6)")
    assert str(caught.value.hint).startswith("Build it again here: rtformer-deploy build-engine MODEL.onnx --backend tensorrt --fp16")
    assert machine.journal() == []


def test_each_gpu_is_asked_for_itself(machine: TensorRTLab, monkeypatch: pytest.MonkeyPatch) -> None:
    other = GpuInfo(1, "NVIDIA Other", "8.9", 8192, "13.0")
    set_gpus(monkeypatch, GPU, other)
    with pytest.raises(EngineError, match=r"built for NVIDIA Fake \(8.6\); here is NVIDIA Other \(8.9\)"):
        open_engine(make_engine(), device=1)
    with pytest.raises(UsageError, match=r"no GPU 2 here; there are: 0: NVIDIA Fake \(8.6\), 1: NVIDIA Other \(8.9\)"):
        open_engine(make_engine(), device=2)
    with pytest.raises(UsageError, match="no GPU -1"):
        open_engine(make_engine(), device=-1)


# What precision the opened plan has.


def conv(kind: str) -> dict[str, Any]:
    return {"LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": kind}]}


def test_the_precision_is_read_from_the_opened_plan(machine: TensorRTLab) -> None:
    machine.layers = [conv("Half"), conv("Half"), "reformat"]
    assert precision_after_open(make_engine(), 0) == PrecisionFound(
        "fp16", "verified", {"fp16": 2}, "the engine has 2 compute layers in fp16"
    )
    machine.layers = [conv("Float")]
    found = complete_precision(make_engine()).info.precision
    assert (found.state, found.layers) == ("mismatch", {"fp32": 1})
    assert machine.count("TensorRT: shape") == 0


def test_the_context_is_asked_where_the_engine_does_not_tell(machine: TensorRTLab) -> None:
    machine.layers_with_context = [conv("Half")]
    assert precision_after_open(make_engine(), 0).state == "verified"
    assert machine.count("TensorRT: shape 2") == 1


def test_layers_that_tell_nothing_leave_what_the_network_said(machine: TensorRTLab) -> None:
    machine.layers = machine.layers_with_context = ["conv1 + relu1"]
    found = precision_after_open(make_engine(), 0)
    assert (found.state, found.layers) == ("requested", {"fp16": 3})
    assert found.detail == "the network has 3 compute layers in fp16; the opened plan's layers tell no types"
    assert precision_after_open(make_engine(precision=found), 0) == found


def test_precision_of_a_plan_that_does_not_open_is_the_plans_error(machine: TensorRTLab) -> None:
    with pytest.raises(EngineError, match=r"was built by tensorrt 9\.0\.0"):
        precision_after_open(make_engine(builder_version="tensorrt 9.0.0"), 0)
