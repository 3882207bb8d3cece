"""half.cuh converts as NumPy does, every bit pattern of FP16 and around every rounding boundary."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from emulated_cuda import COMPILER, compiled_text
from numpy.typing import NDArray

PROGRAM = """
#include "half.cuh"
extern "C" void widen(const unsigned short* from, float* to, int count) {
    for (int i = 0; i < count; ++i) to[i] = rtf::to_float(rtf::half{from[i]});
}
extern "C" void narrow(const float* from, unsigned short* to, int count) {
    for (int i = 0; i < count; ++i) {
        rtf::half result;
        rtf::store(&result, from[i]);
        to[i] = result.bits;
    }
}
"""


@pytest.fixture(scope="module")
def library(root: Path) -> ctypes.CDLL:
    if COMPILER is None:
        pytest.skip("needs g++ or clang++")
    return compiled_text(PROGRAM, root / "plugins")


def address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def test_every_half_widens_exactly(library: ctypes.CDLL) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    found = np.empty(bits.size, np.float32)
    library.widen(address(bits), address(found), bits.size)
    expected = bits.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(found[numbers].view(np.uint32), expected[numbers].view(np.uint32))
    assert np.isnan(found[~numbers]).all()


def test_narrowing_rounds_to_nearest_even(library: ctypes.CDLL) -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2
    edges = np.array([65504, 65519.996, 65520, 65536, 3e38, np.inf, 2.0**-25, 2.0**-26, 1e-45, 0], np.float32)
    values = np.concatenate([halves, middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf), edges])
    values = np.concatenate([values, -values]).astype(np.float32)
    found = np.empty(values.size, np.uint16)
    library.narrow(address(values), address(found), values.size)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, values.astype(np.float16).view(np.uint16))
    nan, result = np.array([np.nan], np.float32), np.empty(1, np.uint16)
    library.narrow(address(nan), address(result), 1)
    assert np.isnan(result.view(np.float16)[0])
