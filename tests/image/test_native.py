"""The compiled loops: every instruction set gives the same bits, what does not fit is refused, NumPy takes over without them."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest

from rtformer_deploy.image import frames as image
from rtformer_deploy.image import native
from rtformer_deploy.image.geometry import output_axes
from rtformer_deploy.types import IMAGENET_MEAN, IMAGENET_STD


def test_every_instruction_set_gives_the_same_bits(module: Any) -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((19, 33, 41)).astype(np.float32)
    frame = rng.integers(0, 256, (97, 131, 3), np.uint8)
    names, results = set(), []
    for left_out in range(3):
        names.add(module.limit_instruction_set(left_out))
        assert native.description() == f"native ({module.instruction_set()})"
        results.append(
            (
                image.upsample_argmax(logits, (97, 131), (264, 328)),
                image.preprocess(frame, (64, 96), IMAGENET_MEAN, IMAGENET_STD),
                image.preprocess(frame, (97, 131), IMAGENET_MEAN, IMAGENET_STD),
            )
        )
    assert "base" in names
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(found, expected)


def upsample_arguments() -> list[Any]:
    logits = np.zeros((3, 4, 5), np.float32)
    rows, columns = output_axes((4, 5), (32, 40), (32, 40), "stretch")
    labels = np.empty((32, 40), np.uint8)
    return [logits, 3, 4, 5, labels, 32, 40, rows.cells, rows.weight, columns.cells, columns.padded_weight, 1]


@pytest.mark.parametrize(
    ("index", "value", "error"),
    [
        (0, np.zeros(59, np.float32), ValueError),
        (0, np.zeros(60, np.float32)[::-1], (ValueError, BufferError)),
        (1, 300, ValueError),
        (2, 0, ValueError),
        (4, np.empty(3, np.uint8), ValueError),
        (4, b"0" * 1280, BufferError),
        (7, np.full(6, 9, np.int32), ValueError),
        (7, np.array([0, 40, 8, 16, 24, 32], np.int32), ValueError),
        (8, np.zeros(31, np.float32), ValueError),
        (10, np.zeros(40, np.float32), ValueError),
        (2, 2**31 - 1, ValueError),
        (3, 2**31 - 3, ValueError),
        (5, 2**31 - 1, ValueError),
        (6, 2**31 - 7, ValueError),
        (0, np.frombuffer(bytearray(241), np.uint8)[1:], ValueError),
        (11, 0, ValueError),
        (11, "two", TypeError),
    ],
)
def test_upsample_refuses_what_does_not_fit(module: Any, index: int, value: Any, error: type[Exception]) -> None:
    arguments = upsample_arguments()
    module.upsample_argmax(*arguments)
    assert not arguments[4].any()
    arguments[index] = value
    with pytest.raises(error):
        module.upsample_argmax(*arguments)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, np.zeros(3, np.uint8)),
        (3, np.zeros(3, np.float32)),
        (6, 1),
        (7, -1),
        (8, 0),
        (9, 7),
        (1, 2**31 - 1),
        (2, 2**31 - 1),
        (4, -(2**31)),
        (5, 2**31 - 1),
        (10, np.full(4, 99, np.int32)),
        (12, np.full(6, -1, np.int32)),
    ],
)
def test_preprocess_refuses_what_does_not_fit(module: Any, index: int, value: Any) -> None:
    weight = np.zeros(6, np.float32)
    low = np.zeros(6, np.int32)
    frame, out = np.zeros((8, 9, 3), np.uint8), np.zeros((3, 4, 6), np.float32)
    arguments = [frame, 8, 9, out, 4, 6, 0, 0, 4, 6, low[:4], weight[:4], low, weight, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), 1]
    module.preprocess(*arguments)
    assert (out == 2).all()
    arguments[index] = value
    with pytest.raises(ValueError, match=r"."):
        module.preprocess(*arguments)


def test_sizes_whose_product_is_beyond_any_integer_are_refused(module: Any) -> None:
    """2**8 * 2**28 * 2**28 floats are 2**66 bytes, which a 64-bit product takes for none."""
    arguments = upsample_arguments()
    arguments[:4] = [np.empty(0, np.float32), 256, 2**28, 2**28]
    with pytest.raises(ValueError, match="another size"):
        module.upsample_argmax(*arguments)


def test_without_the_compiled_code_numpy_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(2).standard_normal((4, 6, 7)).astype(np.float32)
    expected = image.upsample_argmax(logits, (48, 56), (48, 56))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rtformer_deploy.image._native", None)
        importlib.reload(native)
        assert not native.available()
        assert native.description().startswith("NumPy (the native code is not there: ")
        np.testing.assert_array_equal(image.upsample_argmax(logits, (48, 56), (48, 56)), expected)
    importlib.reload(native)


def test_usable_threads() -> None:
    assert native.usable_threads(3) == 3
    assert native.usable_threads(0) == 1
    assert native.usable_threads() >= 1
