"""The confidence map: the winner's softmax at the frame's size, in native code and in NumPy alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rtformer_deploy.errors import EngineError
from rtformer_deploy.image import native
from rtformer_deploy.image.confidence import confidence_map
from rtformer_deploy.image.upsample import upsampled
from rtformer_deploy.types import Resize

SIZES = [
    (11, (9, 12), (72, 96), (72, 96)),
    (2, (5, 6), (33, 47), (40, 48)),
    (19, (4, 70), (32, 600), (32, 560)),
    (1, (3, 3), (5, 5), (24, 24)),
]


def drawn(classes: int, grid: tuple[int, int], spread: float = 4) -> NDArray[np.float32]:
    return (np.random.default_rng(classes).standard_normal((classes, *grid)) * spread).astype(np.float32)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize(("classes", "grid", "size", "engine"), SIZES)
def test_it_is_the_largest_softmax_of_the_interpolated_logits(
    classes: int, grid: tuple[int, int], size: tuple[int, int], engine: tuple[int, int], resize: Resize
) -> None:
    logits = drawn(classes, grid)
    planes = np.stack(list(upsampled(logits, size, engine, resize))).astype(np.float64)
    powers = np.exp(planes - planes.max(axis=0))
    exact = 255 * (powers / powers.sum(axis=0)).max(axis=0)
    assert np.abs(confidence_map(logits, size, engine, resize) - exact).max() < 0.501  # rounded to a level


@pytest.mark.parametrize("spread", [0.01, 4, 1e6, 5e37])
def test_native_code_and_numpy_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, spread: float) -> None:
    if not native.available():
        pytest.skip("the native code is not compiled here")
    logits = drawn(11, (9, 40), spread)
    compiled = confidence_map(logits, (70, 330), (72, 320))
    monkeypatch.setattr(native, "_module", None)
    np.testing.assert_array_equal(compiled, confidence_map(logits, (70, 330), (72, 320)))


def test_a_logit_that_is_not_a_number_is_refused() -> None:
    logits = drawn(3, (4, 4))
    logits[1, 2, 2] = np.nan
    with pytest.raises(EngineError, match="not finite"):
        confidence_map(logits, (32, 32), (32, 32))
