"""The kernels on a real GPU: the bits of image.py, as under the emulation of tests/plugins, at sizes that fill a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from kernel_calls import Float, KernelCalls, Size, model_spec
from numpy.typing import NDArray

from rtformer_deploy.image import frames as image
from rtformer_deploy.image.nv12 import nv12_to_rgb, yuv_factors
from rtformer_deploy.lanes.kernels import UPSAMPLE_FORMS
from rtformer_deploy.nvidia.driver import gpus, why_none
from rtformer_deploy.types import ModelSpec, Resize

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason=f"needs an NVIDIA GPU: {why_none()}")]

On = Callable[..., KernelCalls]
SIZES: list[Size] = [(1, 1), (97, 131), (720, 1280), (1024, 2048), (1023, 2047)]


class DeviceMemory:
    """A GPU's memory; `get` waits for the stream."""

    def __init__(self, cuda: Any, gpu: Any) -> None:
        self._cuda, self._gpu = cuda, gpu
        self.stream = gpu.create_stream()
        self._kept: list[Any] = []

    def _pinned(self, size: int) -> tuple[Any, NDArray[np.uint8]]:
        import ctypes

        buffer = self._cuda.LegacyPinnedMemoryResource().allocate(size)
        return buffer, np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(int(buffer.handle)))

    def put(self, data: NDArray[np.uint8]) -> int:
        pinned, host = self._pinned(data.size)
        host[...] = data
        device = self._gpu.allocate(data.size, stream=self.stream)
        device.copy_from(pinned, stream=self.stream)
        self._kept += [pinned, device]
        return int(device.handle)

    def get(self, address: int, size: int) -> NDArray[np.uint8]:
        device = next(buffer for buffer in self._kept if int(buffer.handle) == address)
        pinned, host = self._pinned(device.size)
        device.copy_to(pinned, stream=self.stream)
        self.stream.sync()
        return host[:size].copy()

    def close(self) -> None:
        self.stream.sync()
        for buffer in self._kept:
            buffer.close(self.stream)
        self.stream.sync()


@pytest.fixture
def on_gpu() -> Iterator[On]:
    cuda = pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)
    gpu = cuda.Device(0)
    gpu.set_current()
    memory = DeviceMemory(cuda, gpu)

    def calls(spec: ModelSpec, *dtypes: Any) -> KernelCalls:
        return KernelCalls(cuda, gpu, memory, spec, *dtypes)

    yield calls
    memory.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_preprocess(on_gpu: On, size: Size, resize: Resize, dtype: Float) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    spec = model_spec((512, 1024), (64, 128), 19, resize)
    for frame, planes in zip(frames, on_gpu(spec, dtype).preprocess(frames), strict=True):
        expected = image.preprocess(frame, (512, 1024), spec.mean, spec.std, resize).astype(dtype)
        np.testing.assert_array_equal(planes.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("classes", [1, 19, 171, 256])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["noise", "smooth", "ties"])
@pytest.mark.parametrize("form", UPSAMPLE_FORMS)
def test_upsample_argmax(on_gpu: On, size: Size, classes: int, dtype: Float, kind: str, form: str) -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((2, classes, 64, 128)).astype(np.float32)
    if kind == "smooth":
        logits = 8 * rng.standard_normal((2, classes, 8, 16)).astype(np.float32).repeat(8, 2).repeat(8, 3) + 0.1 * logits
    elif kind == "ties":
        logits = np.round(logits)
    logits = logits.astype(dtype)
    calls = on_gpu(model_spec((512, 1024), (64, 128), classes, "letterbox"), "float32", dtype, form)
    labels, flag = calls.upsample_argmax(logits, size, count=2)
    assert flag == 0
    for given, values in zip(labels, logits.astype(np.float32), strict=True):
        np.testing.assert_array_equal(given, image.upsample_argmax(values, size, (512, 1024), "letterbox"))


@pytest.mark.parametrize("form", UPSAMPLE_FORMS)
def test_a_logit_that_is_not_finite_raises_the_flag(on_gpu: On, form: str) -> None:
    logits = np.zeros((1, 19, 64, 128), np.float32)
    logits[0, 18, 63, 127] = np.nan
    calls = on_gpu(model_spec((512, 1024), (64, 128), 19), "float32", "float32", form)
    assert calls.upsample_argmax(logits, (1, 1))[1] == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0, 3])
def test_overlay(on_gpu: On, size: Size, offset: int) -> None:
    rng = np.random.default_rng(2)
    frames, labels = rng.integers(0, 256, (1, *size, 3), np.uint8), rng.integers(0, 256, (1, *size), np.uint8)
    spec = model_spec((512, 1024), (64, 128), 19)
    given = on_gpu(spec).overlay(frames, labels, 0.4, offset)
    np.testing.assert_array_equal(given[0], image.overlay(frames[0], labels[0], spec.palette, 0.4))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("turns", range(4))
def test_nv12_to_rgb(on_gpu: On, size: Size, turns: int) -> None:
    rng = np.random.default_rng(3)
    luma = rng.integers(0, 256, size, np.uint8)
    chroma = rng.integers(0, 256, (-(-size[0] // 2), -(-size[1] // 2), 2), np.uint8)
    factors = yuv_factors(1, full=False)
    given = on_gpu(model_spec((8, 8), (1, 1), 1)).nv12_to_rgb(luma, chroma, factors, turns, padding=64)
    np.testing.assert_array_equal(given, nv12_to_rgb(luma, chroma, factors, turns))


@pytest.mark.parametrize(("shape", "groups"), [((1, 256, 2048), 8), ((4, 512, 8192), 8), ((1, 256, 8192), 1), ((2, 6, 5), 3)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_double_norm(on_gpu: On, shape: tuple[int, int, int], groups: int, dtype: Float) -> None:
    x = np.random.default_rng(3).standard_normal(shape).astype(dtype)
    grouped = x.astype(np.float64).reshape(shape[0], groups, -1, shape[2])
    grouped = np.exp(grouped - grouped.max(3, keepdims=True))
    grouped /= grouped.sum(3, keepdims=True)
    expected = (grouped / (grouped.sum(2, keepdims=True) + 1e-6)).reshape(shape)
    relative, absolute = (2e-5, 1e-30) if dtype == "float32" else (2**-11 + 2e-5, 2**-25)
    given = on_gpu(model_spec((8, 8), (1, 1), 1)).double_norm(x, groups)
    np.testing.assert_allclose(given.astype(np.float64), expected, rtol=relative, atol=absolute)
