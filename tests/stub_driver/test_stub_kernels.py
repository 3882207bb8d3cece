"""Kernels that are launched through cuda.core over the stub run, in their stream's order, with the bits of the host's emulation."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import stub
from emulated_cuda import Cuda
from kernel_calls import HostMemory, KernelCalls, model_spec
from numpy.typing import NDArray
from stub import StubDriver
from stub_lab import Lab, bytes_at

from rtformer_deploy.image import frames as image
from rtformer_deploy.image.nv12 import nv12_to_rgb, yuv_factors
from rtformer_deploy.lanes import kernels as kernels_module

INPUT, GRID, CLASSES, FRAME = (32, 48), (4, 6), 7, (37, 53)


class StubMemory:
    """The stub's memory as KernelCalls wants it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.stream = lab.stream()
        self._sizes: dict[int, int] = {}

    def put(self, data: NDArray[np.uint8]) -> int:
        pinned, host = self._lab.pinned(data.size)
        host[:] = data
        buffer = self._lab.device(data.size, self.stream)
        buffer.copy_from(pinned, stream=self.stream)
        return int(buffer.handle)

    def get(self, address: int, size: int) -> NDArray[np.uint8]:
        self.stream.sync()
        return bytes_at(address, size).copy()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVRTC does not run here."""
    monkeypatch.setattr(kernels_module, "compile_kernel_file", stub.compile_kernel_file)


def on_stub(lab: Lab, *dtypes: Any) -> KernelCalls:
    return KernelCalls(lab.cuda, lab.gpu, StubMemory(lab), model_spec(INPUT, GRID, CLASSES), *dtypes)


def on_host(monkeypatch: pytest.MonkeyPatch, *dtypes: Any) -> KernelCalls:
    from rtformer_deploy.nvidia import nvrtc

    monkeypatch.setattr(kernels_module, "compile_kernel_file", nvrtc.compile_kernel_file)
    emulated = Cuda()
    return KernelCalls(emulated, emulated.gpu, HostMemory(), model_spec(INPUT, GRID, CLASSES), *dtypes)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_preprocess_gives_the_bits_of_the_emulation_and_of_the_cpu(
    lab: Lab, compiled: None, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *FRAME, 3), np.uint8)
    given = on_stub(lab, dtype).preprocess(frames)
    emulated = on_host(monkeypatch, dtype).preprocess(frames)
    np.testing.assert_array_equal(given.view(np.uint8), emulated.view(np.uint8))
    spec = model_spec(INPUT, GRID, CLASSES)
    np.testing.assert_array_equal(given[0], image.preprocess(frames[0], INPUT, spec.mean, spec.std).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_upsample_argmax_gives_the_bits_of_the_emulation_and_of_the_cpu(
    lab: Lab, compiled: None, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    logits = np.random.default_rng(1).standard_normal((1, CLASSES, *GRID)).astype(dtype)
    given, flag = on_stub(lab, "float32", dtype).upsample_argmax(logits, FRAME)
    emulated, _ = on_host(monkeypatch, "float32", dtype).upsample_argmax(logits, FRAME)
    assert flag == 0
    np.testing.assert_array_equal(given, emulated)
    np.testing.assert_array_equal(given[0], image.upsample_argmax(logits[0].astype(np.float32), FRAME, INPUT))


def test_overlay_and_double_norm_run_too(lab: Lab, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    frames, labels = rng.integers(0, 256, (1, *FRAME, 3), np.uint8), rng.integers(0, CLASSES, (1, *FRAME), np.uint8)
    x = rng.standard_normal((1, 8, 50)).astype(np.float16)
    here = on_stub(lab)
    given = here.overlay(frames, labels, 0.5), here.double_norm(x, 2)
    there = on_host(monkeypatch)
    np.testing.assert_array_equal(given[0], there.overlay(frames, labels, 0.5))
    np.testing.assert_allclose(given[1].astype(np.float32), there.double_norm(x, 2).astype(np.float32), rtol=1e-2)


def test_nv12_to_rgb_gives_the_bits_of_the_cpu(lab: Lab, compiled: None) -> None:
    rng = np.random.default_rng(3)
    luma, chroma = rng.integers(0, 256, FRAME, np.uint8), rng.integers(0, 256, (19, 27, 2), np.uint8)
    factors = yuv_factors(9, full=True)
    given = on_stub(lab).nv12_to_rgb(luma, chroma, factors, 1, padding=10)
    np.testing.assert_array_equal(given, nv12_to_rgb(luma, chroma, factors, 1))


def test_a_launch_waits_its_turn(lab: Lab, compiled: None, driver: StubDriver) -> None:
    calls = on_stub(lab)
    stream = calls.memory.stream
    frame, out = lab.device(3 * FRAME[0] * FRAME[1], stream, value=9), lab.device(4 * 3 * INPUT[0] * INPUT[1], stream)
    tables = calls.kernels.tables(FRAME)
    at = calls.memory.put(tables.blob)
    calls.kernels.preprocess(stream, int(frame.handle), tables, at, int(out.handle))
    assert (lab.now(out) == 0xDB).all()
    stream.sync()
    assert not (lab.now(out) == 0xDB).all()
    assert any(line.startswith("queued launch preprocess_f32 ") for line in driver.log())


def test_a_captured_launch_runs_in_the_replay_over_the_memory_of_then(lab: Lab, compiled: None) -> None:
    calls = on_stub(lab)
    stream, spec = calls.memory.stream, calls.spec
    size = 3 * FRAME[0] * FRAME[1]
    frame, out = lab.device(size, stream), lab.device(4 * 3 * INPUT[0] * INPUT[1], stream)
    tables = calls.kernels.tables(FRAME)
    at = calls.memory.put(tables.blob)
    builder = stream.create_graph_builder()
    builder.begin_building("thread_local")
    calls.kernels.preprocess(stream, int(frame.handle), tables, at, int(out.handle))
    graph = builder.end_building().complete()
    builder.close()
    for value in (5, 200):
        frame.fill(value, stream=stream)
        graph.launch(stream)
        stream.sync()
        expected = image.preprocess(np.full((*FRAME, 3), value, np.uint8), INPUT, spec.mean, spec.std)
        np.testing.assert_array_equal(lab.now(out).view(np.float32).reshape(expected.shape), expected)


def test_an_address_that_is_no_memory_of_the_gpu_breaks_the_context(lab: Lab, compiled: None, driver: StubDriver) -> None:
    calls = on_stub(lab)
    stream = calls.memory.stream
    tables = calls.kernels.tables(FRAME)
    host = np.zeros(3 * FRAME[0] * FRAME[1], np.uint8)
    calls.kernels.preprocess(stream, host.ctypes.data, tables, calls.memory.put(tables.blob), calls.memory.put(np.zeros(20000, np.uint8)))
    with pytest.raises(Exception, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        stream.sync()
    assert any("preprocess_f32 is given" in line for line in driver.log())


def test_a_launch_over_freed_memory_is_a_fault(lab: Lab, compiled: None, driver: StubDriver) -> None:
    calls = on_stub(lab)
    stream = calls.memory.stream
    tables = calls.kernels.tables(FRAME)
    frame = lab.device(3 * FRAME[0] * FRAME[1], stream)
    address = int(frame.handle)
    out = calls.memory.put(np.zeros(20000, np.uint8))
    at = calls.memory.put(tables.blob)
    frame.close(stream)
    calls.kernels.preprocess(stream, address, tables, at, out)
    assert driver.faults() == 1


def test_a_launch_with_too_many_threads_or_none_is_refused(lab: Lab) -> None:
    kernel = stub.compile_kernel_file(lab.cuda, "upsample_argmax", "90").get_kernel("upsample_argmax_f32")
    stream = lab.stream()
    for block in (1024, 257):
        with pytest.raises(Exception, match="CUDA_ERROR_INVALID_VALUE"):
            lab.cuda.launch(stream, lab.cuda.LaunchConfig(grid=(1,), block=(block,)), kernel, *([1] * kernel.num_arguments))


def test_a_function_is_launched_in_its_own_context_alone(lab: Lab) -> None:
    from cuda.bindings import driver as bindings

    mine = lab.stream()
    _, other = bindings.cuCtxCreate(None, 0, 0)
    _, module = bindings.cuModuleLoadData(stub.cubin("overlay"))
    _, function = bindings.cuModuleGetFunction(module, b"overlay")
    lab.gpu.set_current()
    launch = lab.driver.library.cuLaunchKernel
    one = [ctypes.c_uint(1)] * 6
    assert launch(ctypes.c_void_p(int(function)), *one, ctypes.c_uint(0), ctypes.c_void_p(int(mine.handle)), None, None) == 400
    bindings.cuCtxDestroy(other)


def test_only_cubins_of_the_stub_for_this_gpu_are_loaded(lab: Lab) -> None:
    load = lab.cuda.ObjectCode.from_cubin
    with pytest.raises(Exception, match="CUDA_ERROR_NO_BINARY_FOR_GPU"):
        load(stub.cubin("overlay", 120)).get_kernel("overlay")
    with pytest.raises(Exception, match="CUDA_ERROR_INVALID_IMAGE"):
        load(b"\x7fELF" + bytes(100)).get_kernel("overlay")
    with pytest.raises(Exception, match="CUDA_ERROR_NOT_FOUND"):
        load(stub.cubin("overlay")).get_kernel("underlay")
